use super::{Taps, causal_conv1d, reference};
use crate::Pool;
use crate::ops::conv1d::pack;
use crate::ops::linear::Scratch;
use crate::ops::testing::{assert_close, noise};

/// t, c_in, c_out, kernel, dilation
const CASES: &[(usize, usize, usize, usize, usize)] =
    &[(1, 1, 1, 1, 1), (3, 2, 5, 7, 1), (40, 6, 3, 7, 3), (100, 12, 12, 7, 9), (9, 4, 4, 1, 1), (20, 3, 1, 2, 4)];

#[test]
fn any_chunking_agrees_with_the_reference() {
    let pool = Pool::new(2);
    for &(t, c_in, c_out, kernel, dilation) in CASES {
        let taps = Taps { kernel, dilation };
        let (x, w, bias) = (noise(1, t * c_in), noise(2, c_out * c_in * kernel), noise(3, c_out));
        let want = reference::causal_conv1d(&x, c_in, &w, &bias, taps);
        let packed = pack(&pool, &w, c_out, c_in, kernel).unwrap();
        for chunk in [1, 2, 5, t] {
            let (mut scratch, mut columns) = (Scratch::default(), vec![9.0; 7]);
            let mut history = vec![0.0; taps.history() * c_in];
            let mut got = Vec::new();
            for x in x.chunks(chunk * c_in) {
                let mut y = vec![f32::NAN; x.len() / c_in * c_out];
                causal_conv1d(&pool, &mut scratch, &mut columns, &mut history, x, &packed, Some(&bias), taps, &mut y);
                got.extend(y);
            }
            let what = format!("{t} {c_in} {c_out} {taps:?} by {chunk}");
            assert_close(&got, &want, 1e-6 * (1.0 + (c_in * kernel) as f32).sqrt(), &what);
        }
    }
}
