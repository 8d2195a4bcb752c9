use half::{bf16, f16};

use super::{Element, Sequence, Shape, Visible, paged_attention, reference};
use crate::Pool;
use crate::ops::testing::noise;

fn shape(heads: usize, kv_heads: usize, head_dim: usize, block: usize, visible: Visible) -> Shape {
    Shape { heads, kv_heads, head_dim, block, scale: 1.0 / (head_dim as f32).sqrt(), visible }
}

/// Tables for `lengths` keys, from the end of a pool of blocks to its start, and the number of blocks.
fn tables(lengths: &[usize], block: usize) -> (Vec<Vec<u32>>, usize) {
    let counts: Vec<usize> = lengths.iter().map(|keys| keys.div_ceil(block)).collect();
    let total: usize = counts.iter().sum();
    let mut free = (0..total as u32).rev();
    (counts.iter().map(|&count| free.by_ref().take(count).collect()).collect(), total)
}

fn check<T: Element>(shape: &Shape, rows: &[(usize, usize)], convert: impl Fn(f32) -> T) {
    let keys: Vec<usize> = rows.iter().map(|&(keys, _)| keys).collect();
    let (tables, blocks) = tables(&keys, shape.block);
    let sequences: Vec<Sequence<'_>> =
        rows.iter().zip(&tables).map(|(&(keys, queries), table)| Sequence { table, keys, queries }).collect();
    let total: usize = rows.iter().map(|&(_, queries)| queries).sum();
    let size = blocks * shape.block * shape.kv_heads * shape.head_dim;
    let q = noise(1, total * shape.heads * shape.head_dim);
    let k: Vec<T> = noise(2, size).into_iter().map(&convert).collect();
    let v: Vec<T> = noise(3, size).into_iter().map(&convert).collect();
    let mut expected = vec![0.0; q.len()];
    reference::paged_attention(shape, &q, &k, &v, &sequences, &mut expected);
    for threads in [1, 3] {
        let mut out = vec![f32::NAN; q.len()];
        paged_attention(&Pool::new(threads), shape, &q, &k, &v, &sequences, &mut out);
        for (at, (a, b)) in out.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 3e-6, "{shape:?} {rows:?} at {at}: {a} is not {b}");
        }
    }
}

#[test]
fn it_agrees_with_the_reference() {
    let recent = |window, sinks| Visible::Recent { window, sinks };
    let cases: &[(Shape, &[(usize, usize)])] = &[
        (shape(1, 1, 5, 1, Visible::All), &[(1, 1)]),
        (shape(4, 2, 16, 4, Visible::All), &[(9, 9), (1, 1), (17, 1), (8, 3)]),
        (shape(32, 4, 128, 16, Visible::All), &[(67, 1), (33, 2)]),
        (shape(4, 4, 8, 4, recent(6, 0)), &[(20, 20), (5, 5), (31, 1)]),
        (shape(4, 2, 24, 8, recent(5, 3)), &[(20, 20), (4, 4), (100, 7)]),
        (shape(2, 1, 8, 3, recent(100, 4)), &[(10, 10)]),
        (shape(2, 1, 8, 3, Visible::All), &[(4, 0), (3, 1)]),
    ];
    for (shape, rows) in cases {
        check(shape, rows, |x| x);
        check(shape, rows, f16::from_f32);
        check(shape, rows, bf16::from_f32);
    }
}

#[test]
fn a_row_is_the_same_alone_in_a_chunk_and_in_company() {
    let shape = shape(4, 2, 16, 4, Visible::Recent { window: 11, sinks: 2 });
    let (row, width) = (4 * 16, 2 * 16);
    let (q, k, v) = (noise(1, 40 * row), noise(2, 24 * 4 * width), noise(3, 24 * 4 * width));
    let (table, other): (Vec<u32>, Vec<u32>) = ((0..10).map(|b| 23 - 2 * b).collect(), vec![0, 2, 4]);
    let pool = Pool::new(2);
    let mut whole = vec![0.0; q.len()];
    let all = Sequence { table: &table, keys: 40, queries: 40 };
    paged_attention(&pool, &shape, &q, &k, &v, &[all], &mut whole);
    for (from, until) in [(0, 1), (3, 9), (39, 40), (12, 40)] {
        let mut input = q[from * row..until * row].to_vec();
        input.extend_from_slice(&q[..5 * row]);
        let mut out = vec![0.0; input.len()];
        let part = Sequence { table: &table, keys: until, queries: until - from };
        let company = Sequence { table: &other, keys: 12, queries: 5 };
        paged_attention(&pool, &shape, &input, &k, &v, &[part, company], &mut out);
        assert!(out[..(until - from) * row] == whole[from * row..until * row], "{from}..{until}");
    }
}

#[test]
fn blocks_out_of_sight_are_not_touched() {
    let shape = shape(1, 1, 8, 2, Visible::Recent { window: 3, sinks: 1 });
    let x = noise(4, 6 * 2 * 8);
    let (here, gone) = ([5, 1, 2, 3, 4, 0], [5, u32::MAX, u32::MAX, u32::MAX, 4, 0]);
    let run = |table: &[u32]| {
        let mut out = vec![0.0; 8];
        let sequence = Sequence { table, keys: 11, queries: 1 };
        paged_attention(&Pool::new(1), &shape, &x[..8], &x, &x, &[sequence], &mut out);
        out
    };
    assert_eq!(run(&here), run(&gone));
}

#[test]
#[should_panic(expected = "block 9 of 2")]
fn a_block_outside_of_the_pool_is_refused() {
    let x = [0.0; 16];
    let sequence = Sequence { table: &[9], keys: 1, queries: 1 };
    paged_attention(&Pool::new(1), &shape(1, 1, 8, 1, Visible::All), &x[..8], &x, &x, &[sequence], &mut [0.0; 8]);
}
