//! The `causerie` binary.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use causerie_gateway::cli::{Cli, Command, KeyCommand, ModelsCommand, cert, key, models, plan, serve, talk};
use causerie_gateway::logging::{LogContent, subscriber};
use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let content = LogContent(matches!(&cli.command, Command::Serve(args) if args.log_content));
    let filter = EnvFilter::try_from_env("CAUSERIE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    subscriber(filter, content, colours, std::io::stderr).init();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causerie: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match command {
        Command::Serve(args) => {
            let runtime = runtime()?;
            let served = runtime.block_on(serve::run(args));
            // What has not ended by now was given its time.
            runtime.shutdown_background();
            served
        }
        Command::Plan(args) => plan::run(args),
        Command::Talk(args) => runtime()?.block_on(talk::run(args)),
        Command::Key(KeyCommand::New(args)) => key::new(args),
        Command::Key(KeyCommand::List(args)) => key::list(args),
        Command::Key(KeyCommand::Revoke(args)) => key::revoke(args),
        Command::Cert(args) => cert::run(args),
        Command::Models(ModelsCommand::List(args)) => models::list(args),
        Command::Models(ModelsCommand::Pull(args)) => models::pull(args),
        Command::Models(ModelsCommand::Verify(args)) => models::verify(args),
    }
}
