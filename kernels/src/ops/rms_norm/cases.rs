//! The case table of all versions, and its run on a device.

use half::bf16;

use super::{cuda, reference};
use crate::cuda::check::{Report, Tolerance, rounded, widened};
use crate::cuda::{DeviceError, Gpu};

/// Rows, values of a row, magnitude.
pub(super) const CASES: [(usize, usize, f32); 11] = [
    (1, 1, 1.0),
    (3, 7, 1.0),
    (2, 8, 1e-3),
    (65, 97, 30.0),
    (5, 576, 1.0),
    (1, 1536, 0.0),
    (7, 2040, 1.0),
    (2, 2048, 4.0),
    (3, 2056, 1.0),
    (1, 4608, 0.2),
    (2, 6144, 1.0),
];

/// Rows that kernels take: whole vectors.
pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (m, n, scale) in CASES.into_iter().filter(|(_, n, _)| n.is_multiple_of(8)) {
        for with_residual in [false, true] {
            report.case(format_args!("{m}×{n} residual {with_residual}"), |noise, checks| {
                let (x, gamma) = (noise.bf16s(m * n, scale), noise.bf16s(n, 2.0));
                let before = noise.bf16s(m * n, scale);
                let eps = 1e-6;
                let (sum, y) = on_gpu(gpu, &x, with_residual.then_some(&before), &gamma, eps)?;

                let mut expected = widened(&x);
                if with_residual {
                    expected.iter_mut().zip(&before).for_each(|(x, before)| *x += before.to_f32());
                    expected = rounded(&expected);
                    checks.equal("residual", &widened(&sum), &expected);
                }
                let mut normal = vec![0.0; m * n];
                reference::rms_norm(&expected, &vec![1.0; n], eps, &mut normal);
                let mut expected = rounded(&normal);
                expected.iter_mut().zip(gamma.iter().cycle()).for_each(|(v, gamma)| *v *= gamma.to_f32());
                checks.close("y", &y, &expected, Tolerance::bf16());
                Ok(())
            });
        }
    }
}

/// The residual (if any) and the result.
fn on_gpu(
    gpu: &Gpu,
    x: &[bf16],
    residual: Option<&Vec<bf16>>,
    gamma: &[bf16],
    eps: f32,
) -> Result<(Vec<bf16>, Vec<bf16>), DeviceError> {
    let mut residual = residual.map(|values| gpu.upload(values)).transpose()?;
    let (x, gamma, mut y) = (gpu.upload(x)?, gpu.upload(gamma)?, gpu.allocate(x.len())?);
    let mut sum = residual.as_mut().map(|buffer| buffer.all_mut());
    cuda::rms_norm(gpu, x.all(), sum.as_mut(), gamma.all(), eps, &mut y.all_mut())?;
    Ok((residual.map_or(Ok(Vec::new()), |buffer| buffer.read())?, y.read()?))
}
