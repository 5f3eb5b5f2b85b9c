//! An authenticated caller: its identity, its rights, and the job options of its request.

use std::{collections::BTreeSet, time::Duration};

use http::request::Parts;
use proto::{Account, ErrorCode, ModelName, Priority, Timestamp, WorkerId};
use queue::{Ceiling, IdempotencyKey, KeyId, Owner, Serve, UserId};

use super::{KeyKind, key_id_of_user};
use crate::{
    concurrency::{Repeat, WorkPermit},
    connections::ConnectionHandle,
    error::ApiError,
    intake::Attendance,
};

/// Caller of a request, with a valid key or token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None` for a caller without a key under `--insecure-dev`. For a user, the id that stands for
    /// its session or for the generation of its tokens, see [`KeyKind`].
    pub(crate) key: Option<KeyId>,
    /// User of the token, if the caller shows a login's token.
    pub(crate) user: Option<UserId>,
    /// Expiry of the key or token.
    pub(crate) until: Option<Timestamp>,
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) serve: Serve,
    /// Limits of the key on models and priorities.
    pub(crate) ceiling: Ceiling,
    pub(super) is_admin: bool,
    /// The `idempotency-key` of the request.
    pub(super) idempotency_key: Option<String>,
    /// Time within which the answer is wanted, from the request's header.
    pub(crate) wanted_for: Option<Duration>,
    /// Priority, from the request's header.
    pub(crate) wanted_priority: Option<Priority>,
    /// Only worker that may answer, from the request's header.
    pub(crate) worker: Option<WorkerId>,
    /// Whether the queue position is sent as a thought of the model.
    pub(crate) wants_position: bool,
    /// Slot of the request in the limit on concurrent requests.
    pub(super) work_permit: Option<WorkPermit>,
    /// Connection of the request; it counts for the caller also after an upgrade to a WebSocket.
    pub(super) connection: Option<ConnectionHandle>,
}

impl Caller {
    /// Creates a caller for work that continues after its client has disconnected.
    pub(crate) const fn on_behalf(account: Account, name: String, ceiling: Ceiling) -> Self {
        Self {
            key: None,
            user: None,
            until: None,
            name,
            account,
            serve: Serve::Accounts(BTreeSet::new()),
            ceiling,
            is_admin: false,
            idempotency_key: None,
            wanted_for: None,
            wanted_priority: None,
            worker: None,
            wants_position: false,
            work_permit: None,
            connection: None,
        }
    }

    /// Takes over what the relay knows of the request.
    pub(super) fn comes_with(&mut self, parts: &Parts) {
        self.connection = parts.extensions.get().cloned();
        self.work_permit = parts.extensions.get().cloned();
    }

    /// Notes what a repeat of the request does from now on. See [`WorkPermit::if_repeated`].
    pub(crate) fn if_repeated(&self, repeat: Repeat) {
        if let Some(permit) = &self.work_permit {
            permit.if_repeated(repeat);
        }
    }

    /// Whether the relay gave the request up, because its work took too long.
    pub(crate) fn is_given_up(&self) -> bool {
        let permit = self.work_permit.as_ref();
        permit.is_some_and(WorkPermit::is_given_up)
    }

    /// Releases the request's slot, because it only waits from now on.
    pub(crate) fn pause_work(&self) {
        if let Some(work_permit) = &self.work_permit {
            work_permit.pause();
        }
    }

    /// Returns the accounts whose jobs this caller may see.
    pub(crate) const fn owner(&self) -> Owner<'_> {
        if self.is_admin {
            Owner::Anyone
        } else {
            Owner::Account(&self.account)
        }
    }

    /// Refuses a model that the key may not use, whether or not a worker has it.
    pub(crate) fn permit(&self, model: &ModelName) -> Result<(), ApiError> {
        if self.ceiling.models.allow(model) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::ModelForbidden,
            format!(
                "the key does not permit the model {model}; /api/tags lists the permitted ones"
            ),
        ))
    }

    /// Returns the priority of a job: the one that its body or else the request's header asks for,
    /// if the key allows it, or else `usual`, lowered to what the key allows.
    pub(crate) fn priority(
        &self,
        said: Option<Priority>,
        usual: Priority,
    ) -> Result<Priority, ApiError> {
        let Some(said) = said.or(self.wanted_priority) else {
            return Ok(self.ceiling.lowered(usual));
        };
        if self.ceiling.allows(said) {
            return Ok(said);
        }
        let most = self.ceiling.lowered(said).level();
        let message = format!("the key permits priorities {most} to 10 only (1 is the highest)");
        Err(ApiError::new(ErrorCode::PriorityForbidden, message))
    }

    /// Returns the request's idempotency key, if it has one, with the digest of the request.
    pub(crate) fn idempotency_key(
        &self,
        fingerprint: impl FnOnce() -> [u8; 32],
    ) -> Option<IdempotencyKey> {
        let key = self.idempotency_key.clone()?;
        let fingerprint = fingerprint();
        Some(IdempotencyKey { key, fingerprint })
    }

    /// Whether this caller's jobs may wait for a worker that is offline.
    pub(crate) const fn attendance(&self) -> Attendance {
        if self.wanted_for.is_some() {
            Attendance::Kept
        } else {
            Attendance::Now
        }
    }

    /// Whether the caller shows a session's token, which the query service does not accept.
    pub(crate) fn is_of_session(&self) -> bool {
        let key = self.key.as_deref();
        key.is_some_and(|key| matches!(KeyKind::of(key), KeyKind::Session(_)))
    }

    /// Returns an id of the holder of claims and budgets; for a user it is the same after each
    /// login.
    pub(crate) fn claimant(&self) -> String {
        match self.user {
            Some(user) => key_id_of_user(user),
            None => self.key_id().to_owned(),
        }
    }

    /// Returns the caller's name and [`Caller::claimant`], for the log.
    pub(crate) fn in_log(&self) -> String {
        format!("{} ({})", self.name, self.claimant())
    }

    /// Returns the id of the caller's key, for use as part of a worker's name.
    pub(crate) fn key_id(&self) -> &str {
        self.key.as_deref().unwrap_or("anonymous")
    }
}

/// Whether a worker with this key may hold a job of this account.
pub(crate) fn serves(serve: &Serve, account: &Account) -> bool {
    serve.includes(account)
}
