//! The case table, and its run on a device.

use super::cuda::noise;
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// Values, scale.
const CASES: [(usize, f32); 4] = [(8, 1.0), (2040, 0.02), (2048, 0.5), (2056, 3.0)];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (count, scale) in CASES {
        report.case(gpu, format_args!("{count} values up to {scale}"), |draws| {
            noise(gpu, draws.bits(), scale, &mut gpu.allocate(count)?.all_mut())
        });
    }
}
