//! Every op's case table on a device, compared with the op's reference.
//!
//! The comparison itself is beside each op's dispatch ([`Gpu::verify`]), so that it also runs inside of whole networks, on
//! whatever comes by there; a case only makes inputs. The tests of this crate run the tables on the emulator, `cargo xtask
//! kernels check` with several orders of threads and under sanitizers.

use std::collections::BTreeMap;
use std::fmt::Display;

use half::bf16;

use super::{DeviceError, Gpu};
use crate::ops;

/// An op that has kernels.
#[derive(Clone, Copy)]
pub struct Op {
    /// Its name, which is that of its folder.
    pub name: &'static str,
    /// Runs all of its cases.
    pub cases: fn(&Gpu, &mut Report),
}

/// The list of ops, and a test of each.
macro_rules! ops {
    ($($name:ident)*) => {
        /// The ops with kernels.
        pub const OPS: &[Op] = &[$(Op { name: stringify!($name), cases: ops::$name::cases::on_device }),*];

        #[cfg(test)]
        mod on_the_emulator {
            $(#[test]
            fn $name() {
                super::tests::agrees(super::ops::$name::cases::on_device);
            })*
        }
    };
}

ops! {
    conv1d
    conv2d
    depthwise_conv1d
    embedding
    experts
    gemm
    layer_norm
    log_mel
    noise
    norm_rope
    paged_attention
    quantised
    rms_norm
    router
    sample
    scatter
    snake_beta
}

/// What came of an op's cases.
#[derive(Debug, Default)]
pub struct Report {
    seed: u64,
    /// Cases that were run.
    pub cases: usize,
    /// What went wrong, one line each.
    pub failures: Vec<String>,
}

impl Report {
    /// Inputs are drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Runs one case: inputs and a call. An error of the device is a failure of the case, and so is one that compares
    /// nothing.
    pub(crate) fn case(
        &mut self,
        gpu: &Gpu,
        name: impl Display,
        run: impl FnOnce(&mut Noise) -> Result<(), DeviceError>,
    ) {
        self.cases += 1;
        let mut noise = Noise::new(self.seed.wrapping_mul(1_000_003).wrapping_add(self.cases as u64));
        let result = run(&mut noise);
        let mut found = gpu.findings();
        if let Err(error) = result {
            found.failures.push(error.to_string());
        } else if found.comparisons.is_empty() {
            found.failures.push("nothing was compared".into());
        }
        self.failures.extend(found.failures.iter().map(|failure| format!("{name}: {failure}")));
    }
}

/// What comparing results with references has found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Comparisons of each op.
    pub comparisons: BTreeMap<&'static str, u64>,
    /// What differed, one line each: the first [`MAX_FAILURES`].
    pub failures: Vec<String>,
}

/// Failures that are worth reading.
const MAX_FAILURES: usize = 50;

impl Findings {
    pub(super) fn add(&mut self, op: &'static str, checks: Checks) {
        *self.comparisons.entry(op).or_default() += 1;
        let room = MAX_FAILURES.saturating_sub(self.failures.len());
        self.failures.extend(checks.failures.iter().take(room).map(|failure| format!("{op}: {failure}")));
    }
}

/// How far a result may be from what is expected: `relative · |expected| + absolute`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    relative: f32,
    absolute: f32,
}

impl Tolerance {
    /// Results rounded to bf16 (8 bits): one unit in the last place, because a sum in another order may fall on the
    /// other side of a tie.
    pub fn bf16() -> Self {
        Self { relative: 1.0 / 128.0, absolute: 0.0 }
    }

    /// Results kept in f32, after a few operations.
    pub fn f32() -> Self {
        Self { relative: 8.0 * f32::EPSILON, absolute: 0.0 }
    }

    /// Results that sum `n` terms of this magnitude in f32, in any order: errors of roundings add up like a random walk,
    /// of which this is four times the expected length.
    #[must_use]
    pub fn summing(self, n: usize, magnitude: f32) -> Self {
        // Every addition rounds what has been summed so far, which grows with the root of its length: over a whole sum
        // that is a standard deviation of 0.12 n for factors that are spread evenly, and four of them are allowed. Short
        // sums are not that many roundings.
        let steps = (4.0 * (n as f32).sqrt()).max(0.5 * n as f32);
        Self { absolute: self.absolute + magnitude * steps * f32::EPSILON, ..self }
    }

    /// And this much more, whatever the value.
    #[must_use]
    pub fn plus(self, absolute: f32) -> Self {
        Self { absolute: self.absolute + absolute, ..self }
    }
}

/// The comparisons of one case.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    failures: Vec<String>,
}

impl Checks {
    /// Compares values; a failure names the worst.
    pub(crate) fn close<T: Into<f32> + Copy>(&mut self, what: &str, got: &[T], expected: &[f32], tolerance: Tolerance) {
        self.within(what, got, expected, |at| tolerance.relative * expected[at].abs() + tolerance.absolute);
    }

    /// Compares values, each with a tolerance of its own; a failure names the worst.
    pub(crate) fn within<T: Into<f32> + Copy>(
        &mut self,
        what: &str,
        got: &[T],
        expected: &[f32],
        allowed: impl Fn(usize) -> f32,
    ) {
        if got.len() != expected.len() {
            return self.failures.push(format!("{what}: {} values, not {}", got.len(), expected.len()));
        }
        // Not a number is as far off as can be.
        let excess = |at: usize| {
            let got: f32 = got[at].into();
            if got.is_finite() { (got - expected[at]).abs() - allowed(at) } else { f32::INFINITY }
        };
        let worst = (0..got.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b)));
        if let Some(at) = worst.filter(|&at| excess(at) > 0.0) {
            let (got, expected, allowed): (f32, _, _) = (got[at].into(), expected[at], allowed(at));
            let error = (got - expected).abs();
            self.failures.push(format!("{what}[{at}] is {got}, not {expected}: off by {error:e}, allowed {allowed:e}"));
        }
    }

    /// Compares values that have to be the same.
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: &[T], expected: &[T]) {
        if got.len() != expected.len() {
            return self.failures.push(format!("{what}: {} values, not {}", got.len(), expected.len()));
        }
        if let Some(at) = (0..got.len()).find(|&at| got[at] != expected[at]) {
            let wrong = (at..got.len()).filter(|&at| got[at] != expected[at]).count();
            let (got, expected) = (&got[at], &expected[at]);
            self.failures.push(format!("{what}[{at}] is {got:?}, not {expected:?}; {wrong} differ"));
        }
    }
}

/// Seeded inputs.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Splitmix64.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Evenly between -`scale` and `scale`.
    pub(crate) fn f32s(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| ((self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale).collect()
    }

    /// As [`Noise::f32s`], rounded.
    pub(crate) fn bf16s(&mut self, n: usize, scale: f32) -> Vec<bf16> {
        self.f32s(n, scale).into_iter().map(bf16::from_f32).collect()
    }
}

/// The largest magnitude.
pub(crate) fn greatest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, v| most.max(v.abs()))
}

/// To the nearest bf16 and back: what a kernel does where it keeps an intermediate result in bf16.
pub(crate) fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::emulator::Emulator;

    /// Threads in some random order; `cargo xtask kernels check` tries others.
    pub(super) fn agrees(cases: fn(&Gpu, &mut Report)) {
        let gpu = Gpu::verifying(Emulator::of_all_ops(1).unwrap());
        let mut report = Report::new(1);
        cases(&gpu, &mut report);
        assert!(report.cases > 0);
        assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
    }

    #[test]
    fn a_device_that_verifies_reports_what_differs() {
        let gpu = Gpu::verifying(Emulator::of_all_ops(0).unwrap());
        let differs = |gpu: &Gpu| {
            gpu.verify("op", |checks| {
                checks.equal("y", &[1], &[2]);
                Ok(())
            })
        };
        differs(&gpu).unwrap();
        let found = gpu.findings();
        assert_eq!((found.comparisons["op"], found.failures), (1, vec!["op: y[0] is 1, not 2; 1 differ".to_owned()]));
        let mut report = Report::new(0);
        report.case(&gpu, "differs", |_| differs(&gpu));
        report.case(&gpu, "compares nothing", |_| Ok(()));
        assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
    }

    #[test]
    fn a_comparison_names_the_worst_value() {
        let mut checks = Checks::default();
        checks.close("y", &[1.0, 2.1, f32::NAN], &[1.0, 2.0, 3.0], Tolerance::f32());
        checks.close("y", &[1.0, 2.1], &[1.0, 2.0], Tolerance::f32());
        checks.close("y", &[1.0, 2.0], &[1.0, 2.0], Tolerance::f32());
        checks.equal("ids", &[1, 2, 4], &[1, 3, 3]);
        assert!(checks.failures[0].starts_with("y[2] is NaN, not 3"), "{checks:?}");
        assert!(checks.failures[1].starts_with("y[1] is 2.1, not 2"), "{checks:?}");
        assert_eq!(checks.failures[2], "ids[1] is 2, not 3; 2 differ");
        assert_eq!(checks.failures.len(), 3);
    }
}
