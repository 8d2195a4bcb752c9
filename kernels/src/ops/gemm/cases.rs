//! The case table, and its run on a device.

use super::cuda::{self, Activation, Epilogue, Way};
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// tokens, n, k.
const DENSE: [(usize, usize, usize); 12] = [
    (1, 2, 8),
    (1, 2048, 2048),
    (3, 18, 40),
    (8, 34, 256),
    (9, 16, 264),
    (31, 62, 96),
    (32, 66, 512),
    (33, 64, 64),
    (63, 70, 136),
    (64, 64, 192),
    (65, 130, 200),
    (130, 66, 72),
];

/// Tokens of each group, n, k. The last three have the widths of released experts: gates, and the way back.
const GROUPED: [(&[usize], usize, usize); 10] = [
    (&[1], 2, 8),
    (&[0, 1, 0, 2, 0], 18, 40),
    (&[8, 0, 9, 1], 34, 72),
    (&[40, 0, 3, 33], 32, 64),
    (&[64, 65, 0, 63, 1], 66, 136),
    (&[200, 0, 0], 130, 72),
    (&[0, 1, 2], 768, 2048),
    (&[1, 0, 1], 2048, 768),
    // Of the talker's.
    (&[0, 2], 384, 1024),
    (&[1, 1], 1024, 384),
];

/// tokens, n, k of matrices of the released networks, and whether they have gates: queries, keys and values, and the output of
/// the thinker's attention; its router; the code predictor's gates; the talker's head; a layer of the vision tower.
const RELEASED: [(usize, usize, usize, bool); 6] = [
    (1, 5120, 2048, false),
    (2, 2048, 4096, false),
    (3, 128, 2048, false),
    (1, 6144, 1024, true),
    (2, 3072, 1024, false),
    (1, 1152, 4304, false),
];

/// The same for tiles, which take as long for a few tokens as for many.
const RELEASED_TILED: [(usize, usize, usize, bool); 2] = [(2, 128, 2048, true), (3, 512, 1024, false)];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    let streamed = RELEASED.map(|shape| (shape, Way::Streamed));
    for ((tokens, n, k, with_gates), way) in streamed.into_iter().chain(RELEASED_TILED.map(|shape| (shape, Way::Tiled)))
    {
        report.case(gpu, format_args!("released: {tokens} tokens, {n}×{k}, {way:?}"), |noise| {
            let (x, w) = (gpu.upload(&noise.bf16s(tokens * k, 1.0))?, gpu.upload(&noise.bf16s(n * k, 1.0))?);
            let mut y = gpu.allocate(tokens * n)?;
            if with_gates {
                return cuda::gated(gpu, x.all(), w.all(), way, k, &mut y.range_mut(..tokens * n / 2));
            }
            cuda::linear(gpu, x.all(), w.all(), Epilogue::default(), way, k, &mut y.all_mut())
        });
    }
    for (index, (tokens, n, k)) in DENSE.into_iter().enumerate() {
        report.case(gpu, format_args!("{tokens} tokens, {n}×{k}"), |noise| {
            let (x, w) = (gpu.upload(&noise.bf16s(tokens * k, 1.0))?, gpu.upload(&noise.bf16s(n * k, 1.0))?);
            let (bias, residual) = (gpu.upload(&noise.bf16s(n, 2.0))?, gpu.upload(&noise.bf16s(tokens * n, 9.0))?);
            let activations = [Activation::None, Activation::Silu, Activation::Gelu, Activation::GeluTanh];
            let activation = activations[index % activations.len()];
            let full = Epilogue { bias: Some(bias.all()), activation, residual: Some(residual.all()) };
            let mut y = gpu.allocate(tokens * n)?;
            cuda::linear(gpu, x.all(), w.all(), full, Way::ByTokens, k, &mut y.all_mut())?;
            cuda::linear(gpu, x.all(), w.all(), Epilogue::default(), Way::ByTokens, k, &mut y.all_mut())?;
            let way = [Way::ByTokens, Way::Tiled, Way::Streamed][index % 3];
            cuda::logits(gpu, x.all(), w.all(), way, k, &mut gpu.allocate(tokens * n)?.all_mut())?;
            if n.is_multiple_of(4) {
                cuda::gated(gpu, x.all(), w.all(), way, k, &mut gpu.allocate(tokens * n / 2)?.all_mut())?;
            }
            Ok(())
        });
    }
    for (index, (counts, n, k)) in GROUPED.into_iter().enumerate() {
        report.case(gpu, format_args!("groups of {counts:?}, {n}×{k}"), |noise| {
            let tokens: usize = counts.iter().sum();
            let mut offsets = vec![0];
            counts.iter().for_each(|&count| offsets.push(offsets[offsets.len() - 1] + count as i32));
            // Fewer rows than tokens: experts share them.
            let x_rows = tokens.div_ceil(2);
            let rows: Vec<i32> = (0..tokens).map(|_| noise.below(x_rows) as i32).collect();
            let (offsets, rows) = (gpu.upload(&offsets)?, gpu.upload(&rows)?);
            let x = gpu.upload(&noise.bf16s(x_rows * k, 1.0))?;
            let w = gpu.upload(&noise.bf16s(counts.len() * 2 * n * k, 1.0))?;
            let groups = cuda::Groups { offsets: offsets.all(), rows: Some(rows.all()) };
            let mut y = gpu.allocate(tokens * n)?;
            let half = w.all().range(..counts.len() * n * k);
            let way = [Way::ByTokens, Way::Tiled, Way::Streamed][index % 3];
            cuda::grouped_linear(gpu, x.all(), half, groups, Way::ByTokens, k, &mut y.all_mut())?;
            cuda::grouped_gated(gpu, x.all(), w.all(), groups, way, k, &mut y.all_mut())
        });
    }
}
