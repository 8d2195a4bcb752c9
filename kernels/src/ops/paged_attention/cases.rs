//! The case table of the kernels, and its run on a device.

use super::cuda::{BLOCK, Batch, Rows, Shape, Shares, block_attention, paged_attention, rows_attention};
use super::{Sequence, Visible};
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// Heads, heads of keys, values of a head.
const HEADS: [(usize, usize, usize); 5] = [(1, 1, 8), (4, 2, 16), (4, 4, 72), (16, 2, 128), (8, 8, 64)];

/// Keys and queries of each sequence; what is seen.
const PAGED: [(&[(usize, usize)], Visible); 7] = [
    (&[(1, 1)], Visible::All),
    (&[(200, 1), (7, 1), (33, 1)], Visible::All),
    (&[(17, 17)], Visible::All),
    (&[(70, 35), (5, 2)], Visible::All),
    (&[(150, 1)], Visible::Recent { window: 72, sinks: 0 }),
    (&[(90, 40)], Visible::Recent { window: 6, sinks: 0 }),
    (&[(120, 3)], Visible::Recent { window: 20, sinks: 4 }),
];

const BLOCKS: [&[usize]; 4] = [&[1], &[26, 13], &[104], &[3, 65, 1]];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (heads, kv_heads, head_dim) in HEADS {
        let shape = |visible| Shape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), visible };
        for (sequences, visible) in PAGED {
            let name = format!("{heads}/{kv_heads} heads of {head_dim}, {sequences:?}, {visible:?}");
            report.case(gpu, name, |noise| {
                // Pages in any order, some of nobody's.
                let pages: usize = sequences.iter().map(|s| s.0.div_ceil(BLOCK)).sum();
                let mut free: Vec<u32> = (0..pages as u32 + 3).collect();
                let mut draw = |count: usize| -> Vec<u32> {
                    (0..count).map(|_| free.swap_remove(noise.below(free.len()))).collect()
                };
                let tables: Vec<Vec<u32>> = sequences.iter().map(|s| draw(s.0.div_ceil(BLOCK))).collect();
                let known: Vec<Sequence<'_>> = sequences
                    .iter()
                    .zip(&tables)
                    .map(|(&(keys, queries), table)| Sequence { table, keys, queries })
                    .collect();
                let mut batch = Batch::paged(gpu, &known)?;
                let size = batch.rows() * heads * head_dim;
                let cache = (pages + 3) * BLOCK * kv_heads * head_dim;
                let (q, k) = (gpu.upload(&noise.bf16s(size, 3.0))?, gpu.upload(&noise.bf16s(cache, 1.0))?);
                let (v, mut out) = (gpu.upload(&noise.bf16s(cache, 1.0))?, gpu.allocate(size)?);
                // Room for three shares.
                let mut shares = gpu.allocate(3 * batch.rows() * heads * (head_dim + 2))?;
                let (mut shares, mut out) = (shares.all_mut(), out.all_mut());
                let shape = shape(visible);
                paged_attention(gpu, &shape, q.all(), k.all(), v.all(), &batch, &mut shares, &mut out)?;
                // Some shares have no keys then.
                batch.set(gpu, &known, Shares::Fixed(3))?;
                paged_attention(gpu, &shape, q.all(), k.all(), v.all(), &batch, &mut shares, &mut out)
            });
        }
        for lengths in BLOCKS {
            report.case(gpu, format_args!("{heads}/{kv_heads} heads of {head_dim}, blocks of {lengths:?}"), |noise| {
                let batch = Batch::blocks(gpu, lengths)?;
                let qkv = gpu.upload(&noise.bf16s(batch.rows() * (heads + 2 * kv_heads) * head_dim, 2.0))?;
                let mut shares = gpu.allocate(2 * batch.rows() * heads * (head_dim + 2))?;
                let mut out = gpu.allocate(batch.rows() * heads * head_dim)?;
                let (mut shares, mut out) = (shares.all_mut(), out.all_mut());
                block_attention(gpu, &shape(Visible::All), qkv.all(), &batch, &mut shares, &mut out)?;
                // The same numbers as rows of their own.
                let (wide, narrow) = (batch.rows() * heads * head_dim, batch.rows() * kv_heads * head_dim);
                let keys = Rows {
                    k: qkv.range(wide..wide + narrow),
                    v: qkv.range(wide + narrow..),
                    row_stride: kv_heads * head_dim,
                };
                rows_attention(gpu, &shape(Visible::All), qkv.range(..wide), keys, &batch, &mut shares, &mut out)
            });
        }
    }
}
