//! The case table, and its run on a device.

use super::{cuda, reference};
use crate::cuda::Gpu;
use crate::cuda::check::{Report, Tolerance, widened};

/// tokens, rows of each table, h, scale.
const CASES: [(usize, &[usize], usize, f32); 5] = [
    (1, &[1], 8, 1.0),
    (7, &[151], 2048, 1.0),
    (5, &[3, 1, 8], 40, 1.0),
    (2, &[16; 16], 1024, 1.0 / 16.0),
    (3, &[97, 31], 4104, 0.5),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (tokens, sizes, h, scale) in CASES {
        report.case(format_args!("{tokens} tokens of {sizes:?} × {h}"), |noise, checks| {
            let table = noise.bf16s(sizes.iter().sum::<usize>() * h, 1.0);
            // Some ids are just outside, on either side.
            let id = |size: usize, noise: &mut crate::cuda::check::Noise| noise.below(size + 2) as i32 - 1;
            let ids: Vec<i32> = (0..tokens).flat_map(|_| sizes).map(|&size| id(size, noise)).collect();
            let tables = cuda::Tables::new(gpu, gpu.upload(&table)?, sizes, h)?;
            let (on_ids, mut y) = (gpu.upload(&ids)?, gpu.allocate(tokens * h)?);
            cuda::embedding_sum(gpu, on_ids.all(), &tables, scale, &mut y.all_mut())?;
            let expected = reference::embedding_sum(&ids, &widened(&table), sizes, h, scale);
            checks.close("y", &y.read()?, &expected, Tolerance::bf16().summing(sizes.len(), 1.0));
            Ok(())
        });
    }
}
