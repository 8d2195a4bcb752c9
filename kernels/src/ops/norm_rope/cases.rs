//! The case table, and its run on a device.

use super::cuda::{Angles, Heads, Norms, norm_rope_append};
use crate::cuda::Gpu;
use crate::cuda::check::Report;
use crate::ops::rope::{Pairing, Rope};

/// rows, heads, heads of keys, values of a head, with norms.
const CASES: [(usize, usize, usize, usize, bool); 7] = [
    (1, 1, 1, 2, true),
    (3, 4, 2, 16, true),
    (5, 4, 4, 8, false),
    (2, 3, 1, 72, true),
    (1, 32, 4, 128, true),
    (7, 16, 2, 128, true),
    (2, 16, 16, 64, false),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (rows, heads, kv_heads, head_dim, with_norms) in CASES {
        report.case(gpu, format_args!("{rows} rows of {heads}/{kv_heads} heads of {head_dim}"), |noise| {
            let rope = Rope::new(head_dim, 1e6, None, Pairing::Halves);
            let rope = rope.with_axes((0..head_dim / 2).map(|pair| (pair % 3) as u8).collect()).with_magnitude(1.1);
            let angles = Angles::new(gpu, rope)?;
            // Up to the longest context, and fractions.
            let positions: Vec<f32> = (0..3 * rows).map(|_| noise.below(2 * 65_536) as f32 / 2.0).collect();
            let (positions, mut turns) = (gpu.upload(&positions)?, gpu.allocate(rows * head_dim)?);
            angles.turns(gpu, positions.all(), &mut turns.all_mut())?;

            let heads = Heads { heads, kv_heads, head_dim };
            let places = 2 * rows + 1;
            // Every other place from the end; the last row has none.
            let slots: Vec<i32> =
                (0..rows).map(|r| if r + 1 == rows && r > 0 { -1 } else { (2 * r + 1) as i32 }).collect();
            let qkv = gpu.upload(&noise.bf16s(rows * heads.width(), 2.0))?;
            let (q_gamma, k_gamma) =
                (gpu.upload(&noise.bf16s(head_dim, 1.5))?, gpu.upload(&noise.bf16s(head_dim, 1.5))?);
            let norms = with_norms.then(|| Norms { q: q_gamma.all(), k: k_gamma.all(), eps: 1e-6 });
            let mut q = gpu.allocate(rows * heads.heads * head_dim)?;
            let zeros = noise.bf16s(places * kv_heads * head_dim, 0.0);
            let (mut k, mut v, slots) = (gpu.upload(&zeros)?, gpu.upload(&zeros)?, gpu.upload(&slots)?);
            let (mut q, mut k, mut v) = (q.all_mut(), k.all_mut(), v.all_mut());
            norm_rope_append(gpu, qkv.all(), norms, turns.all(), slots.all(), heads, &mut q, &mut k, &mut v)
        });
    }
}
