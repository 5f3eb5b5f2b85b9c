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
    let mut signals = Signals::listen()?;
    tokio::select! {
        ended = &mut program => return ended,
        () = signals.next() => {}
    }
    tracing::info!("stopping; a second signal ends it at once");
    stop.cancel();
    tokio::select! {
        ended = program => ended,
        () = signals.next() => anyhow::bail!("ended at once, as asked"),
    }
}

/// The signals that ask a program to end, heard from the moment this is made.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    /// Begins to hear them.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: None,
        })
    }

    /// Hears too that the terminal was closed. To a relay the same signal says something else.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn and_hangup(mut self) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        self.hangup = Some(signal(SignalKind::hangup())?);
        Ok(self)
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = heard(&mut self.hangup) => {}
        }
    }
}

#[cfg(unix)]
async fn heard(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The key that asks a program to end, heard from the moment this is made.
#[cfg(windows)]
#[derive(Debug)]
pub(crate) struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    /// Begins to hear it.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?))
    }

    /// A console that is closed ends its programs by itself.
    ///
    /// # Errors
    /// None.
    pub(crate) fn and_hangup(self) -> std::io::Result<Self> {
        Ok(self)
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
