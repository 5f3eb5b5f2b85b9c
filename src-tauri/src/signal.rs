//! The system's requests to end the program.

/// Waits for SIGINT or SIGTERM.
#[cfg(unix)]
pub(crate) async fn received() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        Some(()) = terminate.recv() => {}
        else => std::future::pending().await,
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn received() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
