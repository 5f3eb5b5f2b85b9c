//! Who calls, and what for: one extractor per scope, so that no handler can forget to ask.

use std::{collections::BTreeSet, time::Duration};

use axum::extract::FromRequestParts;
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use proto::{Account, ErrorCode, ModelName, Priority, Timestamp, WorkerId};
use queue::{Ceiling, KeyId, KeyRecord, Once, Owner, QueueError, Role, Scope, Serve, User, UserId};

use crate::{
    Relay,
    entrance::Newcomer,
    error::ApiError,
    guard::AtWork,
    intake::Patience,
    jwt::{self, Bearer, Kind},
    pass::Slip,
    peer::Peer,
    session, wishes,
};

/// A key that stood in the path, taken out of it before routing.
#[derive(Clone)]
pub(crate) struct PathKey(pub(crate) String);

/// A caller whose key or token is good.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None` for a caller without key under `--insecure-dev`. For a user, what names the
    /// generation of his tokens, see [`token_id`].
    pub(crate) key: Option<KeyId>,
    /// Who logged in, if the caller shows a token of a login.
    pub(crate) user: Option<UserId>,
    /// Until when his token opens doors. A key's end stands in its record.
    pub(crate) until: Option<Timestamp>,
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) serve: Serve,
    /// How far the key reaches.
    pub(crate) ceiling: Ceiling,
    is_admin: bool,
    /// The `idempotency-key` of the request.
    once: Option<String>,
    /// How long the answer is wanted, as the request's header says.
    pub(crate) wanted_for: Option<Duration>,
    /// The only worker that shall answer, as the request's header says.
    pub(crate) worker: Option<WorkerId>,
    /// The place in the queue shall be told as a thought of the model.
    pub(crate) wants_place: bool,
    /// His request's place among those at work.
    at_work: Option<AtWork>,
    /// It counts for him also when it is a connection of another kind by now.
    connection: Option<Newcomer>,
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
            Some(user) => format!("user-{user}"),
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

macro_rules! scope {
    ($(#[$doc:meta])* $name:ident, $scope:expr, $place:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) Caller);

        impl FromRequestParts<Relay> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, relay: &Relay) -> Result<Self, ApiError> {
                let mut caller = caller(parts, relay, $scope, $place).await?;
                caller.once = wishes::once(&parts.headers)?;
                caller.wanted_for = wishes::wanted_for(&parts.headers)?;
                caller.worker = wishes::worker(&parts.headers)?;
                caller.wants_place = wishes::wants_place(parts);
                Ok(Self(caller))
            }
        }
    };
}

scope! {
    /// May submit and cancel jobs.
    MayEnqueue, Scope::Enqueue, Place::Anywhere
}
scope! {
    /// May read jobs and models.
    MayRead, Scope::Read, Place::Anywhere
}
scope! {
    /// May lease and answer jobs.
    MayWork, Scope::Work, Place::Header
}
scope! {
    /// May lease and answer jobs as a worker of the polling relay, which can send no header.
    MayPoll, Scope::Work, Place::Anywhere
}

/// May change which models an engine has, if its owner allows it.
#[derive(Debug)]
pub(crate) struct MayChangeModels(pub(crate) Caller);

impl FromRequestParts<Relay> for MayChangeModels {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, relay: &Relay) -> Result<Self, ApiError> {
        match admit(parts, relay, Scope::Admin, Place::Header).await {
            Ok(mut caller) => {
                caller.wanted_for = wishes::wanted_for(&parts.headers)?;
                caller.worker = wishes::worker(&parts.headers)?;
                Ok(Self(caller))
            }
            Err(Denied::Scope(_) | Denied::Place) => Err(ApiError::new(
                ErrorCode::Forbidden,
                "models are changed with a key that has the scope `admin`, in a header, and only \
                 at agents whose owner allows it; or run `ollama pull`, `create`, `cp`, `rm` or \
                 `push` on the machine that has them",
            )),
            Err(denied) => Err(denied.into()),
        }
    }
}

scope! {
    /// May see everybody's jobs and workers, and change the keys.
    MayAdmin, Scope::Admin, Place::Header
}

/// Where a key may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the path too, where proxies and histories may keep it.
    Anywhere,
    /// In a header only.
    Header,
}

async fn caller(
    parts: &Parts,
    relay: &Relay,
    scope: Scope,
    place: Place,
) -> Result<Caller, ApiError> {
    Ok(admit(parts, relay, scope, place).await?)
}

/// Who calls, if he may.
pub(crate) async fn admit(
    parts: &Parts,
    relay: &Relay,
    scope: Scope,
    place: Place,
) -> Result<Caller, Denied> {
    let in_path = parts.extensions.get::<PathKey>().map(|key| key.0.as_str());
    let shown = in_path.or_else(|| in_headers(&parts.headers));
    let known = match shown {
        None => Err(Denied::Nothing),
        Some(text) if session::looks_like_one(text) => {
            let known = relay.user_of_session(text).await;
            known.map(|(user, id, until)| of_user(user, session::key_id(id), until))
        }
        Some(text) if jwt::looks_like_one(text) => {
            let known = relay.user(text, Kind::Access).await;
            known.map(|(user, until)| {
                let id = token_id(bearer_of(&user));
                of_user(user, id, until)
            })
        }
        Some(text) => of_key(relay, text).await,
    };
    let (mut caller, scopes) = match known {
        Err(Denied::Failed(error)) => return Err(Denied::Failed(error)),
        Err(_) if relay.settings.insecure_dev && !shown.is_some_and(looks_like_ours) => {
            return anonymous().map_err(Denied::Failed);
        }
        Err(denied) => {
            let peer = parts.extensions.get::<Peer>().copied();
            let now = relay.now();
            return Err(match peer {
                Some(peer) => relay.guard.denied(peer, denied, now),
                None => denied,
            });
        }
        Ok(known) => known,
    };
    if let Some(newcomer) = parts.extensions.get::<Newcomer>()
        && caller.key.is_some()
    {
        newcomer
            .goes_in(&caller.claimant())
            .map_err(Denied::Failed)?;
        caller.connection = Some(newcomer.clone());
    }
    if caller.key.is_some() && !is_carrier(parts.uri.path()) {
        let paced = relay.guard.pace(&caller.claimant(), relay.now());
        paced.map_err(Denied::Failed)?;
    }
    if !scopes.contains(&scope) {
        return Err(Denied::Scope(scope));
    }
    if in_path.is_some() {
        if place == Place::Header {
            return Err(Denied::Place);
        }
        caller.is_admin = false;
    }
    caller.at_work = parts.extensions.get().cloned();
    if let (Some(slip), Some(key)) = (parts.extensions.get::<Slip>(), &caller.key) {
        slip.note(relay.passes.enter(key.clone(), caller.until));
    }
    Ok(caller)
}

/// What workers say to their carrier: slots and bytes bound that.
pub(crate) fn is_carrier(path: &str) -> bool {
    path.starts_with("/api/worker/")
}

type Known = (Caller, BTreeSet<Scope>);

async fn of_key(relay: &Relay, text: &str) -> Result<Known, Denied> {
    let record = relay.key(text).await.map_err(Denied::Failed)?;
    let record = record.ok_or(Denied::Key)?;
    if record.revoked_at.is_some() {
        return Err(Denied::Revoked);
    }
    let now = relay.now();
    if record.has_expired(now) {
        return Err(Denied::Expired);
    }
    relay.note_used(&record, now);
    let caller = Caller {
        key: Some(record.id),
        user: None,
        until: None,
        name: record.name,
        account: record.account,
        serve: record.serve,
        ceiling: record.ceiling,
        is_admin: record.scopes.contains(&Scope::Admin),
        once: None,
        wanted_for: None,
        worker: None,
        wants_place: false,
        at_work: None,
        connection: None,
    };
    Ok((caller, record.scopes))
}

/// `key` names what he shows, and `until` is when it opens nothing more.
fn of_user(user: User, key: KeyId, until: Timestamp) -> Known {
    let User { id, new, .. } = user;
    let serve = match new.role {
        Role::User | Role::Service => Serve::Accounts([new.account.clone()].into()),
        Role::Admin => Serve::All,
    };
    let caller = Caller {
        key: Some(key),
        user: Some(id),
        until: Some(until),
        name: new.name,
        account: new.account,
        serve,
        ceiling: Ceiling::default(),
        is_admin: new.role == Role::Admin,
        once: None,
        wanted_for: None,
        worker: None,
        wants_place: false,
        at_work: None,
        connection: None,
    };
    (caller, new.role.scopes())
}

const fn bearer_of(user: &User) -> Bearer {
    Bearer {
        user: user.id,
        generation: user.generation,
    }
}

/// Names a generation of a user's tokens where keys are named. No key has such an id.
fn token_id(bearer: Bearer) -> KeyId {
    format!("user-{}-{}", bearer.user, bearer.generation)
}

impl Relay {
    /// The user that a token speaks for, as he is now, and until when it does.
    pub(crate) async fn user(&self, text: &str, kind: Kind) -> Result<(User, Timestamp), Denied> {
        let key = self.token_key().await.map_err(Denied::Failed)?;
        let (bearer, until) = jwt::read(&key, kind, text, self.now()).map_err(Denied::Token)?;
        let user = self.store.find_user(bearer.user).await;
        let user = user.map_err(|error| Denied::Failed(error.into()))?;
        let user = user.ok_or(Denied::Gone)?;
        if user.generation == bearer.generation {
            Ok((user, until))
        } else {
            Err(Denied::Token(jwt::Refused::Void))
        }
    }

    /// What tokens are signed with.
    pub(crate) async fn token_key(&self) -> Result<[u8; 32], ApiError> {
        Ok(self.store.token_key(self.random()?).await?)
    }

    /// Whether what a connection was opened with still opens doors; `keys` are all there are.
    pub(crate) async fn in_force(
        &self,
        keys: &[KeyRecord],
        id: &KeyId,
        now: Timestamp,
    ) -> Result<bool, QueueError> {
        if let Some(session) = session::of_key_id(id) {
            return self.session_stands(session, now).await;
        }
        let Some(user) = id.strip_prefix("user-") else {
            let mut keys = keys.iter();
            return Ok(keys.any(|key| key.id == *id && key.is_in_force(now)));
        };
        let user = user.split_once('-').and_then(|(user, _)| user.parse().ok());
        let Some(user) = user else { return Ok(false) };
        let user = self.store.find_user(user).await?;
        Ok(user.is_some_and(|user| token_id(bearer_of(&user)) == *id))
    }
}

/// Why a caller is not let in.
#[derive(Debug)]
pub(crate) enum Denied {
    /// He showed nothing.
    Nothing,
    /// He showed a key that is not one.
    Key,
    /// His key was good until it was revoked.
    Revoked,
    /// His key was good until its time had passed.
    Expired,
    /// He showed a token that is not one, or not any more.
    Token(jwt::Refused),
    /// The same of a session's token.
    Session(jwt::Refused),
    /// His token renewed a session before.
    Reused,
    /// His token is good, but he himself was removed.
    Gone,
    /// He is known, but may not do this.
    Scope(Scope),
    /// He may, but not with a key in the path.
    Place,
    /// It could not be found out.
    Failed(ApiError),
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let unauthorized = |message: &str| Self::new(ErrorCode::Unauthorized, message);
        match denied {
            Denied::Nothing => unauthorized(
                "no key was sent; send `Authorization: Bearer KEY` or `x-api-key: KEY`",
            ),
            Denied::Key => unauthorized("the key is unknown or mistyped; ask for a new one"),
            Denied::Revoked => unauthorized("the key was revoked; ask for a new one"),
            Denied::Expired => Self::new(
                ErrorCode::KeyExpired,
                "the key has expired; ask for a new one",
            ),
            Denied::Token(jwt::Refused::Expired) => {
                unauthorized("the token has expired; get a new one from /api/token/refresh/")
            }
            Denied::Token(jwt::Refused::Invalid | jwt::Refused::Void | jwt::Refused::Kind)
            | Denied::Gone => unauthorized("the token is void; log in again at /api/login/"),
            Denied::Session(jwt::Refused::Expired) => Self::new(
                ErrorCode::TokenExpired,
                "the token has expired; get new ones from /api/sessions/renew, or log in again",
            ),
            Denied::Session(jwt::Refused::Kind) => unauthorized(
                "the token is for another purpose; the access_token opens routes, and the \
                 refresh_token is for /api/sessions/renew and /api/sessions/end",
            ),
            Denied::Session(jwt::Refused::Invalid | jwt::Refused::Void) => {
                unauthorized("the token is void; log in again at /api/sessions")
            }
            Denied::Reused => Self::new(
                ErrorCode::TokenReused,
                "the refresh token was shown before, so its session has ended; log in again at \
                 /api/sessions",
            ),
            Denied::Scope(scope) => {
                let scope = scope.as_str();
                let message = format!("the key lacks the scope `{scope}`; use one that has it");
                Self::new(ErrorCode::Forbidden, message)
            }
            Denied::Place => Self::new(
                ErrorCode::Forbidden,
                "a key in the path may only ask and read, whatever else it may do; \
                 send it as `Authorization: Bearer KEY`",
            ),
            Denied::Failed(error) => error,
        }
    }
}

fn looks_like_ours(key: &str) -> bool {
    key.starts_with(crate::keys::PREFIX)
}

fn anonymous() -> Result<Caller, ApiError> {
    Ok(Caller {
        key: None,
        user: None,
        until: None,
        name: "anonymous".into(),
        account: Account::new("default").map_err(|_| ApiError::internal())?,
        serve: Serve::All,
        ceiling: Ceiling::default(),
        is_admin: true,
        once: None,
        wanted_for: None,
        worker: None,
        wants_place: false,
        at_work: None,
        connection: None,
    })
}

pub(crate) fn in_headers(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}
