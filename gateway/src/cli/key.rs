//! `causerie key`: makes, lists and revokes the keys of a file.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::access::keys::{self, DEFAULT_PER_MINUTE, DEFAULT_STREAMS, Key, KeysError, Secret, digest};

/// The file with the keys.
#[derive(Args, Debug)]
pub struct FileArgs {
    /// The keys file; `causerie serve --keys` takes the same.
    #[arg(long, value_name = "FILE", env = "CAUSERIE_KEYS")]
    keys: PathBuf,
}

/// Options of `causerie key new`.
#[derive(Args, Debug)]
pub struct NewArgs {
    /// What to call it.
    name: String,
    /// Most conversations at once.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_STREAMS)]
    streams: u32,
    /// Most conversations begun in a minute.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PER_MINUTE)]
    per_minute: u32,
    #[command(flatten)]
    file: FileArgs,
}

/// Options of `causerie key list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    file: FileArgs,
}

/// Options of `causerie key revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// Its name.
    name: String,
    #[command(flatten)]
    file: FileArgs,
}

/// Runs `causerie key new`: the key is the one line on standard output.
pub fn new(args: NewArgs) -> anyhow::Result<()> {
    let path = &args.file.keys;
    let mut all = match keys::read(path) {
        Err(KeysError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let secret = Secret::random().context("the system gives no random numbers")?;
    let sha256 = digest(secret.reveal());
    all.push(Key { name: args.name, sha256, streams: args.streams, per_minute: args.per_minute });
    keys::write(path, all)?;
    println!("{}", secret.reveal());
    eprintln!("This is the only time that the key is shown: {} has its SHA-256.", path.display());
    Ok(())
}

/// Runs `causerie key list`.
pub fn list(args: ListArgs) -> anyhow::Result<()> {
    let keys = keys::read(&args.file.keys)?;
    let width = keys.iter().map(|key| key.name.chars().count()).max().unwrap_or(0).max(4);
    println!("{:width$}  streams  per minute", "name");
    for Key { name, streams, per_minute, .. } in keys {
        println!("{name:width$}  {streams:>7}  {per_minute:>10}");
    }
    Ok(())
}

/// Runs `causerie key revoke`.
pub fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let mut all = keys::read(&args.file.keys)?;
    let before = all.len();
    all.retain(|key| key.name != args.name);
    if all.len() == before {
        bail!("there is no key called {:?} in {}", args.name, args.file.keys.display());
    }
    keys::write(&args.file.keys, all)?;
    Ok(())
}
