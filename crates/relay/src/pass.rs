//! Ends requests and connections soon after their key was revoked or has expired.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, future::ready, stream};
use proto::{ErrorCode, Timestamp};
use queue::KeyId;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Denied, is_of_user},
    error::ApiError,
    jwt, session,
};

/// Id of a key or token, and its expiry.
type Shown = (KeyId, Option<Timestamp>);

/// Open requests and connections, by key.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    inside: Mutex<HashMap<Shown, Inside>>,
    entered: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    count: usize,
    revoked: CancellationToken,
}

/// Registration of one open request or connection; dropped when it ends.
#[derive(Debug)]
pub(crate) struct Pass {
    passes: Arc<Passes>,
    shown: Shown,
    revoked: CancellationToken,
}

impl Passes {
    pub(crate) fn enter(self: &Arc<Self>, key: KeyId, until: Option<Timestamp>) -> Pass {
        let shown = (key, until);
        let revoked = {
            let mut inside = self.lock();
            let inside = inside.entry(shown.clone()).or_default();
            inside.count += 1;
            inside.revoked.clone()
        };
        self.entered.notify_one();
        Pass {
            passes: self.clone(),
            shown,
            revoked,
        }
    }

    /// Waits until at least one request or connection is open.
    pub(crate) async fn somebody(&self) {
        while self.lock().is_empty() {
            self.entered.notified().await;
        }
    }

    /// Returns the keys in use with the token that ends their requests and connections.
    pub(crate) fn inside(&self) -> Vec<(Shown, CancellationToken)> {
        let inside = self.lock();
        let inside = inside.iter();
        inside
            .map(|(shown, inside)| (shown.clone(), inside.revoked.clone()))
            .collect()
    }

    /// Ends all requests and connections with this key.
    pub(crate) fn revoke(&self, id: &str) {
        let inside = self.lock();
        let of_it = inside.iter().filter(|((key, _), _)| key == id);
        of_it.for_each(|(_, inside)| inside.revoked.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Shown, Inside>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    pub(crate) async fn revoked(&self) {
        self.revoked.cancelled().await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.passes.lock();
        if let Some(here) = inside.get_mut(&self.shown) {
            here.count -= 1;
            if here.count == 0 {
                inside.remove(&self.shown);
            }
        }
    }
}

/// Request extension through which authentication hands the caller's registration to the outer
/// service, to end the response on revocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slip(Arc<watch::Sender<Option<Arc<Pass>>>>);

impl Slip {
    pub(crate) fn note(&self, pass: Pass) {
        self.0.send_replace(Some(Arc::new(pass)));
    }

    /// Answers the request, unless its key is revoked first. A streaming response whose key is
    /// revoked later is broken off with an error.
    pub(crate) async fn answered(
        &self,
        answer: impl Future<Output = Response>,
        now: impl Fn() -> Timestamp,
    ) -> Response {
        let response = tokio::select! {
            response = answer => response,
            shown = self.revoked() => return ended(&shown, now()).into_response(),
        };
        match self.0.borrow().clone() {
            Some(pass) if response.body().size_hint().exact().is_none() => {
                response.map(|body| until_revoked(body, pass))
            }
            Some(_) | None => response,
        }
    }

    /// Waits until the key that was noted is no longer valid.
    async fn revoked(&self) -> Shown {
        let mut noted = self.0.subscribe();
        let pass = noted.wait_for(Option::is_some).await;
        // The sender lives as long as `self`.
        let pass = pass.ok().and_then(|pass| pass.clone());
        match pass {
            Some(pass) => {
                pass.revoked().await;
                pass.shown.clone()
            }
            None => std::future::pending().await,
        }
    }
}

/// Returns the error for a key that stopped being valid during a request; an expired one has the
/// error that new requests get.
fn ended((key, until): &Shown, now: Timestamp) -> ApiError {
    let expired = jwt::Refused::Expired;
    match until {
        Some(until) if *until > now => {}
        Some(_) if session::of_key_id(key).is_some() => return Denied::Session(expired).into(),
        Some(_) if is_of_user(key) => return Denied::Token(expired).into(),
        Some(_) => return Denied::Expired.into(),
        None => {}
    }
    let message = "the key or token was revoked meanwhile; get a new one";
    ApiError::new(ErrorCode::Unauthorized, message)
}

fn until_revoked(body: Body, pass: Arc<Pass>) -> Body {
    let revoked = pass.revoked.clone().cancelled_owned();
    let data = body.into_data_stream().take_until(revoked);
    let broken_off = stream::once(async move {
        let is_revoked = pass.revoked.is_cancelled();
        is_revoked.then(|| Err(axum::Error::new("the key was revoked")))
    });
    Body::from_stream(data.chain(broken_off.filter_map(ready)))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn whoever_is_cut_is_told_why_as_at_the_door() {
        let at = |until, now| {
            let session = session::key_id(queue::SessionId([7; 16]));
            let inside = [session, "user-1-2".into(), "k1".into()];
            inside.map(|key| ended(&(key, until), Timestamp(now)))
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
        let passes = Arc::new(Passes::default());
        assert_eq!(passes.somebody().now_or_never(), None);
        let (one, two) = (
            passes.enter("a".into(), None),
            passes.enter("a".into(), None),
        );
        drop(one);
        assert_eq!(passes.somebody().now_or_never(), Some(()));
        assert_eq!(passes.inside().len(), 1);
        drop(two);
        // A wake-up may be left over from those who came; it finds nobody.
        assert_eq!(passes.somebody().now_or_never(), None);
        assert!(passes.inside().is_empty());
    }

    #[test]
    fn whoever_is_inside_with_a_key_is_cut_when_it_is_revoked_and_nobody_else() {
        let passes = Arc::new(Passes::default());
        let enter = |key: &str, until| passes.enter(key.into(), until);
        let of_it = [
            enter("a", None),
            enter("a", None),
            enter("a", Some(Timestamp(9))),
        ];
        let other = enter("ab", None);
        passes.revoke("b");
        assert!(
            of_it
                .iter()
                .all(|pass| pass.revoked().now_or_never().is_none())
        );
        passes.revoke("a");
        assert!(
            of_it
                .iter()
                .all(|pass| pass.revoked().now_or_never().is_some())
        );
        assert_eq!(other.revoked().now_or_never(), None);
    }
}
