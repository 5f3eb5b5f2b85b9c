//! Ends requests and connections soon after their key was revoked or has expired.

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, future::ready, stream};
use parking_lot::Mutex;
use proto::{ErrorCode, Timestamp};
use queue::KeyId;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Denied, KeyKind},
    error::ApiError,
    jwt,
};

/// Id of a key or token, and its expiry.
type Credential = (KeyId, Option<Timestamp>);

/// Open requests and connections, by key.
#[derive(Debug, Default)]
pub(crate) struct KeyUses {
    in_use: Mutex<HashMap<Credential, Entry>>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct Entry {
    count: usize,
    revoked: CancellationToken,
}

/// Registration of one open request or connection; dropped when it ends.
#[derive(Debug)]
pub(crate) struct KeyUse {
    key_uses: Arc<KeyUses>,
    credential: Credential,
    revoked: CancellationToken,
}

impl KeyUses {
    pub(crate) fn begin(self: &Arc<Self>, key: KeyId, until: Option<Timestamp>) -> KeyUse {
        let credential = (key, until);
        let revoked = {
            let mut in_use = self.in_use.lock();
            let in_use = in_use.entry(credential.clone()).or_default();
            in_use.count += 1;
            in_use.revoked.clone()
        };
        self.begun.notify_one();
        KeyUse {
            key_uses: self.clone(),
            credential,
            revoked,
        }
    }

    /// Waits until at least one request or connection is open.
    pub(crate) async fn any(&self) {
        while self.in_use.lock().is_empty() {
            self.begun.notified().await;
        }
    }

    /// Returns the keys in use with the token that ends their requests and connections.
    pub(crate) fn all(&self) -> Vec<(Credential, CancellationToken)> {
        let in_use = self.in_use.lock();
        let in_use = in_use.iter();
        in_use
            .map(|(credential, in_use)| (credential.clone(), in_use.revoked.clone()))
            .collect()
    }

    /// Ends all requests and connections with this key.
    pub(crate) fn revoke(&self, id: &str) {
        let in_use = self.in_use.lock();
        let of_it = in_use.iter().filter(|((key, _), _)| key == id);
        of_it.for_each(|(_, in_use)| in_use.revoked.cancel());
    }
}

impl KeyUse {
    pub(crate) async fn revoked(&self) {
        self.revoked.cancelled().await;
    }
}

impl Drop for KeyUse {
    fn drop(&mut self) {
        let mut in_use = self.key_uses.in_use.lock();
        if let Some(here) = in_use.get_mut(&self.credential) {
            here.count -= 1;
            if here.count == 0 {
                in_use.remove(&self.credential);
            }
        }
    }
}

/// Request extension through which authentication hands the caller's registration to the outer
/// service, to end the response on revocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct RevocationSlot(Arc<watch::Sender<Option<Arc<KeyUse>>>>);

impl RevocationSlot {
    pub(crate) fn note(&self, key_use: KeyUse) {
        self.0.send_replace(Some(Arc::new(key_use)));
    }

    /// Answers the request, unless its key is revoked first. A streaming response whose key is
    /// revoked later is broken off with an error.
    pub(crate) async fn respond(
        &self,
        answer: impl Future<Output = Response>,
        now: impl Fn() -> Timestamp,
    ) -> Response {
        let response = tokio::select! {
            response = answer => response,
            credential = self.revoked() => return ended(&credential, now()).into_response(),
        };
        match self.0.borrow().clone() {
            Some(key_use) if response.body().size_hint().exact().is_none() => {
                response.map(|body| until_revoked(body, key_use))
            }
            Some(_) | None => response,
        }
    }

    /// Waits until the key that was noted is no longer valid.
    async fn revoked(&self) -> Credential {
        let mut noted = self.0.subscribe();
        let key_use = noted.wait_for(Option::is_some).await;
        // The sender lives as long as `self`.
        let key_use = key_use.ok().and_then(|key_use| key_use.clone());
        match key_use {
            Some(key_use) => {
                key_use.revoked().await;
                key_use.credential.clone()
            }
            None => std::future::pending().await,
        }
    }
}

/// Returns the error for a key that stopped being valid during a request; an expired one has the
/// error that new requests get.
fn ended((key, until): &Credential, now: Timestamp) -> ApiError {
    let expired = jwt::TokenError::Expired;
    if until.is_none_or(|until| until > now) {
        let message = "the key or token was revoked during the request; get a new one";
        return ApiError::new(ErrorCode::Unauthorized, message);
    }
    match KeyKind::of(key) {
        KeyKind::Session(_) => Denied::Session(expired).into(),
        KeyKind::Token(_) => Denied::Token(expired).into(),
        KeyKind::Key => Denied::Expired.into(),
    }
}

fn until_revoked(body: Body, key_use: Arc<KeyUse>) -> Body {
    let revoked = key_use.revoked.clone().cancelled_owned();
    let data = body.into_data_stream().take_until(revoked);
    let broken_off = stream::once(async move {
        let is_revoked = key_use.revoked.is_cancelled();
        is_revoked.then(|| Err(axum::Error::new("the key was revoked")))
    });
    Body::from_stream(data.chain(broken_off.filter_map(ready)))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::auth::key_id_of_session;

    #[test]
    fn whoever_is_cut_is_told_why_as_at_the_door() {
        let at = |until, now| {
            let session = key_id_of_session(queue::SessionId([7; 16]));
            let in_use = [session, "user-1-2".into(), "k1".into()];
            in_use.map(|key| ended(&(key, until), Timestamp(now)))
        };
        let codes = |told: [ApiError; 3]| told.map(|error| error.code);
        let (revoked, expired) = (ErrorCode::Unauthorized, ErrorCode::TokenExpired);
        assert_eq!(codes(at(None, 9)), [revoked; 3]);
        assert_eq!(codes(at(Some(Timestamp(9)), 8)), [revoked; 3]);
        let over = codes(at(Some(Timestamp(9)), 9));
        assert_eq!(over, [expired, revoked, ErrorCode::KeyExpired]);
        let [_, older, _] = at(Some(Timestamp(9)), 9);
        assert!(older.message.contains("/api/token/refresh/"), "{older}");
    }

    #[test]
    fn nobody_is_looked_after_once_all_have_left() {
        let key_uses = Arc::new(KeyUses::default());
        assert_eq!(key_uses.any().now_or_never(), None);
        let (one, two) = (
            key_uses.begin("a".into(), None),
            key_uses.begin("a".into(), None),
        );
        drop(one);
        assert_eq!(key_uses.any().now_or_never(), Some(()));
        assert_eq!(key_uses.all().len(), 1);
        drop(two);
        // An earlier notification may still be stored; it finds nothing open.
        assert_eq!(key_uses.any().now_or_never(), None);
        assert!(key_uses.all().is_empty());
    }

    #[test]
    fn whoever_is_inside_with_a_key_is_cut_when_it_is_revoked_and_nobody_else() {
        let key_uses = Arc::new(KeyUses::default());
        let begin = |key: &str, until| key_uses.begin(key.into(), until);
        let of_it = [
            begin("a", None),
            begin("a", None),
            begin("a", Some(Timestamp(9))),
        ];
        let other = begin("ab", None);
        key_uses.revoke("b");
        assert!(
            of_it
                .iter()
                .all(|key_use| key_use.revoked().now_or_never().is_none())
        );
        key_uses.revoke("a");
        assert!(
            of_it
                .iter()
                .all(|key_use| key_use.revoked().now_or_never().is_some())
        );
        assert_eq!(other.revoked().now_or_never(), None);
    }
}
