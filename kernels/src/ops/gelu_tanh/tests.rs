use super::{cpu, gelu_tanh, reference};
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
                let want = reference::gelu_tanh(*x);
                assert!(
                    (got - want).abs() <= 5e-7 * x.abs().max(1.0),
                    "{backend:?}: gelu_tanh({x}) is {got}, not {want}"
                );
            }
        }
    }
}

#[test]
fn threads_do_not_change_the_result_and_nan_stays() {
    let x: Vec<f32> = (0..40_000).map(|i| (i as f32 * 0.37).sin() * 6.0).collect();
    let (mut one, mut two) = (x.clone(), x);
    gelu_tanh(&Pool::new(1), &mut one);
    gelu_tanh(&Pool::new(2), &mut two);
    assert_eq!(one, two);
    let mut odd = [f32::NAN, -100.0, 100.0];
    gelu_tanh(&Pool::new(1), &mut odd);
    assert!(odd[0].is_nan() && odd[1].abs() < 1e-30 && odd[2] == 100.0, "{odd:?}");
}
