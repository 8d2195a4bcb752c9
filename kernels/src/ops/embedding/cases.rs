//! The case table, and its run on a device.

use super::cuda;
use crate::cuda::Gpu;
use crate::cuda::check::{Noise, Report};

/// tokens, rows of each table, h, scale.
const CASES: [(usize, &[usize], usize, f32); 5] = [
    (1, &[1], 8, 1.0),
    (7, &[151], 2048, 1.0),
    (5, &[3, 1, 8], 40, 1.0),
    (2, &[16; 16], 1024, 1.0 / 16.0),
    (3, &[97, 31], 4104, 0.5),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (index, (tokens, sizes, h, scale)) in CASES.into_iter().enumerate() {
        report.case(gpu, format_args!("{tokens} tokens of {sizes:?} × {h}"), |noise| {
            let table = noise.bf16s(sizes.iter().sum::<usize>() * h, 1.0);
            // Some ids are just outside, on either side.
            let id = |size: usize, noise: &mut Noise| noise.below(size + 2) as i32 - 1;
            let ids: Vec<i32> = (0..tokens).flat_map(|_| sizes).map(|&size| id(size, noise)).collect();
            let tables = cuda::Tables::new(gpu, gpu.upload(&table)?, sizes, h)?;
            let (ids, mut y) = (gpu.upload(&ids)?, gpu.allocate(tokens * h)?);
            let addend = gpu.upload(&noise.bf16s(tokens * h, 1.0))?;
            let addend = (index % 2 == 1).then(|| addend.all());
            cuda::embedding_sum(gpu, ids.all(), tables.all(), scale, addend, &mut y.all_mut())?;
            // The same numbers, taken the other way around.
            let by_table = cuda::Ids::ByTable(ids.all());
            cuda::embedding_sum(gpu, by_table, tables.all(), scale, addend, &mut y.all_mut())?;
            let last = sizes.len() - 1;
            let ids = gpu.upload(&vec![0; tokens])?;
            cuda::embedding_sum(gpu, ids.all(), tables.some(last, 1), 1.0, None, &mut y.all_mut())
        });
    }
}
