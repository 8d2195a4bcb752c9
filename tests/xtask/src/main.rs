//! Chores of the project: `cargo xtask bench`, `load`, `networks`, `turns`, `thinking`, `addressed`, `tools`, `recall`, `kernels`
//! and `parity`.
//!
//! - [`latency`]: how soon a running server answers spoken questions, one caller and several at once.
//! - [`networks`]: the networks by themselves, beside their peers.
//! - [`turns`]: turn taking on recordings: ends of speech, interruptions, and what should not interrupt.
//! - [`kernels`]: the kernels for GPUs, compiled and emulated.
//! - [`parity`]: the omni model beside a reference implementation's results.
//! - [`recall`]: whether an agent that was interrupted knows how far it was heard.
//! - [`load`]: many callers at once on an engine that costs nothing.
//! - [`machine`]: what it was measured on.
//! - [`thinking`]: what thinking gains and costs.
//! - [`addressed`]: telling speech that is meant for the model.
//! - [`tools`]: whether functions are called when they are needed, and only then.
//! - [`table`]: samples as one line of a table.
#![forbid(unsafe_code)]

mod addressed;
mod kernels;
mod latency;
mod load;
mod machine;
mod networks;
mod parity;
mod recall;
mod table;
mod thinking;
mod tools;
mod turns;

use clap::{Parser, Subcommand};

/// Chores of the project.
#[derive(Parser)]
struct Xtask {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure a running server.
    Bench(latency::BenchArgs),
    /// Measure the server itself, with many callers and an engine that costs nothing.
    Load(load::LoadArgs),
    /// The server that `load` measures.
    #[command(hide = true)]
    LoadServer(load::ServerArgs),
    /// Measure the networks without a server.
    Networks(networks::NetworksArgs),
    /// Measure turn taking on recordings, without a server.
    Turns(turns::TurnsArgs),
    /// Compile the kernels for GPUs and check them on the emulator.
    Kernels(kernels::KernelsArgs),
    /// Measure what thinking gains and costs.
    Thinking(thinking::ThinkingArgs),
    /// Measure how well speech that is meant for the model is told from other.
    Addressed(addressed::AddressedArgs),
    /// Measure whether functions are called when they are needed.
    Tools(tools::ToolsArgs),
    /// Measure whether an agent that was interrupted knows how far it was heard.
    Recall(recall::RecallArgs),
    /// Compare the omni model with a reference implementation.
    Parity(parity::ParityArgs),
}

fn main() -> anyhow::Result<()> {
    match Xtask::parse().chore {
        Chore::Bench(args) => latency::bench(&args),
        Chore::Load(args) => load::load(&args),
        Chore::LoadServer(args) => load::serve(&args),
        Chore::Networks(args) => networks::networks(&args),
        Chore::Turns(args) => turns::turns(&args),
        Chore::Kernels(args) => kernels::kernels(&args),
        Chore::Thinking(args) => thinking::thinking(&args),
        Chore::Addressed(args) => addressed::addressed(&args),
        Chore::Tools(args) => tools::tools(&args),
        Chore::Recall(args) => recall::recall(&args),
        Chore::Parity(args) => parity::parity(&args),
    }
}
