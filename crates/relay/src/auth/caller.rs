//! Somebody who was let in, and what he may and wants.

use std::{collections::BTreeSet, time::Duration};

use proto::{Account, ErrorCode, ModelName, Priority, Timestamp, WorkerId};
use queue::{Ceiling, KeyId, Once, Owner, Serve, UserId};

use crate::{
    entrance::Newcomer,
    error::ApiError,
    guard::{AtWork, of_user},
    intake::Patience,
    session,
};

/// A caller whose key or token is good.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None` for a caller without key under `--insecure-dev`. For a user, what names the
    /// generation of his tokens, see [`super::token_id`].
    pub(crate) key: Option<KeyId>,
    /// Who logged in, if the caller shows a token of a login.
    pub(crate) user: Option<UserId>,
    /// Until when his key or token opens doors.
    pub(crate) until: Option<Timestamp>,
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) serve: Serve,
    /// How far the key reaches.
    pub(crate) ceiling: Ceiling,
    pub(super) is_admin: bool,
    /// The `idempotency-key` of the request.
    pub(super) once: Option<String>,
    /// How long the answer is wanted, as the request's header says.
    pub(crate) wanted_for: Option<Duration>,
    /// The only worker that shall answer, as the request's header says.
    pub(crate) worker: Option<WorkerId>,
    /// The place in the queue shall be told as a thought of the model.
    pub(crate) wants_place: bool,
    /// His request's place among those at work.
    pub(super) at_work: Option<AtWork>,
    /// It counts for him also when it is a connection of another kind by now.
    pub(super) connection: Option<Newcomer>,
}

impl Caller {
    /// Who asked for something that is still done for him when he has left.
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
            once: None,
            wanted_for: None,
            worker: None,
            wants_place: false,
            at_work: None,
            connection: None,
        }
    }

    /// What is left of his request is waiting.
    pub(crate) fn rests(&self) {
        if let Some(at_work) = &self.at_work {
            at_work.rests();
        }
    }

    /// Whose jobs this caller may see.
    pub(crate) const fn owner(&self) -> Owner<'_> {
        if self.is_admin {
            Owner::Anyone
        } else {
            Owner::Account(&self.account)
        }
    }

    /// Refuses a model that the key may not ask for, whether or not anybody has it.
    pub(crate) fn permit(&self, model: &ModelName) -> Result<(), ApiError> {
        if self.ceiling.models.allow(model) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::ModelForbidden,
            format!("the key may not ask for the model {model}; /api/tags lists those it may"),
        ))
    }

    /// How urgent a job is: as he said, if his key allows it, else as urgent as is usual for what
    /// he asks and allowed.
    pub(crate) fn priority(
        &self,
        said: Option<Priority>,
        usual: Priority,
    ) -> Result<Priority, ApiError> {
        let Some(said) = said else {
            return Ok(self.ceiling.lowered(usual));
        };
        if self.ceiling.allows(said) {
            return Ok(said);
        }
        let most = self.ceiling.lowered(said).level();
        let message = format!("the key's jobs have at most the priority {most} (1 is the highest)");
        Err(ApiError::new(ErrorCode::PriorityForbidden, message))
    }

    /// The caller's name for a request, if he gave it one, and the digest it stands for.
    pub(crate) fn once(&self, fingerprint: impl FnOnce() -> [u8; 32]) -> Option<Once> {
        let key = self.once.clone()?;
        let fingerprint = fingerprint();
        Some(Once { key, fingerprint })
    }

    /// Whether this caller's requests may wait for a worker that is away.
    pub(crate) const fn patience(&self) -> Patience {
        if self.wanted_for.is_some() {
            Patience::Kept
        } else {
            Patience::Now
        }
    }

    /// Whether he shows a token of a session, which is none of the query service's.
    pub(crate) fn is_of_session(&self) -> bool {
        let key = self.key.as_deref();
        key.is_some_and(|key| session::of_key_id(key).is_some())
    }

    /// Names whoever claims something, however often he logs in.
    pub(crate) fn claimant(&self) -> String {
        match self.user {
            Some(user) => of_user(user),
            None => self.key_id().to_owned(),
        }
    }

    /// Names the caller among workers.
    pub(crate) fn key_id(&self) -> &str {
        self.key.as_deref().unwrap_or("anonymous")
    }
}

/// Whether a worker with this key may hold a job of this account.
pub(crate) fn serves(serve: &Serve, account: &Account) -> bool {
    serve.includes(account)
}
