//! The first signal asks a program to end, the second insists.

use tokio_util::sync::CancellationToken;

/// Runs a program that ends when `stop` is cancelled, and cancels it at the first signal. A
/// second signal ends the process at once.
///
/// # Errors
/// What the program says, or that signals cannot be heard.
pub(crate) async fn with(
    stop: &CancellationToken,
    program: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::pin!(program);
    tokio::select! {
        ended = &mut program => return ended,
        asked = signal() => asked?,
    }
    tracing::info!("stopping; a second signal ends it at once");
    stop.cancel();
    tokio::select! {
        ended = program => ended,
        asked = signal() => {
            asked?;
            anyhow::bail!("ended at once, as asked")
        }
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
