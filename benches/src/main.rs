//! The benchmarks, as ratios to floors measured in the same run: `./x bench [NAME…]`.

mod commit;
mod contestants;
mod cycle;
mod desktop;
mod fanout;
mod hub;
mod load;
mod metrics;
mod peers;
mod proc;
mod replay;
mod restart;
mod sockets;
mod stats;
mod submit;
mod translation;
mod tunnel;

use std::io::Write as _;

use clap::{Parser, ValueEnum};
use stats::Figure;

/// The allocator of `hearth`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures and prints each figure with its goal; `!` marks one that misses it. Fails if any misses
/// its goal by more than a fifth.
#[derive(Debug, Parser)]
struct Args {
    /// The benchmarks to run; all by default.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Print each figure as a line of JSON, with `is_near` instead of an exit status.
    #[arg(long)]
    json: bool,
    /// The server to run; used by `fanout`.
    #[arg(long, value_enum, hide = true)]
    contestant: Option<contestants::Contestant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// T1: the first token over a slow connection.
    FirstToken,
    /// T2: bursts of tokens.
    Bursts,
    /// The real model through relay and agent.
    Model,
    /// Q1, Q3, Q4: durable enqueues.
    Commit,
    /// Q2, Q3: life cycles of durable jobs, compared with other queues.
    Cycle,
    /// H1: durable submissions over HTTP.
    Submit,
    /// F1: a start with a long queue.
    Restart,
    /// M1: a scrape, and a counter.
    Metrics,
    /// W3: the idle status hub.
    Hub,
    /// W1, W2: a status sent to many overlays.
    Fanout,
    /// W4: overlays that poll a page, and overlays that are pushed to.
    Replay,
    /// X1, X2: the idle desktop app.
    Desktop,
    /// Translation to other APIs.
    Translation,
    /// D7, D10: life cycles of jobs over HTTP, and an overload.
    Load,
    /// D9: idle workers.
    Idle,
    /// D11: slow clients.
    Slow,
    /// The idle workers as a process; used by `idle`.
    #[value(hide = true)]
    SwarmChild,
    /// The hub as a process; used by `hub`.
    #[value(hide = true)]
    HubChild,
    /// A contestant as a process; used by `fanout`.
    #[value(hide = true)]
    FanoutChild,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.what == [What::HubChild] {
        return hub::child().await;
    }
    if let Some(contestant) = args.contestant {
        return contestants::child(contestant).await;
    }
    if args.what == [What::SwarmChild] {
        return sockets::swarm().await;
    }
    let mut out = std::io::stdout();
    if !args.json {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism()?;
        writeln!(out, "{cores} cores, load {}", load.trim())?;
    }
    let mut far = 0;
    for what in What::value_variants() {
        let is_child = matches!(what, What::HubChild | What::FanoutChild | What::SwarmChild);
        if !is_child && (args.what.is_empty() || args.what.contains(what)) {
            for figure in measure(*what).await? {
                if args.json {
                    writeln!(out, "{}", figure.to_json())?;
                } else {
                    writeln!(out, "{figure}")?;
                    far += usize::from(!figure.is_near());
                }
            }
        }
    }
    anyhow::ensure!(
        far == 0,
        "{far} miss their goal by more than a fifth: is the machine busy with something else?"
    );
    Ok(())
}

async fn measure(what: What) -> anyhow::Result<Vec<Figure>> {
    match what {
        What::FirstToken => tunnel::first_token().await,
        What::Bursts => tunnel::bursts().await,
        What::Model => tunnel::model().await,
        What::Commit => commit::measure().await,
        What::Cycle => cycle::measure().await,
        What::Submit => submit::measure().await,
        What::Restart => restart::measure().await,
        What::Metrics => Ok(metrics::measure()),
        What::Hub => hub::measure().await,
        What::Fanout => fanout::measure().await,
        What::Replay => replay::measure().await,
        What::Desktop => desktop::measure().await,
        What::Translation => translation::measure(),
        What::Load => load::measure().await,
        What::Idle => sockets::idle().await,
        What::Slow => sockets::slow().await,
        What::HubChild | What::FanoutChild | What::SwarmChild => Ok(Vec::new()),
    }
}
