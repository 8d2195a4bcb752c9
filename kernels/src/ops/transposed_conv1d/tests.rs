use super::{TransposedConv1d, reference, transposed_conv1d};
use crate::Pool;
use crate::ops::linear::Scratch;
use crate::ops::testing::{assert_close, noise};

/// t, c_in, c_out, stride, taps
const CASES: &[(usize, usize, usize, usize, usize)] =
    &[(1, 1, 1, 1, 1), (4, 3, 2, 2, 1), (1, 3, 2, 2, 2), (9, 6, 3, 8, 2), (12, 4, 5, 3, 2), (7, 2, 2, 2, 3)];

#[test]
fn any_chunking_agrees_with_the_reference() {
    let pool = Pool::new(2);
    for &(t, c_in, c_out, stride, taps) in CASES {
        let (x, w, bias) = (noise(1, t * c_in), noise(2, c_in * c_out * stride * taps), noise(3, c_out));
        let want = reference::transposed_conv1d(&x, c_in, &w, &bias, stride);
        let packed = TransposedConv1d::pack(&pool, &w, &bias, c_in, stride).unwrap();
        for chunk in [1, 2, 5, t] {
            let (mut scratch, mut columns, mut history) = (Scratch::default(), vec![9.0; 7], Vec::new());
            let mut got = Vec::new();
            for x in x.chunks(chunk * c_in) {
                let mut y = vec![f32::NAN; packed.outputs(history.len(), x.len())];
                transposed_conv1d(&pool, &mut scratch, &mut columns, &mut history, x, &packed, &mut y);
                got.extend(y);
            }
            let what = format!("{t} {c_in} {c_out} {stride} × {taps} by {chunk}");
            assert_close(&got, &want, 1e-6 * (1.0 + (c_in * taps) as f32).sqrt(), &what);
        }
    }
}

#[test]
fn a_kernel_that_is_no_multiple_of_the_stride_is_refused() {
    assert!(TransposedConv1d::pack(&Pool::new(1), &[0.0; 6], &[0.0], 2, 2).is_err());
}
