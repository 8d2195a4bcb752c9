use super::{cpu, gelu, reference};
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
    for n in [0usize, 1, 7, 8, 9, 4001] {
        // From -20 to 20, zero included for odd lengths.
        let x: Vec<f32> = (0..n).map(|i| (i as f32 - (n / 2) as f32) * 40.0 / n.max(2) as f32).collect();
        for (backend, version) in versions.iter().filter(|(backend, _)| backend.available()) {
            let mut got = x.clone();
            version(&mut got);
            for (x, got) in x.iter().zip(&got) {
                let want = reference::gelu(*x);
                let error = (got - want).abs();
                assert!(
                    error <= 3e-7 * x.abs().max(1.0),
                    "{backend:?}: gelu({x}) is {got}, not {want} (error {error})"
                );
            }
        }
    }
}

#[test]
fn extremes_are_finite_and_nan_stays() {
    let mut x = [f32::MAX, f32::MIN, -0.0, 100.0, -100.0, f32::NAN];
    gelu(&Pool::new(2), &mut x);
    assert_eq!(x[0], f32::MAX);
    assert!(x[1].abs() < 1.0 && x[2] == 0.0 && x[3] == 100.0 && x[4].abs() < 1e-30, "{x:?}");
    assert!(x[5].is_nan());
}

#[test]
fn threads_do_not_change_the_result() {
    let x: Vec<f32> = (0..40_000).map(|i| (i as f32 * 0.37).sin() * 6.0).collect();
    let (mut one, mut two) = (x.clone(), x);
    gelu(&Pool::new(1), &mut one);
    gelu(&Pool::new(2), &mut two);
    assert_eq!(one, two);
}
