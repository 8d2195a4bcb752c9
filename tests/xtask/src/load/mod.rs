//! Many callers at once: what the gateway adds to a frame's way, what a stream costs, and what happens beyond the load
//! that is admitted.
//!
//! The server is the gateway as it serves, over sockets, in a process of its own; only the engine is one that costs
//! nothing ([`echo`]). The callers share the machine's cores with it, as in the figures of other servers.

mod callers;
mod echo;
mod hour;
mod server;

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use tonic::transport::Channel;

pub(crate) use server::{ServerArgs, serve};

use self::callers::{Crowd, Outcome};
use self::server::Server;
use crate::machine;

/// What to measure.
#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Seconds that each crowd is measured for.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Servers that are shut down while they are spoken with.
    #[arg(long, default_value_t = 100)]
    trials: usize,
    /// Only the measurements whose names contain this, of those of the table, `overload`, `drain` and `hour`.
    #[arg(long)]
    only: Option<String>,
}

/// A row of the table.
struct Case {
    name: &'static str,
    callers: usize,
    frame_ms: u64,
    silero: bool,
    /// The goal for p99, in milliseconds.
    goal_ms: Option<f64>,
}

const CASES: [Case; 4] = [
    Case { name: "1 stream of 20 ms", callers: 1, frame_ms: 20, silero: false, goal_ms: None },
    Case { name: "100 streams of 20 ms", callers: 100, frame_ms: 20, silero: false, goal_ms: None },
    Case { name: "1,000 streams of 80 ms", callers: 1_000, frame_ms: 80, silero: false, goal_ms: Some(2.0) },
    Case { name: "100 streams of 20 ms, Silero", callers: 100, frame_ms: 20, silero: true, goal_ms: Some(5.0) },
];

/// Conversations that are admitted when four times as many ask.
const ADMITTED: usize = 250;

/// Runs `cargo xtask load`.
pub(crate) fn load(args: &LoadArgs) -> anyhow::Result<()> {
    println!("\n{}", machine::line());
    if let Some(load) = machine::load() {
        println!("load of the last minute: {load:.2}; other work on the machine disturbs what follows");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    println!("a frame's way through the server and back, on a scripted engine\n\n{}", head());
    for case in CASES.iter().filter(|case| wanted(case.name)) {
        runtime.block_on(measure(case, args.seconds))?;
    }
    if wanted("overload") {
        runtime.block_on(overload(args.seconds))?;
    }
    if wanted("drain") {
        runtime.block_on(drains(args.trials))?;
    }
    if wanted("hour") {
        hour::hour()?;
    }
    Ok(())
}

fn crowd(callers: usize, frame_ms: u64, detection: bool, seconds: u64) -> Crowd {
    Crowd {
        callers,
        frame: Duration::from_millis(frame_ms),
        detection,
        warm_up: Duration::from_secs(2),
        measured: Duration::from_secs(seconds),
    }
}

async fn measure(case: &Case, seconds: u64) -> anyhow::Result<()> {
    let server = Server::start(case.callers + 1, case.frame_ms as u32, case.silero)?;
    let channels = callers::connect(&server.url, case.callers).await?;
    // One that opens what is opened once.
    callers::run(&channels, crowd(1, case.frame_ms, case.silero, 0)).await;
    let (empty_kb, cpu) = (server.rss_kb(), server.cpu_seconds());
    let begun = Instant::now();
    let crowd = crowd(case.callers, case.frame_ms, case.silero, seconds);
    let running = tokio::spawn({
        let channels = channels.clone();
        async move { callers::run(&channels, crowd).await }
    });
    tokio::time::sleep(crowd.warm_up + crowd.measured).await;
    let full_kb = server.rss_kb();
    let outcome = running.await?;
    let (cpu, wall) = (server.cpu_seconds() - cpu, begun.elapsed().as_secs_f64());
    println!("{}", row(case.name, &outcome));
    let frame_us = cpu * 1e6 / outcome.sent.max(1) as f64;
    let stream_kb = (full_kb - empty_kb) / case.callers as f64;
    println!(
        "    server: {frame_us:.0} µs of CPU a frame, {:.2} cores; {stream_kb:.0} kB of memory a stream{}",
        cpu / wall,
        case.goal_ms.map(|goal| format!("; goal: p99 {goal} ms")).unwrap_or_default(),
    );
    complain(&outcome);
    Ok(())
}

/// The load that is admitted, alone and while three times as many ask in vain.
async fn overload(seconds: u64) -> anyhow::Result<()> {
    let server = Server::start(ADMITTED, 80, false)?;
    let channels = callers::connect(&server.url, 4 * ADMITTED).await?;
    let crowd = crowd(ADMITTED, 80, false, seconds);
    let alone = callers::run(&channels, crowd).await;
    println!("{}", row("250 streams of 80 ms, as many as are admitted", &alone));
    complain(&alone);
    // Their places are free again in a moment.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let knocking = tokio::spawn(knock(channels.clone(), crowd));
    let outcome = callers::run(&channels, crowd).await;
    let (refusals, others) = knocking.await?;
    println!("{}", row("    while 750 more ask once a second", &outcome));
    println!("{}", line("    a refusal", &refusals));
    complain(&outcome);
    for other in others.iter().take(3) {
        println!("    not a refusal: {other}");
    }
    Ok(())
}

/// How long a server takes to end that is told to while it is spoken with: half of its callers wait, the replies of the
/// others never end.
async fn drains(trials: usize) -> anyhow::Result<()> {
    const CALLERS: usize = 8;
    let (mut took_us, mut cut) = (Vec::new(), 0);
    for _ in 0..trials {
        let server = Server::start(CALLERS, 20, false)?;
        let channels = callers::connect(&server.url, CALLERS).await?;
        let crowd = Crowd { warm_up: Duration::ZERO, measured: Duration::from_secs(60), ..crowd(1, 20, false, 0) };
        let talking: Vec<_> = (0..CALLERS)
            .map(|i| {
                let channel = channels[i % channels.len()].clone();
                tokio::spawn(callers::until_ended(channel, crowd, i % 2 == 0))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let told = Instant::now();
        tokio::task::spawn_blocking(move || drop(server)).await?;
        took_us.push(told.elapsed().as_secs_f64() * 1e6);
        for caller in talking {
            cut += usize::from(!caller.await?);
        }
    }
    println!("{}", line("a shutdown, 1 s of it for turns and 1 s for farewells", &took_us));
    println!("    {cut} of {} streams ended without a word", trials * CALLERS);
    Ok(())
}

async fn knock(channels: Vec<Channel>, crowd: Crowd) -> (Vec<f64>, Vec<String>) {
    let begin = Instant::now() + Duration::from_secs(1);
    let until = Instant::now() + crowd.warm_up + crowd.measured;
    let knockers: Vec<_> = (0..3 * ADMITTED)
        .map(|i| {
            let first = begin + Duration::from_secs(1).mul_f64(i as f64 / (3 * ADMITTED) as f64);
            tokio::spawn(callers::knock(channels[i % channels.len()].clone(), first, until))
        })
        .collect();
    let (mut refusals, mut others) = (Vec::new(), Vec::new());
    for knocker in knockers {
        match knocker.await {
            Ok((refused, other)) => {
                refusals.extend(refused);
                others.extend(other);
            }
            Err(error) => others.push(error.to_string()),
        }
    }
    (refusals, others)
}

fn complain(outcome: &Outcome) {
    if outcome.lost > 0 || outcome.out_of_order > 0 || !outcome.failed.is_empty() {
        println!(
            "    {} frames lost, {} out of order, {} conversations failed",
            outcome.lost,
            outcome.out_of_order,
            outcome.failed.len()
        );
    }
    for failure in outcome.failed.iter().take(3) {
        println!("    {failure}");
    }
}

fn head() -> String {
    format!("{:<52} {:>8} {:>8} {:>8} {:>8} {:>8}", "milliseconds", "n", "p50", "p99", "p99.9", "max")
}

fn row(name: &str, outcome: &Outcome) -> String {
    line(name, &outcome.latencies_us)
}

fn line(name: &str, samples_us: &[f64]) -> String {
    let mut sorted = samples_us.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
        sorted.get(rank - 1).map_or(f64::NAN, |us| us / 1e3)
    };
    let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(at);
    format!("{name:<52} {:>8} {p50:>8.2} {p99:>8.2} {p999:>8.2} {max:>8.2}", sorted.len())
}
