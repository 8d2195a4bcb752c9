//! `causerie plan`.

use std::io::Write as _;

use anyhow::Context as _;

use crate::config::{Config, ServeArgs};
use crate::engines;

/// Prints what the omni engine would need for the checkpoint and the conversations that `serve` would have with the same
/// options.
///
/// # Errors
/// It would not fit, or something cannot be read; the message says what.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let args = ServeArgs { engine: args.engine.or_else(|| Some("omni".into())), ..args };
    let plan = engines::omni_plan(&Config::load(&args)?).map_err(anyhow::Error::msg)?;
    writeln!(std::io::stdout(), "{plan}").context("cannot write to stdout")
}
