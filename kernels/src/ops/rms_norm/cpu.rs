//! One body in lanes of eight, compiled once for the plain machine and once for AVX2.

pub(super) type Rows = fn(&[f32], &[f32], f32, &mut [f32]);

const LANES: usize = 8;

/// The fastest version that this machine runs.
pub(super) fn best() -> Rows {
    #[cfg(target_arch = "x86_64")]
    if crate::dispatch::Backend::best() != crate::dispatch::Backend::Portable {
        return avx2;
    }
    scalar
}

pub(super) fn scalar(x: &[f32], gamma: &[f32], eps: f32, y: &mut [f32]) {
    rows(x, gamma, eps, y);
}

/// Only [`best`] and the tests hand this out, after asking the machine.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2(x: &[f32], gamma: &[f32], eps: f32, y: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn compiled(x: &[f32], gamma: &[f32], eps: f32, y: &mut [f32]) {
        rows(x, gamma, eps, y);
    }
    // SAFETY: callers have checked that the machine has AVX2 and FMA.
    unsafe { compiled(x, gamma, eps, y) }
}

#[inline(always)]
fn rows(x: &[f32], gamma: &[f32], eps: f32, y: &mut [f32]) {
    let n = gamma.len();
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let mut lanes = [0.0_f32; LANES];
        let (blocks, rest) = x.as_chunks::<LANES>();
        for block in blocks {
            (0..LANES).for_each(|i| lanes[i] += block[i] * block[i]);
        }
        let sum = lanes.iter().sum::<f32>() + rest.iter().map(|v| v * v).sum::<f32>();
        let scale = 1.0 / (sum / n as f32 + eps).sqrt();
        for ((y, x), gamma) in y.iter_mut().zip(x).zip(gamma) {
            *y = x * scale * gamma;
        }
    }
}
