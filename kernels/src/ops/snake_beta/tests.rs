use super::{SnakeBeta, reference, snake_beta};
use crate::Pool;
use crate::ops::testing::{assert_close, noise};

#[test]
fn it_agrees_with_the_reference() {
    for (rows, channels) in [(0, 3), (1, 1), (5, 7), (900, 24)] {
        let (alpha, beta) = (noise(1, channels), noise(2, channels));
        let x: Vec<f32> = noise(3, rows * channels).iter().map(|v| v * 8.0).collect();
        let want: Vec<f32> =
            (0..x.len()).map(|i| reference::snake_beta(x[i], alpha[i % channels], beta[i % channels])).collect();
        let parameters = SnakeBeta::new(&alpha, &beta).unwrap();
        for threads in [1, 3] {
            let mut got = x.clone();
            snake_beta(&Pool::new(threads), &parameters, &mut got);
            // The argument reaches 8 e, and its rounding goes through the sine unchanged.
            assert_close(&got, &want, 5e-6, &format!("{rows} × {channels}"));
        }
    }
}

#[test]
fn parameters_must_fit_each_other() {
    assert!(SnakeBeta::new(&[0.0], &[]).is_err() && SnakeBeta::new(&[], &[]).is_err());
}
