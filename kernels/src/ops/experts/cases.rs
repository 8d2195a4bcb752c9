//! The case table, and its run on a device.

use super::cuda;
use crate::cuda::Gpu;
use crate::cuda::check::Report;

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
        report.case(gpu, format_args!("{tokens} tokens, {top_k} of {experts}, {h}"), |noise| {
            let used = if index % 2 == 1 { experts.div_ceil(2) } else { experts };
            let slots = tokens * top_k;
            let ids = gpu.upload(&(0..slots).map(|_| noise.below(used) as i32).collect::<Vec<_>>())?;
            // More room than slots.
            let mut permutation = cuda::Permutation::new(gpu, slots + 5, experts)?;
            permutation.sort(gpu, ids.all(), top_k)?;

            let (x, weights) = (gpu.upload(&noise.bf16s(slots * h, 1.0))?, gpu.upload(&noise.f32s(slots, 1.0))?);
            let shared = gpu.upload(&noise.bf16s(tokens * h, 1.0))?;
            let gates = gpu.upload(&noise.bf16s(2 * tokens, 3.0))?;
            let residual = gpu.upload(&noise.bf16s(tokens * h, 1.0))?;
            for (with_shared, with_residual) in [(false, false), (true, false), (true, true)] {
                let addends = cuda::Addends {
                    shared: with_shared.then(|| (shared.all(), gates.all())),
                    residual: with_residual.then(|| residual.all()),
                };
                let mut y = gpu.allocate(tokens * h)?;
                cuda::combine(gpu, x.all(), &permutation, weights.all(), addends, h, &mut y.all_mut())?;
            }
            Ok(())
        });
    }
}
