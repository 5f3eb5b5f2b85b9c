//! Authentication of requests, with one extractor per scope, so that every handler has to name the
//! scope it needs.

mod caller;
mod denied;
mod key_kind;

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use proto::{Account, ErrorCode, Timestamp};
use queue::{Ceiling, KeyId, KeyRecord, QueueError, Role, Scope, Serve, User};
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};

pub(crate) use self::{
    caller::{Caller, serves},
    denied::Denied,
    key_kind::{KeyKind, key_id_of_session, key_id_of_token, key_id_of_user},
};

use crate::{
    Relay,
    concurrency::{Repeat, WorkPermit},
    connections::ConnectionHandle,
    error::ApiError,
    jwt::{self, Bearer, Kind},
    peer::Peer,
    request_options,
    revocation::RevocationSlot,
    session,
};

/// A key from the request path, removed from the path before routing.
#[derive(Clone)]
pub(crate) struct PathKey(pub(crate) SecretString);

macro_rules! scope {
    ($(#[$doc:meta])* $name:ident, $scope:expr, $location:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) Caller);

        impl FromRequestParts<Relay> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, relay: &Relay) -> Result<Self, ApiError> {
                let mut caller = caller(parts, relay, $scope, $location).await?;
                caller.idempotency_key = request_options::idempotency_key(&parts.headers)?;
                caller.wanted_for = request_options::wanted_for(&parts.headers)?;
                caller.wanted_priority = request_options::priority(&parts.headers)?;
                caller.worker = request_options::worker(&parts.headers)?;
                caller.wants_position = request_options::wants_position(parts);
                Ok(Self(caller))
            }
        }
    };
}

scope! {
    /// Caller that may submit and cancel jobs.
    MayEnqueue, Scope::Enqueue, KeyLocation::Anywhere
}
scope! {
    /// Caller that may read jobs and models.
    MayRead, Scope::Read, KeyLocation::Anywhere
}
scope! {
    /// Caller that may lease and answer jobs.
    MayWork, Scope::Work, KeyLocation::Header
}
scope! {
    /// Caller that may lease and answer jobs through the polling protocol, whose workers cannot
    /// send headers.
    MayPoll, Scope::Work, KeyLocation::Anywhere
}

/// Caller that may change an engine's models, if the engine's owner allows it.
#[derive(Debug)]
pub(crate) struct MayChangeModels(pub(crate) Caller);

impl FromRequestParts<Relay> for MayChangeModels {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, relay: &Relay) -> Result<Self, ApiError> {
        match admit(parts, relay, Scope::Admin, KeyLocation::Header).await {
            Ok(mut caller) => {
                caller.wanted_for = request_options::wanted_for(&parts.headers)?;
                caller.worker = request_options::worker(&parts.headers)?;
                Ok(Self(caller))
            }
            Err(Denied::Scope(_) | Denied::KeyInPath) => Err(ApiError::new(
                ErrorCode::Forbidden,
                "changing models requires a key with the scope `admin`, sent in a header, and an \
                 agent whose owner allows it; or run `ollama pull`, `create`, `cp`, `rm` or `push` \
                 on the agent's machine",
            )),
            Err(denied) => Err(denied.into()),
        }
    }
}

scope! {
    /// Caller that may see all jobs and workers, and manage keys.
    MayAdmin, Scope::Admin, KeyLocation::Header
}

/// Parts of a request that may carry the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyLocation {
    /// A header or the path; proxies and browser histories may record the path.
    Anywhere,
    /// Headers only.
    Header,
}

async fn caller(
    parts: &Parts,
    relay: &Relay,
    scope: Scope,
    location: KeyLocation,
) -> Result<Caller, ApiError> {
    Ok(admit(parts, relay, scope, location).await?)
}

/// Authenticates a request and checks the scope, the rate limit and the connection limit.
pub(crate) async fn admit(
    parts: &Parts,
    relay: &Relay,
    scope: Scope,
    location: KeyLocation,
) -> Result<Caller, Denied> {
    if let Some(permit) = parts.extensions.get::<WorkPermit>() {
        // Who asks is only read. A handler that changes something notes it.
        permit.if_repeated(Repeat::Only);
    }
    let in_path = parts
        .extensions
        .get::<PathKey>()
        .map(|key| key.0.expose_secret());
    let shown = in_path.or_else(|| in_headers(&parts.headers));
    let (mut caller, scopes) = match identify(relay, shown).await {
        Ok(identified) => identified,
        Err(denied) => return stranger(parts, relay, shown, denied),
    };
    charge(parts, relay, &caller)?;
    caller.comes_with(parts);
    if !scopes.contains(&scope) {
        return Err(Denied::Scope(scope));
    }
    if in_path.is_some() {
        if location == KeyLocation::Header {
            return Err(Denied::KeyInPath);
        }
        caller.is_admin = false;
    }
    if let (Some(revocation), Some(key)) = (parts.extensions.get::<RevocationSlot>(), &caller.key) {
        revocation.note(relay.key_uses.begin(key.clone(), caller.until));
    }
    Ok(caller)
}

/// Whether a path belongs to the workers' carriers. They are not rate limited: slots and byte
/// limits bound them.
pub(crate) fn is_carrier(path: &str) -> bool {
    path.starts_with("/api/worker/")
}

type Identified = (Caller, BTreeSet<Scope>);

/// Finds whoever the shown key or token stands for.
async fn identify(relay: &Relay, shown: Option<&str>) -> Result<Identified, Denied> {
    match shown {
        None => Err(Denied::Nothing),
        Some(text) if session::looks_like_one(text) => {
            let (user, id, until) = relay.user_of_session(text).await?;
            Ok(of_user(user, key_id_of_session(id), until))
        }
        Some(text) if jwt::looks_like_one(text) => {
            let (user, until) = relay.user(text, Kind::Access).await?;
            let id = key_id_of_token(bearer_of(&user));
            Ok(of_user(user, id, until))
        }
        Some(text) => of_key(relay, text).await,
    }
}

/// Decides about a request without a valid key: `--insecure-dev` admits it, and everybody else is
/// refused, more and more slowly. It counts only if the store could be asked.
fn stranger(
    parts: &Parts,
    relay: &Relay,
    shown: Option<&str>,
    denied: Denied,
) -> Result<Caller, Denied> {
    if let Denied::Failed(error) = denied {
        return Err(Denied::Failed(error));
    }
    if relay.settings.insecure_dev && !shown.is_some_and(looks_like_ours) {
        let mut caller = anonymous().map_err(Denied::Failed)?;
        caller.comes_with(parts);
        return Ok(caller);
    }
    let peer = parts.extensions.get::<Peer>().copied();
    Err(match peer {
        Some(peer) => relay.rate_limits.throttle_denied(peer, denied, relay.now()),
        None => denied,
    })
}

/// Counts the request and its connection for whoever shows the key.
fn charge(parts: &Parts, relay: &Relay, caller: &Caller) -> Result<(), Denied> {
    let holder = caller.claimant();
    if let Some(connection) = parts.extensions.get::<ConnectionHandle>() {
        connection.count_for(&holder).map_err(Denied::Failed)?;
    }
    if !is_carrier(parts.uri.path()) {
        let paced = relay.rate_limits.take_request(&holder, relay.now());
        paced.map_err(Denied::Failed)?;
    }
    Ok(())
}

async fn of_key(relay: &Relay, text: &str) -> Result<Identified, Denied> {
    let record = relay.key(text).await.map_err(Denied::Failed)?;
    let record = record.ok_or(Denied::Key)?;
    if record.revoked_at.is_some() {
        return Err(Denied::Revoked);
    }
    let now = relay.wall_now();
    if record.has_expired(now) {
        return Err(Denied::Expired);
    }
    relay.note_used(&record, now);
    let caller = Caller {
        key: Some(record.id),
        until: record.expires_at,
        serve: record.serve,
        is_admin: record.scopes.contains(&Scope::Admin),
        ..Caller::on_behalf(record.account, record.name, record.ceiling)
    };
    Ok((caller, record.scopes))
}

/// Returns the caller for a user's token. `key` is the token's id, and `until` is its expiry.
fn of_user(user: User, key: KeyId, until: Timestamp) -> Identified {
    let User { id, new, .. } = user;
    let serve = match new.role {
        Role::User | Role::Service => Serve::Accounts([new.account.clone()].into()),
        Role::Admin => Serve::All,
    };
    let caller = Caller {
        key: Some(key),
        user: Some(id),
        until: Some(until),
        serve,
        is_admin: new.role == Role::Admin,
        ..Caller::on_behalf(new.account, new.name, Ceiling::default())
    };
    (caller, new.role.scopes())
}

const fn bearer_of(user: &User) -> Bearer {
    Bearer {
        user: user.id,
        generation: user.generation,
    }
}

impl Relay {
    /// Returns the user of a valid token, as stored now, and the token's expiry.
    pub(crate) async fn user(&self, text: &str, kind: Kind) -> Result<(User, Timestamp), Denied> {
        let key = self.token_key().await.map_err(Denied::Failed)?;
        let (bearer, until) =
            jwt::read(&key, kind, text, self.wall_now()).map_err(Denied::Token)?;
        let user = self.store.find_user(bearer.user).await;
        let user = user.map_err(|error| Denied::Failed(error.into()))?;
        let user = user.ok_or(Denied::Gone)?;
        if user.generation == bearer.generation {
            Ok((user, until))
        } else {
            Err(Denied::Token(jwt::TokenError::Void))
        }
    }

    /// Returns the secret that signs tokens.
    pub(crate) async fn token_key(&self) -> Result<Zeroizing<[u8; 32]>, ApiError> {
        Ok(Zeroizing::new(self.store.token_key(self.random()?).await?))
    }

    /// Whether a key, token or session is still valid. `keys` are all keys of the store.
    pub(crate) async fn in_force(
        &self,
        keys: &[KeyRecord],
        id: &KeyId,
        now: Timestamp,
    ) -> Result<bool, QueueError> {
        match KeyKind::of(id) {
            KeyKind::Session(session) => self.session_stands(session, now).await,
            KeyKind::Token(bearer) => {
                let user = self.store.find_user(bearer.user).await?;
                Ok(user.is_some_and(|user| bearer_of(&user) == bearer))
            }
            KeyKind::Key => {
                let mut keys = keys.iter();
                Ok(keys.any(|key| key.id == *id && key.is_in_force(now)))
            }
        }
    }
}

fn looks_like_ours(key: &str) -> bool {
    key.starts_with(crate::keys::PREFIX)
}

fn anonymous() -> Result<Caller, ApiError> {
    let account = Account::new("default").map_err(|_| ApiError::internal())?;
    let nobody = Caller::on_behalf(account, "anonymous".into(), Ceiling::default());
    Ok(Caller {
        serve: Serve::All,
        is_admin: true,
        ..nobody
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
