//! Who is at the other end of a socket, for the question whether it may give commands.

use std::{net::SocketAddr, time::Duration};

use proto::{ErrorCode, status::Command};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    Approvals,
    approvals::{Ticket, Verdict},
    door::Grant,
    peer::{Peer, peer},
};

/// One connection's other end.
pub(crate) struct Caller {
    pub(crate) approvals: Option<Approvals>,
    pub(crate) from: Option<SocketAddr>,
    /// The hub's own port.
    pub(crate) port: u16,
    pub(crate) origin: Option<String>,
    /// Looked up once: a connection stays with its program.
    pub(crate) peer: Option<Peer>,
    pub(crate) within: Duration,
}

/// A command that waits for the owner's word. Meanwhile the client is listened to.
pub(crate) struct Held<Id> {
    ticket: Ticket,
    until: Instant,
    command: Command,
    id: Id,
}

/// What became of it.
pub(crate) struct Decided<Id> {
    /// `None`: nobody answered.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) approval: String,
    pub(crate) command: Command,
    pub(crate) id: Id,
}

/// Why a command is not carried out now; with what the owner is asked.
pub(crate) type NotNow = (ErrorCode, String, Option<String>);

impl Caller {
    /// Whether this grant, or one that may have been revoked since, allows commands.
    pub(crate) fn may_command(&self, grant: Grant) -> bool {
        match grant {
            Grant::Read => false,
            Grant::Command => true,
            Grant::Guest(id) => self.approvals.as_ref().is_some_and(|all| all.holds(id)),
        }
    }

    /// A program left before it heard of its leave: nobody else knows the token.
    pub(crate) async fn take_back(&self, grant: u64) {
        if let Some(approvals) = &self.approvals
            && let Err((code, message)) = approvals.revoke(&grant.to_string()).await
        {
            tracing::warn!(grant, %code, message, "a leave that nobody uses is kept");
        }
    }

    /// Puts the question to the owner, and says so; or says why it cannot be put.
    pub(crate) async fn raise<Id>(
        &mut self,
        held: &mut Option<Held<Id>>,
        name: &str,
        (command, id): (Command, Id),
    ) -> NotNow {
        match self.put(held.is_some(), name, command).await {
            Err((code, message)) => (code, message, None),
            Ok(ticket) => {
                let (approval, until) = (ticket.id.to_string(), Instant::now() + self.within);
                *held = Some(Held {
                    ticket,
                    until,
                    command,
                    id,
                });
                let message = format!(
                    "the owner is asked, in Hearth's window and by `hearth pair list`; \
                     the outcome follows within {} s",
                    self.within.as_secs()
                );
                (ErrorCode::ApprovalRequired, message, Some(approval))
            }
        }
    }

    async fn put(
        &mut self,
        is_waiting: bool,
        name: &str,
        command: Command,
    ) -> Result<Ticket, (ErrorCode, String)> {
        let no_leave = |why: &str| Err((ErrorCode::Unauthorized, why.to_owned()));
        let Some(approvals) = self.approvals.clone() else {
            return no_leave(
                "commands need the local token: prove it, or send it with the upgrade",
            );
        };
        if is_waiting {
            let message = "an earlier command of this connection waits for the owner's word";
            return Err((ErrorCode::RateLimited, message.to_owned()));
        }
        let now = Instant::now().into_std();
        approvals.may_look(now)?;
        let Some(peer) = self.look().await else {
            return no_leave("nobody can tell who asks");
        };
        if peer.is_foreign {
            return no_leave("programs of other users cannot be allowed to give commands");
        }
        let who = peer.program(name, self.origin.as_deref());
        approvals.ask(peer.identity, who, command, self.within, now)
    }

    async fn look(&mut self) -> Option<Peer> {
        if self.peer.is_none() {
            let (from, port) = (self.from?, self.port);
            self.peer = spawn_blocking(move || peer(from, port)).await.ok();
        }
        self.peer.clone()
    }
}

/// Waits for the owner's word; for ever if nothing was asked.
pub(crate) async fn decided<Id>(held: &mut Option<Held<Id>>) -> Decided<Id> {
    let Some(waiting) = held else {
        return std::future::pending().await;
    };
    let verdict = match timeout_at(waiting.until, &mut waiting.ticket.verdict).await {
        Ok(Ok(verdict)) => Some(verdict),
        Ok(Err(_)) | Err(_) => None,
    };
    match held.take() {
        Some(held) => Decided {
            verdict,
            approval: held.ticket.id.to_string(),
            command: held.command,
            id: held.id,
        },
        None => std::future::pending().await,
    }
}

/// The refusal after a no, or after silence.
pub(crate) fn denied(verdict: Option<&Verdict>) -> (ErrorCode, String) {
    let message = match verdict {
        Some(_) => "the owner said no",
        None => "nobody answered in time; ask again when the owner is there",
    };
    (ErrorCode::ApprovalDenied, message.to_owned())
}
