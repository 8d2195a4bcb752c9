//! Plain Rust, a row at a time.

use std::cell::RefCell;

use super::{Element, Part, Whole};
use crate::ops::softmax;

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

const LANES: usize = 8;

pub(super) fn part<T: Element>(whole: &Whole<'_, T>, part: Part) {
    SCORES.with_borrow_mut(|scores| {
        for r in 0..part.count {
            row(whole, part, r, scores);
        }
    });
}

fn row<T: Element>(whole: &Whole<'_, T>, part: Part, r: usize, scores: &mut Vec<f32>) {
    let (d, keys) = (whole.shape.head_dim, whole.visible(part, r));
    let (q_at, out_at) = whole.offsets(part, r);
    let q = &whole.q.data[q_at..q_at + d];
    let head = |view: &super::View<'_, T>, j: usize| j * view.row_stride + part.kv_head * view.head_stride;

    scores.clear();
    scores.extend((0..keys).map(|j| whole.shape.scale * dot(q, &whole.k.data[head(&whole.k, j)..][..d])));
    softmax::row(scores);
    // SAFETY: the caller checked that `out` holds every row, and this row has one writer.
    let out = unsafe { std::slice::from_raw_parts_mut(whole.out.get().add(out_at), d) };
    out.fill(0.0);
    for (j, &p) in scores.iter().enumerate() {
        let v = &whole.v.data[head(&whole.v, j)..][..d];
        for (out, v) in out.iter_mut().zip(v) {
            *out += p * v.widen();
        }
    }
}

fn dot<T: Element>(q: &[f32], k: &[T]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (q, k) in q.chunks(LANES).zip(k.chunks(LANES)) {
        for ((sum, q), k) in sums.iter_mut().zip(q).zip(k) {
            *sum += q * k.widen();
        }
    }
    sums.iter().sum()
}
