use super::{Window, conv1d, pack, reference};
use crate::Pool;
use crate::ops::linear::Scratch;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// t, c_in, c_out, kernel, stride, pad
const CASES: &[(usize, usize, usize, usize, usize, usize)] = &[
    (1, 1, 1, 1, 1, 0),
    (1, 3, 5, 3, 1, 1),
    (2, 80, 16, 3, 2, 1),
    (7, 5, 3, 3, 2, 1),
    (31, 80, 64, 3, 1, 1),
    (32, 64, 33, 3, 2, 1),
    (9, 2, 7, 5, 3, 4),
    (4, 8, 2, 7, 1, 3),
];

#[test]
fn agrees_with_the_reference() {
    for &(t, c_in, c_out, kernel, stride, pad) in CASES {
        let window = Window { kernel, stride, pad };
        let (x, w, bias) = (noise(1, t * c_in), noise(2, c_out * c_in * kernel), noise(3, c_out));
        let want = reference::conv1d(&x, c_in, &w, &bias, window);
        let pool = Pool::new(2);
        let packed = pack(&pool, &w, c_out, c_in, kernel).unwrap();
        let mut got = vec![f32::NAN; want.len()];
        // A buffer that is not clean, as in use.
        let mut columns = vec![9.0; 17];
        conv1d(&pool, &mut Scratch::default(), &mut columns, &x, c_in, &packed, Some(&bias), window, &mut got);
        let tolerance = 1e-6 * (1.0 + (c_in * kernel) as f32).sqrt();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= tolerance, "{t} {c_in} {c_out} {window:?}: [{i}] is {got}, not {want}");
        }
    }
}

#[test]
fn a_window_wider_than_its_input_has_no_output() {
    assert_eq!(Window { kernel: 5, stride: 1, pad: 0 }.outputs(4), 0);
    assert_eq!(Window { kernel: 3, stride: 2, pad: 1 }.outputs(1200), 600);
}

#[test]
fn weights_of_another_shape_are_refused() {
    assert!(pack(&Pool::new(1), &[0.0; 10], 2, 2, 3).is_err());
}
