//! The server under load, in a process of its own so that its memory and its time can be told from the callers'.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use causerie_gateway::config::{Config, TimingConfig};
use causerie_gateway::serve::Server as Causerie;
use causerie_tests::scripted::LoudnessDetector;
use clap::Args;

use super::echo::Echo;
use crate::machine;

/// Options of the process that serves.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Conversations at once.
    #[arg(long)]
    places: usize,
    /// Length of a piece of speech, in milliseconds.
    #[arg(long)]
    piece: u32,
    /// Detect speech with Silero's network from this folder of models.
    #[arg(long)]
    silero: bool,
    /// Folder of the models.
    #[arg(long, env = "CAUSERIE_MODELS")]
    models: Option<PathBuf>,
}

/// Serves until the standard input ends.
pub(crate) fn serve(args: &ServerArgs) -> anyhow::Result<()> {
    let config = Config {
        listen: "127.0.0.1:0".into(),
        http: "127.0.0.1:0".into(),
        models: args.models.clone(),
        max_conversations: args.places,
        drain_seconds: 1,
        timing: TimingConfig { piece: Some(args.piece), ..TimingConfig::default() },
        ..Config::default()
    };
    let detector = match args.silero {
        true => causerie_gateway::engines::detector(&config).map_err(anyhow::Error::msg)?,
        false => Arc::new(LoudnessDetector),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let running = Causerie::start(&config, Box::new(|| Ok(Box::new(Echo::new()))), detector).await?;
        println!("{}", running.grpc_addr);
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        running.shutdown().await;
        Ok(())
    })
}

/// The process, which ends when this is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) url: String,
}

impl Server {
    pub(super) fn start(places: usize, piece_ms: u32, silero: bool) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load-server", "--places", &places.to_string(), "--piece", &piece_ms.to_string()]);
        if silero {
            command.arg("--silero");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot serve")?;
        let mut address = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut address)?;
        }
        if address.is_empty() {
            bail!("the server did not start: {}", child.wait()?);
        }
        Ok(Self { child, url: format!("http://{}", address.trim()) })
    }

    /// Seconds that it has computed so far.
    pub(super) fn cpu_seconds(&self) -> f64 {
        machine::cpu_seconds(self.child.id()).unwrap_or(0.0)
    }

    /// Its resident memory, in kB.
    pub(super) fn rss_kb(&self) -> f64 {
        machine::rss_kb(self.child.id()).unwrap_or(0.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
