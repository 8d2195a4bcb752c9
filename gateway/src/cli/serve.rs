//! `causerie serve`.

use std::io::Write as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, ServeArgs};
use crate::engines;
use crate::port::raise_file_limit;
use crate::serve::Server;

/// Runs a server until it is told to stop.
///
/// # Errors
/// It cannot be started; the message says what to do.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(&args)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    raise_file_limit();
    let detector = engines::detector(&config).map_err(anyhow::Error::msg)?;
    let starting = Server::start(&config, engines::engine(&config), detector);
    let running = tokio::select! {
        running = starting => running?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    // The one line on stdout: programs that start a server read it.
    println!("ready grpc={} http={} engine={}", running.grpc_addr, running.http_addr, running.engine);
    std::io::stdout().flush().context("cannot write to stdout")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(drain_seconds = config.drain_seconds, "shutting down");
    tokio::select! {
        drained = running.shutdown() => tracing::info!(drained, "stopped"),
        // Whoever asks twice does not want to wait.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
