//! The case table, and its run on a device.

use super::Format;
use super::cuda::{Matrix, linear};
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// tokens, n, k. The last has the width of the released thinker.
const CASES: [(usize, usize, usize); 6] =
    [(1, 1, 128), (3, 7, 256), (8, 9, 640), (9, 16, 384), (17, 33, 1152), (1, 768, 2048)];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (tokens, n, k) in CASES {
        for format in [Format::Fp8, Format::Int4] {
            report.case(gpu, format_args!("{tokens} tokens, {n}×{k} {format:?}"), |noise| {
                let matrix = Matrix::new(gpu, format, &noise.f32s(n * k, 3.0), k)?;
                let x = gpu.upload(&noise.bf16s(tokens * k, 1.0))?;
                linear(gpu, x.all(), &matrix, &mut gpu.allocate(tokens * n)?.all_mut())
            });
        }
    }
    report.case(gpu, "fp8, 2 tokens, 5×16", |noise| {
        let matrix = Matrix::new(gpu, Format::Fp8, &noise.f32s(5 * 16, 1e-3), 16)?;
        let x = gpu.upload(&noise.bf16s(2 * 16, 1.0))?;
        linear(gpu, x.all(), &matrix, &mut gpu.allocate(2 * 5)?.all_mut())
    });
}
