use super::{cpu, reference, softmax};
use crate::Pool;
use crate::dispatch::Backend;

#[test]
fn every_version_agrees_with_the_reference() {
    let versions: &[(Backend, cpu::Row)] = &[
        (Backend::Portable, cpu::scalar),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2, cpu::avx2),
        #[cfg(target_arch = "aarch64")]
        (Backend::Neon, cpu::neon),
    ];
    for (backend, version) in versions.iter().filter(|(backend, _)| backend.available()) {
        for n in [1, 2, 7, 8, 9, 97, 1024] {
            for (scale, offset) in [(1.0, 0.0), (30.0, -500.0), (80.0, 3000.0), (0.0, 1.0)] {
                let x: Vec<f32> = (0..n).map(|i| offset + scale * (i as f32 * 0.7).sin()).collect();
                let (mut a, mut b) = (x.clone(), x.clone());
                let (la, lb) = (version(&mut a), reference::row(&mut b));
                assert!((la - lb).abs() <= 1e-6 * lb.abs().max(1.0), "{backend:?} n={n}: {la} is not {lb}");
                for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                    assert!((a - b).abs() <= 1e-6 * b + 1e-35, "{backend:?} n={n} at {i}: {a} is not {b}");
                }
            }
        }
    }
}

#[test]
fn rows_are_independent_and_masked_entries_are_zero() {
    let row = [0.5, f32::NEG_INFINITY, 2.0];
    let mut x: Vec<f32> = row.iter().copied().cycle().take(3 * 5000).collect();
    softmax(&Pool::new(2), &mut x, 3);
    for three in x.chunks(3) {
        assert_eq!(three, &x[..3]);
        assert_eq!(three[1], 0.0);
        assert!((three.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
    assert_eq!(super::row(&mut []), f32::NEG_INFINITY);
}
