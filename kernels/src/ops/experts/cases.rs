//! The case table, and its run on a device.

use super::{cuda, reference};
use crate::cuda::Gpu;
use crate::cuda::check::{Report, Tolerance, widened};

/// tokens, top_k, experts, h. All ids are below half of the experts in every other case, which leaves experts empty.
const CASES: [(usize, usize, usize, usize); 7] = [
    (1, 1, 1, 8),
    (1, 8, 128, 2048),
    (5, 2, 7, 24),
    (33, 3, 31, 40),
    (40, 8, 33, 16),
    (129, 2, 8, 64),
    (3, 6, 128, 1024),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (index, (tokens, top_k, experts, h)) in CASES.into_iter().enumerate() {
        report.case(format_args!("{tokens} tokens, {top_k} of {experts}, {h}"), |noise, checks| {
            let used = if index % 2 == 1 { experts.div_ceil(2) } else { experts };
            let ids: Vec<i32> = (0..tokens * top_k).map(|_| noise.below(used) as i32).collect();
            let on_ids = gpu.upload(&ids)?;
            let mut permutation = cuda::Permutation::new(gpu, ids.len() + 5, experts)?;
            permutation.sort(gpu, on_ids.all(), top_k)?;
            let (offsets, rows, places) = reference::permutation(&ids, experts, top_k);
            let [got_offsets, got_rows, got_places] = permutation.read()?;
            checks.equal("offsets", &got_offsets, &offsets);
            checks.equal("rows", &got_rows, &rows);
            checks.equal("places", &got_places, &places);

            let x = noise.bf16s(ids.len() * h, 1.0);
            let weights = noise.f32s(ids.len(), 1.0);
            let (shared, gates) = (noise.bf16s(tokens * h, 1.0), noise.bf16s(2 * tokens, 3.0));
            let residual = noise.bf16s(tokens * h, 1.0);
            let (on_x, on_weights) = (gpu.upload(&x)?, gpu.upload(&weights)?);
            let (on_shared, on_gates, on_residual) =
                (gpu.upload(&shared)?, gpu.upload(&gates)?, gpu.upload(&residual)?);
            let first: Vec<f32> = widened(&gates).chunks(2).map(|gate| gate[0]).collect();
            let (wide_x, wide_shared, wide_residual) = (widened(&x), widened(&shared), widened(&residual));
            for (with_shared, with_residual) in [(false, false), (true, false), (true, true)] {
                let on_addends = cuda::Addends {
                    shared: with_shared.then(|| (on_shared.all(), on_gates.all())),
                    residual: with_residual.then(|| on_residual.all()),
                };
                let addends = reference::Addends {
                    shared: with_shared.then_some((&wide_shared[..], &first[..])),
                    residual: with_residual.then_some(&wide_residual[..]),
                };
                let mut y = gpu.allocate(tokens * h)?;
                cuda::combine(gpu, on_x.all(), &permutation, on_weights.all(), on_addends, h, &mut y.all_mut())?;
                let expected = reference::combine(&wide_x, &places, &weights, addends, top_k, h);
                checks.close("y", &y.read()?, &expected, Tolerance::bf16().summing(top_k + 2, 1.0));
            }
            Ok(())
        });
    }
}
