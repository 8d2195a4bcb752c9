use super::{cases, cpu, reference, rms_norm};
use crate::Pool;
use crate::dispatch::Backend;

#[test]
fn every_version_agrees_with_the_reference() {
    let versions: &[(Backend, cpu::Rows)] = &[
        (Backend::Portable, cpu::scalar),
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2, cpu::avx2),
    ];
    for (m, n, scale) in cases::CASES {
        let x: Vec<f32> = (0..m * n).map(|i| scale * ((i * i) as f32 * 0.37).sin()).collect();
        let gamma: Vec<f32> = (0..n).map(|i| 1.0 + 0.3 * (i as f32).cos()).collect();
        let mut expected = vec![0.0; m * n];
        reference::rms_norm(&x, &gamma, 1e-6, &mut expected);
        for (backend, version) in versions.iter().filter(|(backend, _)| backend.available()) {
            let mut y = vec![f32::NAN; m * n];
            version(&x, &gamma, 1e-6, &mut y);
            for (i, (a, b)) in y.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() <= 2e-6 * b.abs(), "{backend:?} {m}×{n} at {i}: {a} is not {b}");
            }
        }
        let (mut whole, mut alone) = (vec![0.0; m * n], vec![0.0; n]);
        rms_norm(&Pool::new(2), &x, &gamma, 1e-6, &mut whole);
        rms_norm(&Pool::new(1), &x[(m - 1) * n..], &gamma, 1e-6, &mut alone);
        assert!(whole[(m - 1) * n..] == alone);
    }
}
