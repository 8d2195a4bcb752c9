use super::{cpu, layer_norm, reference};
use crate::Pool;
use crate::dispatch::Backend;

fn noise(seed: u64, n: usize, scale: f32, offset: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            offset + scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        })
        .collect()
}

/// m, n, scale of x, offset of x
const CASES: &[(usize, usize, f32, f32)] = &[
    (1, 1, 1.0, 0.0),
    (3, 7, 1.0, 0.0),
    (2, 8, 1.0, 5.0),
    (65, 97, 3.0, -2.0),
    (33, 512, 10.0, 1.0),
    (1, 384, 0.0, 4.0),
];

#[test]
fn every_version_agrees_with_the_reference() {
    let versions: &[(Backend, cpu::Rows)] = &[
        (Backend::Portable, cpu::scalar),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2, cpu::avx2),
    ];
    for &(m, n, scale, offset) in CASES {
        let x = noise(1, m * n, scale, offset);
        let (gamma, beta) = (noise(2, n, 1.0, 0.5), noise(3, n, 1.0, 0.0));
        let mut want = vec![0.0; m * n];
        reference::layer_norm(&x, &gamma, &beta, 1e-5, &mut want);
        // Sums of n values round to n·ε/2 at worst; the offset is amplified by the division by the deviation.
        let tolerance = 1e-6 * (1.0 + n as f32).sqrt() * (1.0 + offset.abs());
        let check = |name: &str, got: &[f32]| {
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let error = (got - want).abs();
                assert!(error <= tolerance, "{name} {m}x{n}: [{i}] is {got}, not {want} (error {error})");
            }
        };
        for (backend, version) in versions.iter().filter(|(backend, _)| backend.available()) {
            let mut got = vec![0.0; m * n];
            version(&x, &gamma, &beta, 1e-5, &mut got);
            check(&format!("{backend:?}"), &got);
        }
        for threads in [1, 2] {
            let mut got = vec![0.0; m * n];
            layer_norm(&Pool::new(threads), &x, &gamma, &beta, 1e-5, &mut got);
            check("pool", &got);
        }
    }
}
