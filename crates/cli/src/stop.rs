//! Signals: the first asks a program to stop, the second stops it at once.

use tokio_util::sync::CancellationToken;

/// Runs a program that ends when `stop` is cancelled, and cancels it at the first signal. A second
/// signal ends the process at once.
///
/// # Errors
/// The program's error, or that signals cannot be received.
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
    tracing::info!("stopping; a second signal stops it at once");
    stop.cancel();
    tokio::select! {
        ended = program => ended,
        () = signals.next() => anyhow::bail!("stopped at once by a second signal"),
    }
}

/// The signals that ask a program to stop, received from the moment of [`Signals::listen`].
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    /// Starts to receive SIGINT and SIGTERM.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: None,
        })
    }

    /// Also receives SIGHUP, which means that the terminal was closed. (The relay uses SIGHUP to
    /// reload its certificate.)
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn and_hangup(mut self) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        self.hangup = Some(signal(SignalKind::hangup())?);
        Ok(self)
    }

    /// Waits for the next signal.
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

/// The Ctrl-C event, received from the moment of [`Signals::listen`].
#[cfg(windows)]
#[derive(Debug)]
pub(crate) struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    /// Starts to receive Ctrl-C.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?))
    }

    /// Does nothing: Windows ends the programs of a closed console.
    ///
    /// # Errors
    /// None.
    pub(crate) fn and_hangup(self) -> std::io::Result<Self> {
        Ok(self)
    }

    /// Waits for the next Ctrl-C.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
