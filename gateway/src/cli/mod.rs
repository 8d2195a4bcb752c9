//! The command line: what can be asked of the `causerie` binary.

pub mod models;
pub mod serve;
pub mod talk;

use clap::{Parser, Subcommand};

use crate::config::ServeArgs;

/// A realtime audio-video agent server, and its tools.
#[derive(Parser, Debug)]
#[command(name = "causerie", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Hold a conversation with a server, from WAV files, a microphone pipe or typed text.
    Talk(talk::TalkArgs),
    /// List, fetch or verify the models.
    #[command(subcommand)]
    Models(ModelsCommand),
}

/// What to do with the models.
#[derive(Subcommand, Debug)]
pub enum ModelsCommand {
    /// Show every known model, its size, its licence and whether it is here.
    List(models::ListArgs),
    /// Fetch models into the models folder.
    Pull(models::PullArgs),
    /// Check the files of the models folder against the manifest.
    Verify(models::VerifyArgs),
}
