use std::net::SocketAddr;

use proto::{ErrorCode, status::Command};
use status::{Answer, Approvals, HubAddress, Request};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::TrayAct;

/// What a desktop wants of the agent beside the hub's commands.
#[derive(Debug)]
pub(crate) enum Want {
    Act(TrayAct),
    Autostart(bool, oneshot::Sender<Result<(), String>>),
}

/// Steers a running [`crate::Agent`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) wants: mpsc::Sender<Want>,
    pub(crate) approvals: Approvals,
    pub(crate) hub: HubAddress,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) stop: CancellationToken,
    pub(crate) stop_now: CancellationToken,
}

impl AgentHandle {
    /// Does what a click in the tray asks for. Returns at once.
    pub fn act(&self, act: TrayAct) {
        if self.wants.try_send(Want::Act(act)).is_err() {
            tracing::warn!(?act, "a click was dropped: the agent is busy or stopping");
        }
    }

    /// Carries out a command, as if it came over the hub with the token.
    ///
    /// # Errors
    /// The stable code and sentence that a client of the hub would get.
    pub async fn command(&self, command: Command) -> Answer {
        let stopping = || (ErrorCode::Draining, "the agent is stopping".to_owned());
        let (answer, receiver) = oneshot::channel();
        let request = Request { command, answer };
        self.requests.send(request).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }

    /// Starts the app at login, or no longer.
    ///
    /// # Errors
    /// Why that did not come about, for the owner.
    pub async fn set_autostart(&self, on: bool) -> Result<(), String> {
        let stopping = || "the agent is stopping".to_owned();
        let (answer, receiver) = oneshot::channel();
        let want = Want::Autostart(on, answer);
        self.wants.send(want).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }

    /// The programs that ask for leave to give commands, and those that have it.
    #[must_use]
    pub fn approvals(&self) -> Approvals {
        self.approvals.clone()
    }

    /// Where the status hub listens.
    #[must_use]
    pub fn hub(&self) -> HubAddress {
        self.hub.clone()
    }

    /// Where the local HTTP server listens, if it has a port.
    #[must_use]
    pub const fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Asks the agent to stop: running jobs may finish for a while. Asked again, it stops at once.
    pub fn stop(&self) {
        if self.stop.is_cancelled() {
            self.stop_now.cancel();
        }
        self.stop.cancel();
    }
}
