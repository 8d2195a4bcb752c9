//! `cargo xtask kernels check`: every kernel compiled for GPUs, with a look at its registers, and run by the emulator.
//!
//! The emulator runs every op's case table with several orders of threads, and once more under the address and
//! undefined-behaviour sanitizers, in a process of its own with their library preloaded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use causerie_kernels::cuda::check::{OPS, Report};
use causerie_kernels::cuda::emulator::{Emulator, Sanitizer, planted, sources};
use causerie_kernels::cuda::{DeviceError, Gpu};
use clap::{Args, Subcommand};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// What kernels are compiled for: the oldest that has all the instructions, and the one that we tune for.
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90a"];
/// Most registers of a thread, so that two blocks of 256 threads fit a multiprocessor.
const REGISTERS: u32 = 128;
/// Kernels that may have more, by how their names begin: blocks of 128 threads or less whose sums fill the registers.
const EXCEPTIONS: [(&str, u32); 2] = [("attention_", 232), ("gemm_tiled_swiglu", 176)];

/// What to do with the kernels.
#[derive(Args)]
pub(crate) struct KernelsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Compile every kernel, and run every op's cases on the emulator.
    Check {
        /// Orders of threads to try.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
        /// Leave the sanitizers out.
        #[arg(long)]
        unsanitized: bool,
        /// Only ops whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// One run of the cases in this process.
    #[command(hide = true)]
    Cases { seed: u64, filter: String },
    /// A mistake that a sanitizer has to report.
    #[command(hide = true)]
    Planted { kernel: String },
}

/// Does it.
pub(crate) fn kernels(args: &KernelsArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Check { seeds, unsanitized, filter } => check(*seeds, !unsanitized, filter),
        What::Cases { seed, filter } => {
            let (cases, failures) = cases(*seed, filter)?;
            failures.iter().for_each(|failure| println!("{failure}"));
            println!("{cases} cases, {} failures", failures.len());
            ensure!(failures.is_empty(), "{} failures", failures.len());
            Ok(())
        }
        What::Planted { kernel } => Ok(planted(kernel)?),
    }
}

fn check(seeds: u64, sanitized: bool, filter: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut failures = compile(filter)?;
    let mut cases_run = 0;
    for seed in 0..seeds {
        let (cases, failed) = cases(seed, filter)?;
        cases_run += cases;
        failures.extend(failed.into_iter().map(|failure| format!("seed {seed}: {failure}")));
    }
    if sanitized {
        for (kernel, report) in planted::REPORTS {
            let output = sanitized_process(&["planted", kernel])?;
            if output.status.success() || !String::from_utf8_lossy(&output.stderr).contains(report) {
                failures.push(format!("the sanitizers do not report {report:?} of {kernel}"));
            }
        }
        let output = sanitized_process(&["cases", "1", filter])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let counted = text.lines().last().and_then(|line| line.split(' ').next()).and_then(|word| word.parse().ok());
        cases_run += counted.unwrap_or(0);
        if !output.status.success() {
            failures.push(format!("with sanitizers: {text}{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    for failure in &failures {
        println!("{failure}");
    }
    let ops = OPS.iter().filter(|op| op.name.contains(filter)).count();
    println!(
        "kernels: {ops} ops, {cases_run} cases, {} failures ({:.0} s)",
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    ensure!(failures.is_empty(), "kernels do not pass");
    Ok(())
}

/// Runs the cases with one order of threads. Their number, and what failed.
fn cases(seed: u64, filter: &str) -> Result<(usize, Vec<String>), DeviceError> {
    let emulator = Emulator::of_all_ops(seed)?;
    let kernels: BTreeSet<String> = emulator.kernels().iter().cloned().collect();
    let gpu = Gpu::verifying(emulator);
    let (mut count, mut failures) = (0, Vec::new());
    for op in OPS.iter().filter(|op| op.name.contains(filter)) {
        // Other inputs for other orders of threads.
        let mut report = Report::new(seed);
        (op.cases)(&gpu, &mut report);
        count += report.cases;
        failures.extend(report.failures.into_iter().map(|failure| format!("{}: {failure}", op.name)));
    }
    let launched = gpu.launches();
    let idle: Vec<_> = kernels.iter().filter(|kernel| !launched.contains_key(kernel.as_str())).collect();
    if filter.is_empty() && !idle.is_empty() {
        failures.push(format!("kernels that no case launches: {idle:?}"));
    }
    Ok((count, failures))
}

/// This program again, with the sanitizers.
fn sanitized_process(args: &[&str]) -> anyhow::Result<std::process::Output> {
    let library = Command::new("g++").arg("-print-file-name=libasan.so").output().context("g++")?.stdout;
    Command::new(std::env::current_exe()?)
        .arg("kernels")
        .args(args)
        .env("LD_PRELOAD", String::from_utf8(library)?.trim())
        // What a process leaves allocated when it ends is not asked about here.
        .env("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1")
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .env(Sanitizer::VARIABLE, "1")
        .stdin(Stdio::null())
        .output()
        .context("cannot run the sanitized process")
}

/// Compiles every kernel for every architecture and prints what it needs. Returns what is wrong.
fn compile(filter: &str) -> anyhow::Result<Vec<String>> {
    let Some(nvcc) = nvcc() else {
        if std::env::var_os("CAUSERIE_REQUIRE_NVCC").is_some() {
            bail!("there is no nvcc; scripts/cuda-toolkit fetches one");
        }
        println!("there is no nvcc (scripts/cuda-toolkit fetches one): kernels were not compiled for GPUs");
        return Ok(Vec::new());
    };
    let out = Path::new(ROOT).join("target/cubins");
    std::fs::create_dir_all(&out)?;
    let mut wrong = Vec::new();
    println!("{:<40} {:>8} {:>10} {:>6} {:>6} {:>8}", "kernel", "arch", "registers", "spill", "stack", "shared");
    for source in sources()?.into_iter().filter(|source| source.to_string_lossy().contains(filter)) {
        for architecture in ARCHITECTURES {
            let compute = architecture.replace("sm_", "compute_");
            let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let output = Command::new(&nvcc)
                .args(["-ccbin", "g++", "-std=c++17", "-O3", "-cubin", "-Xptxas", "-v"])
                .arg(format!("-gencode=arch={compute},code={architecture}"))
                .arg("-I")
                .arg(Path::new(ROOT).join("kernels/src/cuda"))
                .arg(&source)
                .arg("-o")
                .arg(out.join(format!("{stem}.{architecture}.cubin")))
                .output()
                .with_context(|| nvcc.display().to_string())?;
            let text = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                wrong.push(format!("{} for {architecture}: {text}", source.display()));
                continue;
            }
            let resources = parse(&text);
            if resources.is_empty() {
                wrong.push(format!(
                    "{} for {architecture}: no kernel, or ptxas reports in another way",
                    source.display()
                ));
            }
            for r in resources {
                println!(
                    "{:<40} {architecture:>8} {:>10} {:>6} {:>6} {:>8}",
                    r.kernel, r.registers, r.spill, r.stack, r.shared
                );
                let cap = EXCEPTIONS
                    .iter()
                    .find(|(kernel, _)| r.kernel.starts_with(kernel))
                    .map_or(REGISTERS, |(_, cap)| *cap);
                if r.registers > cap || r.spill > 0 || r.stack > 0 {
                    wrong.push(format!("{} for {architecture} needs {r:?}; at most {cap} registers", r.kernel));
                }
            }
        }
    }
    Ok(wrong)
}

/// `NVCC`, that of the path, or that of scripts/cuda-toolkit.
fn nvcc() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NVCC") {
        return Some(named.into());
    }
    let of_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|folder| folder.join("nvcc")).find(|file| file.is_file()));
    of_path.or_else(|| Some(Path::new(ROOT).join("out/cuda/nvidia/cu13/bin/nvcc")).filter(|file| file.is_file()))
}

/// What ptxas says about a kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resources {
    kernel: String,
    registers: u32,
    /// Bytes.
    spill: u32,
    stack: u32,
    shared: u32,
}

/// Reads the report of `ptxas -v`.
fn parse(text: &str) -> Vec<Resources> {
    // The number before `unit`, as in `0 bytes stack frame` or `Used 34 registers`.
    let before = |line: &str, unit: &str| -> u32 {
        let number = line.find(unit).and_then(|at| line[..at].split([' ', ',']).rfind(|word| !word.is_empty()));
        number.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let mut found: Vec<Resources> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Resources { kernel, ..Resources::default() });
        } else if let Some(last) = found.last_mut() {
            last.stack += before(line, " bytes stack frame");
            last.spill += before(line, " bytes spill stores") + before(line, " bytes spill loads");
            last.registers += before(line, " registers");
            last.shared += before(line, " bytes smem");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_ptxas_is_understood() {
        let text = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'first' for 'sm_80'\n\
            ptxas info    : Function properties for first\n    \
            8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 34 registers, used 1 barriers, 8 bytes cumulative stack size, 2048 bytes smem, 420 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'second' for 'sm_80'\n\
            ptxas info    : Function properties for second\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 0 barriers, 392 bytes cmem[0]\n";
        let first = Resources { kernel: "first".into(), registers: 34, spill: 16, stack: 8, shared: 2048 };
        let second = Resources { kernel: "second".into(), registers: 255, ..Resources::default() };
        assert_eq!(parse(text), [first, second]);
    }
}
