use super::{cpu, reference, swiglu};
use crate::Pool;
use crate::dispatch::Backend;

#[test]
fn every_version_agrees_with_the_reference() {
    let versions: &[(Backend, cpu::Values)] = &[
        (Backend::Portable, cpu::scalar),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2, cpu::avx2),
        #[cfg(target_arch = "aarch64")]
        (Backend::Neon, cpu::neon),
    ];
    for n in [1, 7, 8, 9, 97, 20_000] {
        let gate: Vec<f32> = (0..n).map(|i| 200.0 * (i as f32 * 0.7).sin().powi(5)).collect();
        let up: Vec<f32> = (0..n).map(|i| 3.0 * (i as f32 * 1.3).cos()).collect();
        let mut expected = gate.clone();
        reference::swiglu(&mut expected, &up);
        for (backend, version) in versions.iter().filter(|(backend, _)| backend.available()) {
            let mut y = gate.clone();
            version(&mut y, &up);
            for (i, (a, b)) in y.iter().zip(&expected).enumerate() {
                // Far below zero the exponential is held at e^88, where the result is smaller than 1e-33.
                assert!((a - b).abs() <= 1e-6 * b.abs() + 1e-33, "{backend:?} n={n} at {i}: {a} is not {b}");
            }
        }
        let (mut whole, mut alone) = (gate.clone(), gate[..1].to_vec());
        swiglu(&Pool::new(2), &mut whole, &up);
        swiglu(&Pool::new(1), &mut alone, &up[..1]);
        assert!(whole[0] == alone[0]);
    }
}
