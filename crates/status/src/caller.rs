//! Identifies the program behind a socket, for the decision whether it may send commands.

use std::{net::SocketAddr, time::Duration};

use proto::{ErrorCode, status::Command};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    Approvals,
    approvals::{PendingApproval, Verdict},
    peer::{Peer, peer},
    token_check::Grant,
};

/// The client of one connection.
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

/// A command that waits for the owner's approval. Meanwhile further messages are read.
pub(crate) struct HeldCommand<Id> {
    pending: PendingApproval,
    until: Instant,
    command: Command,
    id: Id,
}

/// The result of an approval.
pub(crate) struct ApprovalResult<Id> {
    /// `None` if the owner did not answer.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) approval: String,
    pub(crate) command: Command,
    pub(crate) id: Id,
}

/// The reason why a command is not carried out now, with the id of the pending approval.
pub(crate) type Denial = (ErrorCode, String, Option<String>);

impl Caller {
    /// Whether this grant allows commands; it may have been revoked since the connection opened.
    pub(crate) fn may_command(&self, grant: Grant) -> bool {
        match grant {
            Grant::Read => false,
            Grant::Command => true,
            Grant::Guest(id) => self.approvals.as_ref().is_some_and(|all| all.holds(id)),
        }
    }

    /// Handles the end of the connection: a grant that was given but not delivered is removed.
    pub(crate) async fn leaves<Id>(&self, held: Option<HeldCommand<Id>>) {
        if let Some(mut held) = held
            && let Some(Verdict::Always(grant, _)) = held.pending.last_word()
        {
            self.take_back(grant).await;
        }
    }

    /// Removes a grant that was not delivered: nobody knows its token.
    pub(crate) async fn take_back(&self, grant: u64) {
        if let Some(approvals) = &self.approvals
            && let Err((code, message)) = approvals.revoke(&grant.to_string()).await
        {
            tracing::warn!(grant, %code, message, "an unused grant could not be removed");
        }
    }

    /// Requests the owner's approval and returns the notice for the client, or the reason for a
    /// refusal.
    pub(crate) async fn raise<Id>(
        &mut self,
        held: &mut Option<HeldCommand<Id>>,
        name: &str,
        (command, id): (Command, Id),
    ) -> Denial {
        match self.put(held.is_some(), name, command).await {
            Err((code, message)) => (code, message, None),
            Ok(pending) => {
                let (approval, until) = (pending.id.to_string(), Instant::now() + self.within);
                *held = Some(HeldCommand {
                    pending,
                    until,
                    command,
                    id,
                });
                let message = format!(
                    "the owner is asked for approval, in Hearth's window and in `hearth pair list`; \
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
    ) -> Result<PendingApproval, (ErrorCode, String)> {
        let no_leave = |why: &str| Err((ErrorCode::Unauthorized, why.to_owned()));
        let Some(approvals) = self.approvals.clone() else {
            return no_leave(
                "commands need the local token (the file `hub.token` in Hearth's data folder): prove it, \
                 or send it with the upgrade request",
            );
        };
        if is_waiting {
            let message = "an earlier command of this connection is waiting for approval";
            return Err((ErrorCode::RateLimited, message.to_owned()));
        }
        let now = Instant::now().into_std();
        if self.peer.is_none() {
            approvals.check_look(now)?;
        }
        let Some(peer) = self.look().await else {
            return no_leave(
                "the calling program cannot be identified; try again, or prove the local token",
            );
        };
        if peer.is_foreign {
            return no_leave("programs of other users may not send commands");
        }
        let who = peer.program(name, self.origin.as_deref());
        approvals.ask(peer.identity, who, command, self.within, now)
    }

    async fn look(&mut self) -> Option<Peer> {
        if self.peer.is_none() {
            let (from, port) = (self.from?, self.port);
            let looking = spawn_blocking(move || peer(from, port));
            self.peer = looking.await.ok().flatten();
        }
        self.peer.clone()
    }
}

/// Waits for the owner's decision; forever if none is pending.
pub(crate) async fn decided<Id>(held: &mut Option<HeldCommand<Id>>) -> ApprovalResult<Id> {
    let Some(waiting) = held else {
        return std::future::pending().await;
    };
    let verdict = match timeout_at(waiting.until, &mut waiting.pending.verdict).await {
        Ok(verdict) => verdict.ok(),
        Err(_) => waiting.pending.last_word(),
    };
    match held.take() {
        Some(held) => ApprovalResult {
            verdict,
            approval: held.pending.id.to_string(),
            command: held.command,
            id: held.id,
        },
        None => std::future::pending().await,
    }
}

/// The error after a refusal or a timeout.
pub(crate) fn denied(verdict: Option<&Verdict>) -> (ErrorCode, String) {
    let message = match verdict {
        Some(_) => "the owner refused",
        None => "the owner did not answer in time; ask again later",
    };
    (ErrorCode::ApprovalDenied, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Consent, World, peer::Identity};

    fn caller(approvals: &Approvals, peer: Option<Peer>) -> Caller {
        Caller {
            approvals: Some(approvals.clone()),
            from: Some(([127, 0, 0, 1], 1).into()),
            port: 1,
            origin: None,
            peer,
            within: Duration::from_secs(120),
        }
    }

    fn known(process: u32) -> Option<Peer> {
        Some(Peer {
            identity: Identity::Process(process, 7),
            is_foreign: false,
            file: None,
        })
    }

    async fn asks(caller: &mut Caller, held: &mut Option<HeldCommand<()>>) -> ErrorCode {
        caller.raise(held, "x", (Command::Quit, ())).await.0
    }

    #[tokio::test]
    async fn whoever_was_refused_and_asks_on_is_told_so_and_stands_in_nobodys_way() {
        let home = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(home.path(), World::default());
        let (mut refused, mut held) = (caller(&approvals, known(1)), None);
        let first = asks(&mut refused, &mut held).await;
        assert_eq!(first, ErrorCode::ApprovalRequired);
        approvals.deny("1").unwrap();
        held = None;
        for _ in 0..50 {
            let again = asks(&mut refused, &mut held).await;
            assert_eq!(again, ErrorCode::ApprovalDenied);
        }
        let other = asks(&mut caller(&approvals, known(2)), &mut None).await;
        assert_eq!(other, ErrorCode::ApprovalRequired);
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn who_is_of_another_user_or_of_none_that_can_be_told_is_no_question_to_the_owner() {
        let home = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(home.path(), World::default());
        let foreign = known(1).map(|peer| Peer {
            is_foreign: true,
            ..peer
        });
        // The system knows no connection from the second one's address.
        for peer in [foreign, None] {
            let mut held = None;
            let refused = asks(&mut caller(&approvals, peer), &mut held).await;
            assert_eq!(refused, ErrorCode::Unauthorized);
            assert!(held.is_none());
        }
        assert!(approvals.pairs().borrow().waiting.is_empty());
    }

    #[tokio::test]
    async fn leave_for_good_that_its_program_never_heard_of_is_taken_back() {
        let home = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(home.path(), World::default());
        let (mut program, mut held) = (caller(&approvals, known(1)), None);
        asks(&mut program, &mut held).await;
        approvals.approve("1", Consent::Always).await.unwrap();
        assert_eq!(approvals.pairs().borrow().allowed.len(), 1);
        program.leaves(held).await;
        assert!(approvals.pairs().borrow().allowed.is_empty());
        let again = Approvals::open(home.path(), World::default());
        assert!(again.pairs().borrow().allowed.is_empty());
    }

    #[tokio::test]
    async fn the_owners_word_in_the_last_moment_counts() {
        let home = tempfile::tempdir().unwrap();
        let approvals = Approvals::open(home.path(), World::default());
        let (mut program, mut held) = (caller(&approvals, known(1)), None);
        asks(&mut program, &mut held).await;
        approvals.approve("1", Consent::Once).await.unwrap();
        let pending = &mut held.as_mut().unwrap().pending;
        assert!(matches!(pending.last_word(), Some(Verdict::Once)));
        assert!(pending.last_word().is_none());
    }
}
