//! The case table, and its run on a device.

use half::bf16;

use super::cuda;
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// tokens, experts, top_k.
const CASES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (3, 7, 2), (4, 8, 8), (5, 31, 4), (9, 33, 3), (17, 128, 8), (2, 128, 6), (3, 256, 32)];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (tokens, experts, top_k) in CASES {
        for normalise in [false, true] {
            report.case(gpu, format_args!("{tokens} tokens, {top_k} of {experts}, {normalise}"), |noise| {
                // bf16 has few values, so there are ties as well.
                let mut logits = noise.bf16s(tokens * experts, 6.0);
                if tokens > 2 {
                    logits[experts..2 * experts].fill(bf16::ONE);
                }
                let (logits, n) = (gpu.upload(&logits)?, tokens * top_k);
                let (mut ids, mut weights) = (gpu.allocate(n)?, gpu.allocate(n)?);
                cuda::top_k(gpu, logits.all(), experts, normalise, None, &mut ids.all_mut(), &mut weights.all_mut())?;
                // Others: neighbours from the token's number on.
                let given = |token: usize| (0..top_k).map(move |j| ((token + j) % experts) as i32);
                let given = gpu.upload(&(0..tokens).flat_map(given).collect::<Vec<_>>())?;
                let (given, mut ids, mut weights) = (Some(given.all()), ids.all_mut(), weights.all_mut());
                cuda::top_k(gpu, logits.all(), experts, normalise, given, &mut ids, &mut weights)
            });
        }
    }
    report.case(gpu, "logits that are not numbers", |_| {
        let logits = gpu.upload(&[bf16::NAN; 40])?;
        let (mut ids, mut weights) = (gpu.allocate(8)?, gpu.allocate(8)?);
        cuda::top_k(gpu, logits.all(), 40, true, None, &mut ids.all_mut(), &mut weights.all_mut())
    });
}
