use super::{Window, conv2d, pack, reference};
use crate::Pool;
use crate::ops::linear::Scratch;
use crate::ops::testing::{assert_close, noise};

/// rows, columns, c_in, c_out, kernel, stride, pad
const CASES: &[(usize, usize, usize, usize, usize, usize, usize)] = &[
    (1, 1, 1, 1, 1, 1, 0),
    (1, 1, 2, 3, 3, 2, 1),
    (100, 128, 1, 8, 3, 2, 1),
    (13, 16, 8, 5, 3, 2, 1),
    (6, 9, 3, 4, 3, 1, 1),
    (7, 5, 2, 2, 2, 3, 0),
];

#[test]
fn it_agrees_with_the_reference() {
    let pool = Pool::new(2);
    for &(rows, columns, c_in, c_out, kernel, stride, pad) in CASES {
        let window = Window { kernel, stride, pad };
        let x = noise(1, rows * columns * c_in);
        let (w, bias) = (noise(2, c_out * c_in * kernel * kernel), noise(3, c_out));
        let want = reference::conv2d(&x, rows, c_in, &w, &bias, window);
        let packed = pack(&pool, &w, (c_out, c_in, kernel), false).unwrap();
        let (mut got, mut cells) = (vec![f32::NAN; want.len()], vec![9.0; 3]);
        conv2d(&pool, &mut Scratch::default(), &mut cells, &x, rows, &packed, Some(&bias), window, &mut got);
        let what = format!("{rows} {columns} {c_in} {c_out} {window:?}");
        assert_close(&got, &want, 1e-6 * (1.0 + (c_in * kernel * kernel) as f32).sqrt(), &what);
    }
}

#[test]
fn transposed_weights_are_for_transposed_planes() {
    let (rows, columns, window) = (5, 8, Window { kernel: 3, stride: 2, pad: 1 });
    let (x, w, bias) = (noise(1, rows * columns), noise(2, 2 * 9), noise(3, 2));
    let want = reference::conv2d(&x, rows, 1, &w, &bias, window);
    let turned: Vec<f32> = (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect();
    let pool = Pool::new(1);
    let packed = pack(&pool, &w, (2, 1, 3), true).unwrap();
    let mut got = vec![0.0; want.len()];
    conv2d(&pool, &mut Scratch::default(), &mut Vec::new(), &turned, columns, &packed, Some(&bias), window, &mut got);
    let (rows, columns) = (window.outputs(rows), window.outputs(columns));
    let want: Vec<f32> = (0..got.len()).map(|i| want[(i / 2 % rows * columns + i / 2 / rows) * 2 + i % 2]).collect();
    assert_close(&got, &want, 2e-6, "transposed");
}

#[test]
fn weights_of_another_shape_are_refused() {
    assert!(pack(&Pool::new(1), &[0.0; 10], (2, 2, 3), false).is_err());
}
