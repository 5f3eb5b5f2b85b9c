//! Who calls, and what for: one extractor per scope, so that no handler can forget to ask.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use proto::{Account, ErrorCode};
use queue::{KeyId, Once, Owner, Scope, Serve};

use crate::{Relay, error::ApiError, intake::Patience, wishes};

/// A key that stood in the path, taken out of it before routing.
#[derive(Clone)]
pub(crate) struct PathKey(pub(crate) String);

/// A caller whose key is good.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None` for a caller without key under `--insecure-dev`.
    pub(crate) key: Option<KeyId>,
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) serve: Serve,
    is_admin: bool,
    /// The `idempotency-key` of the request.
    once: Option<String>,
    /// How long the answer is wanted, as the request's header says.
    pub(crate) wanted_for: Option<Duration>,
}

impl Caller {
    /// Whose jobs this caller may see.
    pub(crate) const fn owner(&self) -> Owner<'_> {
        if self.is_admin {
            Owner::Anyone
        } else {
            Owner::Account(&self.account)
        }
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

    /// Names the caller among workers.
    pub(crate) fn key_id(&self) -> &str {
        self.key.as_deref().unwrap_or("anonymous")
    }
}

/// Whether a worker with this key may hold a job of this account.
pub(crate) fn serves(serve: &Serve, account: &Account) -> bool {
    match serve {
        Serve::All => true,
        Serve::Accounts(accounts) => accounts.contains(account),
    }
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

/// Where a key may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
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
    let in_path = parts.extensions.get::<PathKey>().map(|key| key.0.as_str());
    let shown = in_path.or_else(|| in_headers(&parts.headers));
    if relay.settings.insecure_dev && !shown.is_some_and(looks_like_ours) {
        return anonymous();
    }
    let Some(text) = shown else {
        return Err(unauthorized(
            "no key was sent; send `Authorization: Bearer KEY` or `x-api-key: KEY`",
        ));
    };
    let Some(record) = relay.key(text).await? else {
        return Err(unauthorized(
            "the key is unknown, mistyped or revoked; ask for a new one",
        ));
    };
    if !record.scopes.contains(&scope) {
        let scope = match scope {
            Scope::Enqueue => "enqueue",
            Scope::Read => "read",
            Scope::Work => "work",
            Scope::Admin => "admin",
        };
        let message = format!("the key lacks the scope `{scope}`; use one that has it");
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    if in_path.is_some() && place == Place::Header {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            "a key in the path may only ask and read, whatever else it may do; \
             send it as `Authorization: Bearer KEY`",
        ));
    }
    Ok(Caller {
        key: Some(record.id),
        name: record.name,
        account: record.account,
        serve: record.serve,
        is_admin: in_path.is_none() && record.scopes.contains(&Scope::Admin),
        once: None,
        wanted_for: None,
    })
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, message)
}

fn looks_like_ours(key: &str) -> bool {
    key.starts_with(crate::keys::PREFIX)
}

fn anonymous() -> Result<Caller, ApiError> {
    Ok(Caller {
        key: None,
        name: "anonymous".into(),
        account: Account::new("default").map_err(|_| ApiError::internal())?,
        serve: Serve::All,
        is_admin: true,
        once: None,
        wanted_for: None,
    })
}

fn in_headers(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}
