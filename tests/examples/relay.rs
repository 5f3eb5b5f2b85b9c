//! `hearth relay` alone: bugs are planted in this program, and its tests must find them.

use clap::Parser as _;
use tokio_util::sync::CancellationToken;

#[derive(clap::Parser)]
enum Command {
    Relay(relay::Args),
}

#[tokio::main]
async fn main() {
    let Command::Relay(args) = Command::parse();
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    let mut signals = tokio::task::JoinSet::new();
    signals.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            terminate.recv().await;
            on_signal.cancel();
        }
    });
    if let Err(error) = args.run(stop).await {
        panic!("{error:#}");
    }
}
