//! The command line: what can be asked of the `causerie` binary.

pub mod cert;
pub mod key;
pub mod models;
pub mod plan;
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
    /// Say what the omni engine would need of memory, without loading it. Takes the options of `serve`.
    Plan(ServeArgs),
    /// Hold a conversation with a server, from WAV files, a microphone pipe or typed text.
    Talk(talk::TalkArgs),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make certificates for development.
    Cert(cert::CertArgs),
    /// List, fetch or verify the models.
    #[command(subcommand)]
    Models(ModelsCommand),
}

/// What to do with the API keys.
#[derive(Subcommand, Debug)]
pub enum KeyCommand {
    /// Make a key and print it; the file is made if it is not there.
    New(key::NewArgs),
    /// Show the names and limits of the keys.
    List(key::ListArgs),
    /// Revoke a key; a running server takes no new conversation on it from then on.
    Revoke(key::RevokeArgs),
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
