//! Rules for sessions: one refresh token is valid at a time, and reusing an old one ends the
//! session.

use super::sample::at;
use crate::{Renewal, Renewed, SESSIONS_MAX, Session, SessionId, Store};

/// Returns a session that expires soon.
#[must_use]
pub fn session(n: u8, user: u64) -> Session {
    Session {
        id: SessionId([n; 16]),
        user,
        generation: 1,
        renewal: [1; 16],
        until: at(100),
    }
}

fn renewal(from: u8, to: u8) -> Renewal {
    Renewal {
        from: [from; 16],
        to: [to; 16],
        until: at(200),
    }
}

/// The refresh token in force works once and is replaced.
pub async fn a_session_is_renewed_by_its_token_in_force(store: &dyn Store) {
    let (own, other) = (session(1, 7), session(2, 7));
    store.open_session(at(0), own.clone()).await.unwrap();
    store.open_session(at(0), other.clone()).await.unwrap();
    assert_eq!(store.find_session(own.id).await.unwrap(), Some(own.clone()));
    let renewed = Session {
        renewal: [2; 16],
        until: at(200),
        ..own.clone()
    };
    let done = store.renew_session(own.id, renewal(1, 2)).await.unwrap();
    assert_eq!(done, Renewed::Done(renewed.clone()));
    let found = store.find_session(own.id).await.unwrap();
    assert_eq!(found, Some(renewed));
    let found = store.find_session(other.id).await.unwrap();
    assert_eq!(found, Some(other), "no other is touched");
}

/// The second use may be a thief's or the owner's; they cannot be told apart.
pub async fn a_token_that_was_shown_before_ends_the_session(store: &dyn Store) {
    let own = session(1, 7);
    store.open_session(at(0), own.clone()).await.unwrap();
    store.renew_session(own.id, renewal(1, 2)).await.unwrap();
    let again = store.renew_session(own.id, renewal(1, 3)).await.unwrap();
    assert_eq!(again, Renewed::Reused);
    let after = store.renew_session(own.id, renewal(2, 3)).await.unwrap();
    assert_eq!(after, Renewed::Gone, "the one in force is void, too");
    assert_eq!(store.find_session(own.id).await.unwrap(), None);
}

/// Other sessions stay open.
pub async fn a_session_that_was_ended_is_gone(store: &dyn Store) {
    store.open_session(at(0), session(1, 7)).await.unwrap();
    store.open_session(at(0), session(2, 7)).await.unwrap();
    assert!(store.end_session(SessionId([1; 16])).await.unwrap());
    assert!(!store.end_session(SessionId([1; 16])).await.unwrap());
    let gone = store.find_session(SessionId([1; 16])).await.unwrap();
    let stays = store.find_session(SessionId([2; 16])).await.unwrap();
    assert_eq!((gone, stays), (None, Some(session(2, 7))));
}

/// Logins cannot fill the store.
pub async fn only_so_many_sessions_are_kept(store: &dyn Store) {
    let most = u8::try_from(SESSIONS_MAX).unwrap();
    store.open_session(at(0), session(250, 8)).await.unwrap();
    for n in 0..=most {
        store.open_session(at(0), session(n, 7)).await.unwrap();
    }
    let kept = |n: u8| async move { store.find_session(SessionId([n; 16])).await.unwrap() };
    assert_eq!(kept(0).await, None, "the oldest");
    assert!(kept(1).await.is_some() && kept(most).await.is_some());
    assert!(kept(250).await.is_some(), "another user's");
    let late = Session {
        until: at(500),
        ..session(251, 9)
    };
    store.open_session(at(100), late).await.unwrap();
    assert_eq!(kept(1).await, None, "its time has passed");
    assert!(kept(251).await.is_some());
}
