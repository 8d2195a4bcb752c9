//! The case table, and its run on a device.

use super::cuda;
use super::reference::{self, Groups};
use crate::cuda::Gpu;
use crate::cuda::check::{Report, Tolerance, widened};

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
const GROUPED: [(&[usize], usize, usize); 8] = [
    (&[1], 2, 8),
    (&[0, 1, 0, 2, 0], 18, 40),
    (&[8, 0, 9, 1], 34, 72),
    (&[40, 0, 3, 33], 32, 64),
    (&[64, 65, 0, 63, 1], 66, 136),
    (&[200, 0, 0], 130, 72),
    (&[0, 1, 2], 768, 2048),
    (&[1, 0, 1], 2048, 768),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (tokens, n, k) in DENSE {
        report.case(format_args!("{tokens} tokens, {n}×{k}"), |noise, checks| {
            let (x, w, b) = (noise.bf16s(tokens * k, 1.0), noise.bf16s(n * k, 1.0), noise.bf16s(n, 2.0));
            let on_gpu = (gpu.upload(&x)?, gpu.upload(&w)?, gpu.upload(&b)?);
            let rows: Vec<usize> = (0..tokens).collect();
            let groups = Groups { offsets: &[0, tokens], rows: &rows };
            let expected = reference::gemm(&widened(&x), &widened(&w), Some(&widened(&b)), groups, n, k);
            let mut y = gpu.allocate(tokens * n)?;
            cuda::linear(gpu, on_gpu.0.all(), on_gpu.1.all(), Some(on_gpu.2.all()), k, &mut y.all_mut())?;
            checks.close("linear", &y.read()?, &expected, Tolerance::bf16().summing(k, 1.0));

            let expected = reference::gemm(&widened(&x), &widened(&w), None, groups, n, k);
            let mut y = gpu.allocate(tokens * n)?;
            cuda::logits(gpu, on_gpu.0.all(), on_gpu.1.all(), k, &mut y.all_mut())?;
            checks.close("logits", &y.read()?, &expected, Tolerance::f32().summing(k, 1.0));

            if n.is_multiple_of(4) {
                let n = n / 2;
                let mut y = gpu.allocate(tokens * n)?;
                cuda::gated(gpu, on_gpu.0.all(), on_gpu.1.all(), k, &mut y.all_mut())?;
                let expected = reference::gated(&widened(&x), &widened(&w), groups, n, k);
                // An error of one factor is multiplied by the other, which is as large as sqrt(k / 9) or a few times that.
                checks.close("gated", &y.read()?, &expected, Tolerance::bf16().summing(k, 4.0 * (k as f32).sqrt()));
            }
            Ok(())
        });
    }
    for (counts, n, k) in GROUPED {
        report.case(format_args!("groups of {counts:?}, {n}×{k}"), |noise, checks| {
            let tokens: usize = counts.iter().sum();
            let mut offsets = vec![0];
            counts.iter().for_each(|count| offsets.push(offsets[offsets.len() - 1] + count));
            // Fewer rows than tokens: experts share them.
            let x_rows = tokens.div_ceil(2);
            let rows: Vec<usize> = (0..tokens).map(|_| noise.below(x_rows)).collect();
            let (x, w) = (noise.bf16s(x_rows * k, 1.0), noise.bf16s(counts.len() * 2 * n * k, 1.0));
            let ints = |values: &[usize]| values.iter().map(|&v| v as i32).collect::<Vec<_>>();
            let (on_offsets, on_rows) = (gpu.upload(&ints(&offsets))?, gpu.upload(&ints(&rows))?);
            let (on_x, on_w) = (gpu.upload(&x)?, gpu.upload(&w)?);
            let groups = Groups { offsets: &offsets, rows: &rows };
            let on_groups = cuda::Groups { offsets: on_offsets.all(), rows: Some(on_rows.all()) };

            let half = counts.len() * n * k;
            let mut y = gpu.allocate(tokens * n)?;
            cuda::grouped_linear(gpu, on_x.all(), on_w.all().range(..half), on_groups, k, &mut y.all_mut())?;
            let expected = reference::gemm(&widened(&x), &widened(&w[..half]), None, groups, n, k);
            checks.close("linear", &y.read()?, &expected, Tolerance::bf16().summing(k, 1.0));

            let mut y = gpu.allocate(tokens * n)?;
            cuda::grouped_gated(gpu, on_x.all(), on_w.all(), on_groups, k, &mut y.all_mut())?;
            let expected = reference::gated(&widened(&x), &widened(&w), groups, n, k);
            checks.close("gated", &y.read()?, &expected, Tolerance::bf16().summing(k, 4.0 * (k as f32).sqrt()));
            Ok(())
        });
    }
}
