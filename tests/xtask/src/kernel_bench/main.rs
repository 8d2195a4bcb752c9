//! `kernel-bench`: what the kernels do on a GPU, in one binary that needs nothing beside it but the driver.
//!
//! First what the device can do at best (a copy, a product of matrices), then whether every op agrees with its reference on
//! inputs that are new in each run, then durations: ops at the released shapes beside the floor that the bytes they move set,
//! and whole steps of the engine over weights drawn on the device. `--emulate` runs the same way through all of it on the
//! emulated device, with small shapes and without durations, which would mean nothing.

mod ops;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use causerie_kernels::cuda::check::{OPS, Report};
use causerie_kernels::cuda::driver::{Driver, Plan};
use causerie_kernels::cuda::emulator::Emulator;
use causerie_kernels::cuda::{Buffer, Gpu};
use causerie_kernels::ops::gemm::cuda::{Epilogue, Way, linear};
use causerie_kernels::ops::noise::cuda::noise;
use causerie_model::omni::OmniError;
use causerie_model::omni::config::Config;
use causerie_model::omni::engine::measure::{Extent, measure};
use clap::Parser;
use half::bf16;

use crate::ops::Shapes;

const RELEASED: &str = include_str!("../../../golden/qwen3-omni-30b/config.json");
const TINY: &str = include_str!("../../../golden/qwen3-omni-tiny/config.json");
/// The seed of the weights.
const SEED: u64 = 20;
/// A frame of speech lasts so many milliseconds.
const FRAME_MS: f64 = 80.0;

#[derive(Parser)]
#[command(about = "Measures the kernels on a GPU")]
struct Args {
    /// Which of the machine's GPUs.
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Run through all of it on the emulated device.
    #[arg(long)]
    emulate: bool,
    /// Give up after so many seconds: what is not measured by then is left out, and said to be.
    #[arg(long, default_value_t = 420)]
    seconds: u64,
    /// Leave whole steps out: their weights need 71 GB.
    #[arg(long)]
    ops_only: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all ops agree with their references.
fn run(args: &Args) -> anyhow::Result<bool> {
    let ends = Instant::now() + Duration::from_secs(args.seconds);
    // New in each run, and said, so that a failure can be looked at again.
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 >> 10;
    let gpu = if args.emulate {
        Gpu::new(Emulator::of_all_ops(seed % 7)?)
    } else {
        Gpu::new(Driver::open(Plan { index: args.device, bytes: 0 })?)
    };
    gpu.keep_memory();
    let properties = gpu.properties();
    let (major, minor) = properties.capability;
    println!(
        "# {} (compute capability {major}.{minor}, {} multiprocessors)",
        properties.name, properties.multiprocessors
    );
    println!("seed {seed}; version {}", env!("CARGO_PKG_VERSION"));

    let ceilings = (!args.emulate).then(|| ceilings(&gpu)).transpose()?;
    if let Some(ceilings) = &ceilings {
        println!("\n## Ceilings\ncopy: {:.0} GB/s (read and written)", ceilings.bytes_per_second / 1e9);
        println!("gemm_tiled, 4096³ in bf16: {:.0} TFLOP/s", ceilings.operations_per_second / 1e12);
    }

    let failures = correctness(&gpu, seed);

    println!("\n## Ops");
    let shapes = if args.emulate { Shapes::small() } else { Shapes::released() };
    for line in ops::lines(&gpu, &shapes, ends)? {
        let floor = ceilings.as_ref().map(|ceilings| line.bytes / ceilings.bytes_per_second * 1e6);
        match floor {
            Some(floor) => println!(
                "{:<28} {:>4} {:>10.2} µs {:>10.2} µs floor {:>5.0} %",
                line.op,
                line.batch,
                line.microseconds,
                floor,
                100.0 * floor / line.microseconds
            ),
            None => println!("{:<28} {:>4} ran", line.op, line.batch),
        }
    }

    if !args.ops_only {
        steps(&gpu, args, ends)?;
    }
    gpu.synchronize()?;
    Ok(failures == 0)
}

/// Every op's case table on new inputs. How many cases fail.
fn correctness(gpu: &Gpu, seed: u64) -> usize {
    println!("\n## Ops against their references");
    gpu.verify_results(true);
    let (mut cases, mut failures) = (0, Vec::new());
    for op in OPS {
        let mut report = Report::new(seed);
        (op.cases)(gpu, &mut report);
        println!("{:<20} {:>5} cases {:>5} failures", op.name, report.cases, report.failures.len());
        cases += report.cases;
        failures.extend(report.failures.into_iter().map(|failure| format!("{}: {failure}", op.name)));
    }
    gpu.verify_results(false);
    failures.iter().take(40).for_each(|failure| println!("{failure}"));
    println!("{} ops, {cases} cases, {} failures", OPS.len(), failures.len());
    failures.len()
}

/// Whole steps, and what follows from them.
fn steps(gpu: &Gpu, args: &Args, ends: Instant) -> anyhow::Result<()> {
    println!("\n## Steps");
    if Instant::now() >= ends {
        println!("not measured: the time was over");
        return Ok(());
    }
    let config = Config::parse(if args.emulate { TINY } else { RELEASED }).context("the embedded configuration")?;
    let batches = if args.emulate { vec![1, 2] } else { vec![1, 8, 32, 128] };
    let (context, repeats) = if args.emulate { (20, 1) } else { (512, 20) };
    let extent = Extent { batches: batches.clone(), context, repeats, seed: SEED };
    let measured = match measure(gpu, &config, &extent) {
        Err(OmniError::Device(error)) if error.is_passing() => {
            println!("not measured: {error}");
            return Ok(());
        }
        other => other?,
    };
    for line in &measured {
        if args.emulate {
            println!("{:<20} {:>4} ran", line.step, line.batch);
        } else {
            println!("{:<20} {:>4} {:>10.3} ms", line.step, line.batch, line.milliseconds);
        }
    }
    // While a frame is heard, everybody's next one has to be made: a word, a frame and its sound.
    let of = |batch: usize| measured.iter().filter(move |m| m.batch == batch && m.step != "first packet");
    let holds = |batch: &usize| of(*batch).map(|m| m.milliseconds).sum::<f64>() <= FRAME_MS;
    if !args.emulate {
        let most = batches.iter().copied().filter(holds).max().unwrap_or(0);
        println!("sessions that hold real time: {most} of those measured ({batches:?})");
    }
    Ok(())
}

struct Ceilings {
    bytes_per_second: f64,
    operations_per_second: f64,
}

/// What the device does at best: a copy from its memory to its memory, and the portable kernel on large matrices.
fn ceilings(gpu: &Gpu) -> anyhow::Result<Ceilings> {
    const BYTES: usize = 1 << 30;
    const SIDE: usize = 4096;
    let (from, mut to) = (gpu.zeros::<u8>(BYTES)?, gpu.zeros::<u8>(BYTES)?);
    let copy = ops::time(gpu, 20, |_| Ok(gpu.copy(from.all(), &mut to.all_mut())?))?;
    drop((from, to));
    let matrix = |seed| -> anyhow::Result<Buffer<bf16>> {
        let mut matrix = gpu.allocate(SIDE * SIDE)?;
        noise(gpu, seed, 1.0, &mut matrix.all_mut())?;
        Ok(matrix)
    };
    let (x, w, mut y) = (matrix(1)?, matrix(2)?, gpu.allocate(SIDE * SIDE)?);
    let product = ops::time(gpu, 20, |_| {
        Ok(linear(gpu, x.all(), w.all(), Epilogue::default(), Way::Tiled, SIDE, &mut y.all_mut())?)
    })?;
    Ok(Ceilings {
        bytes_per_second: 2.0 * BYTES as f64 / (copy / 1e6),
        operations_per_second: 2.0 * (SIDE as f64).powi(3) / (product / 1e6),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of the way but the case tables, which have tests of their own.
    #[test]
    fn everything_that_is_measured_runs_on_the_emulated_device() {
        let gpu = Gpu::new(Emulator::of_all_ops(3).unwrap());
        gpu.keep_memory();
        let ends = Instant::now() + Duration::from_secs(600);
        let lines = ops::lines(&gpu, &Shapes::small(), ends).unwrap();
        assert!(lines.len() > 16 && lines.iter().all(|line| line.bytes > 0.0), "{} lines", lines.len());
        let args = Args { device: 0, emulate: true, seconds: 600, ops_only: false };
        steps(&gpu, &args, ends).unwrap();
        assert!(ops::lines(&gpu, &Shapes::small(), Instant::now()).unwrap().is_empty(), "the time is over");
    }

    #[test]
    fn arguments_are_understood() {
        let args = Args::parse_from(["kernel-bench", "--emulate", "--seconds", "5"]);
        assert!(args.emulate && args.seconds == 5 && args.device == 0);
    }
}
