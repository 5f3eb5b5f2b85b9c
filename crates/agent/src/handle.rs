use std::net::SocketAddr;

use proto::{ErrorCode, status::Command};
use status::{Answer, Approvals, HubAddress, Request};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::TrayAct;

/// A request of the desktop that is not a command of the hub.
#[derive(Debug)]
pub(crate) enum Want {
    Act(TrayAct),
    Autostart(bool, oneshot::Sender<Result<(), String>>),
}

/// Controls a running [`crate::Agent`]; cheap to clone.
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
    /// Carries out a click in the tray. Returns at once.
    pub fn act(&self, act: TrayAct) {
        if self.wants.try_send(Want::Act(act)).is_err() {
            tracing::warn!(?act, "a click was dropped: the agent is busy or stopping");
        }
    }

    /// Carries out a command as if it came over the hub with the token.
    ///
    /// # Errors
    /// The stable code and message that a client of the hub would get.
    pub async fn command(&self, command: Command) -> Answer {
        let stopping = || (ErrorCode::Draining, "the agent is stopping".to_owned());
        let (answer, receiver) = oneshot::channel();
        let request = Request { command, answer };
        self.requests.send(request).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }

    /// Enables or disables the start at login.
    ///
    /// # Errors
    /// The reason why it did not change, for the owner.
    pub async fn set_autostart(&self, on: bool) -> Result<(), String> {
        let stopping = || "the agent is stopping".to_owned();
        let (answer, receiver) = oneshot::channel();
        let want = Want::Autostart(on, answer);
        self.wants.send(want).await.map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }

    /// The pending approvals and the permanent grants.
    #[must_use]
    pub fn approvals(&self) -> Approvals {
        self.approvals.clone()
    }

    /// The address of the status hub.
    #[must_use]
    pub fn hub(&self) -> HubAddress {
        self.hub.clone()
    }

    /// The address of the local HTTP server, if it has a port.
    #[must_use]
    pub const fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Stops the agent after its running jobs, for which it waits a limited time. A second call
    /// stops it at once.
    pub fn stop(&self) {
        if self.stop.is_cancelled() {
            self.stop_now.cancel();
        }
        self.stop.cancel();
    }
}
