use half::f16;

use super::{Element, Shape, View, attention_on, reference};
use crate::Pool;
use crate::dispatch::Backend;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, queries: usize, keys: usize, causal: bool) -> Shape {
    Shape { heads, kv_heads, head_dim, queries, keys, causal, scale: 1.0 / (head_dim as f32).sqrt() }
}

fn cases() -> Vec<Shape> {
    vec![
        shape(1, 1, 8, 1, 1, true),
        shape(1, 1, 5, 3, 4, false),
        shape(2, 1, 24, 1, 3, true),
        shape(12, 2, 128, 1, 67, true),
        shape(12, 2, 128, 5, 129, true),
        shape(9, 3, 64, 33, 70, true),
        shape(8, 8, 64, 31, 31, false),
        shape(4, 4, 64, 1, 150, false),
        shape(6, 2, 40, 7, 64, true),
        shape(2, 2, 16, 13, 65, false),
    ]
}

fn check<T: Element>(shape: &Shape, convert: impl Fn(f32) -> T) {
    let (s, d) = (shape, shape.head_dim);
    // Rows inside wider rows, and head-major keys, as the callers have them.
    let q = noise(1, s.queries * (s.heads * d + 7));
    let k: Vec<T> = noise(2, s.kv_heads * s.keys * d).into_iter().map(&convert).collect();
    let v: Vec<T> = noise(3, s.keys * (s.kv_heads * d + 3)).into_iter().map(&convert).collect();
    let q = View { data: &q, row_stride: s.heads * d + 7, head_stride: d };
    let k = View { data: &k, row_stride: d, head_stride: s.keys * d };
    let v = View { data: &v, row_stride: s.kv_heads * d + 3, head_stride: d };
    let mut expected = vec![0.0; s.queries * s.heads * d];
    reference::attention(s, q, k, v, &mut expected);
    for backend in Backend::ALL.into_iter().filter(|b| b.available()) {
        for threads in [1, 3] {
            let mut out = vec![f32::NAN; expected.len()];
            attention_on(backend, &Pool::new(threads), s, q, k, v, &mut out);
            // f32 sums of `keys` weighted values of magnitude at most one.
            let tolerance = 4.0 * f32::EPSILON * (s.keys as f32).sqrt().max(4.0);
            for (at, (a, b)) in out.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() <= tolerance, "{backend:?} {s:?} at {at}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn every_version_agrees_with_the_reference() {
    for shape in cases() {
        check(&shape, |x| x);
        check(&shape, f16::from_f32);
    }
}

#[test]
fn a_causal_row_is_the_same_alone_and_in_a_chunk() {
    let pool = Pool::new(2);
    for (heads, kv_heads, d) in [(12, 2, 128), (9, 3, 64)] {
        let (keys, width) = (150, heads * d);
        let q = noise(1, keys * width);
        let k: Vec<f16> = noise(2, keys * kv_heads * d).into_iter().map(f16::from_f32).collect();
        let v: Vec<f16> = noise(3, keys * kv_heads * d).into_iter().map(f16::from_f32).collect();
        let (k, v) = (View::contiguous(&k, kv_heads, d), View::contiguous(&v, kv_heads, d));
        for backend in Backend::ALL.into_iter().filter(|b| b.available()) {
            let run = |from: usize, until: usize| {
                let mut out = vec![0.0; (until - from) * width];
                let q = View::contiguous(&q[from * width..until * width], heads, d);
                attention_on(backend, &pool, &shape(heads, kv_heads, d, until - from, until, true), q, k, v, &mut out);
                out
            };
            let whole = run(0, keys);
            for (from, until) in [(0, 1), (63, 64), (64, 65), (17, 40), (149, 150), (3, 150)] {
                assert!(run(from, until) == whole[from * width..until * width], "{backend:?} {from}..{until}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "k has")]
fn short_keys_are_refused() {
    let x = [0.0_f32; 16];
    let (q, k) = (View::contiguous(&x, 1, 8), View::contiguous(&x[..8], 1, 8));
    super::attention(&Pool::new(1), &shape(1, 1, 8, 2, 2, false), q, k, q, &mut [0.0; 16]);
}
