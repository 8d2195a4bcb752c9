//! Compares the omni model with a reference implementation's recorded results.

use std::path::PathBuf;

use anyhow::{Context, bail};
use causerie_model::omni::parity::{Comparison, Line};
use clap::Args;

/// A folder to compare.
#[derive(Args)]
pub(crate) struct ParityArgs {
    /// A folder with a checkpoint and cases, of the form that `tests/golden/qwen3-omni-tiny/make_tiny.py` writes.
    dir: PathBuf,
    /// Also write every tensor that was computed into this folder, one file a case.
    #[arg(long)]
    dump: Option<PathBuf>,
    /// Threads to compute with.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Prints a line a tensor: the largest error, and whether it is small enough.
///
/// # Errors
/// Something cannot be loaded or computed, or a tensor differs.
pub(crate) fn parity(args: &ParityArgs) -> anyhow::Result<()> {
    let comparison = Comparison::open(&args.dir, args.threads).with_context(|| args.dir.display().to_string())?;
    let lines = comparison.run(args.dump.as_deref())?;
    for Line { case, tensor, values, error, tolerance } in &lines {
        let verdict = if error <= tolerance { "ok" } else { "MISS" };
        println!("{verdict:4} {error:9.2e} ≤ {tolerance:.0e} {values:8} values  {case}.{tensor}");
    }
    let missed = lines.iter().filter(|line| !line.holds()).count();
    println!("{} cases, {} tensors, {missed} missed", comparison.cases().len(), lines.len());
    if missed > 0 || lines.is_empty() {
        bail!("{missed} of {} tensors differ from the reference", lines.len());
    }
    Ok(())
}
