//! Rules for API keys: found by id, unique by name, revoked once.

use super::sample::{T0, account, at};
use proto::Priority;

use crate::{Ceiling, KeyRecord, ModelPatterns, QueueError, Scope, Serve, Store};

/// Returns a key.
#[must_use]
pub fn key(id: &str, name: &str) -> KeyRecord {
    KeyRecord {
        id: id.into(),
        name: name.into(),
        account: account("a"),
        scopes: [Scope::Enqueue, Scope::Work].into(),
        serve: Serve::Accounts([account("a"), account("b")].into()),
        secret_sha256: [7; 32],
        created_at: T0,
        revoked_at: None,
        ceiling: Ceiling::default(),
        expires_at: None,
        last_used_at: None,
    }
}

/// All fields are returned as stored.
pub async fn a_key_is_found_by_its_id(store: &dyn Store) {
    let all = KeyRecord {
        serve: Serve::All,
        scopes: [Scope::Admin].into(),
        ceiling: Ceiling {
            models: ModelPatterns::new(vec!["qwen*".parse().unwrap(), "m".parse().unwrap()]),
            priority: Priority::new(7),
        },
        expires_at: Some(at(60)),
        ..key("k2", "two")
    };
    store.create_key(key("k1", "one")).await.unwrap();
    store.create_key(all.clone()).await.unwrap();
    assert_eq!(store.find_key("k1").await.unwrap(), Some(key("k1", "one")));
    assert_eq!(store.find_key("k2").await.unwrap(), Some(all));
    assert_eq!(
        store.find_key("one").await.unwrap(),
        None,
        "a name is not an id"
    );
}

/// A new key may then take the name.
pub async fn a_name_is_taken_until_its_key_is_revoked(store: &dyn Store) {
    store.create_key(key("k1", "one")).await.unwrap();
    let refused = store.create_key(key("k2", "one")).await.unwrap_err();
    assert!(matches!(refused, QueueError::Exists(_)), "{refused}");
    assert!(store.revoke_key(at(1), "one").await.unwrap());
    store.create_key(key("k2", "one")).await.unwrap();
}

/// An id in a log identifies one key for ever.
pub async fn an_id_of_a_revoked_key_stays_taken(store: &dyn Store) {
    store.create_key(key("k1", "one")).await.unwrap();
    assert!(store.revoke_key(at(1), "k1").await.unwrap());
    let refused = store.create_key(key("k1", "other")).await.unwrap_err();
    assert!(matches!(refused, QueueError::Exists(_)), "{refused}");
}

/// A revoked key differs from one that never existed, and is revoked only once.
pub async fn a_revoked_key_is_found_with_the_time(store: &dyn Store) {
    store.create_key(key("k1", "one")).await.unwrap();
    assert!(!store.revoke_key(at(1), "two").await.unwrap());
    assert!(store.revoke_key(at(2), "k1").await.unwrap());
    assert!(!store.revoke_key(at(3), "k1").await.unwrap());
    let revoked = KeyRecord {
        revoked_at: Some(at(2)),
        ..key("k1", "one")
    };
    assert_eq!(store.find_key("k1").await.unwrap(), Some(revoked));
}

/// Only the key that was used changes.
pub async fn the_last_use_of_a_key_is_noted(store: &dyn Store) {
    store.create_key(key("k1", "one")).await.unwrap();
    store.create_key(key("k2", "two")).await.unwrap();
    store.note_key_used(at(3), "k2").await.unwrap();
    store.note_key_used(at(4), "k3").await.unwrap();
    let keys = store.list_keys().await.unwrap();
    let used: Vec<_> = keys.iter().map(|key| key.last_used_at).collect();
    assert_eq!(used, [None, Some(at(3))]);
}

/// Revoked keys are listed, too.
pub async fn keys_are_listed_oldest_first(store: &dyn Store) {
    for (n, id) in ["k3", "k1", "k2"].into_iter().enumerate() {
        let made = KeyRecord {
            created_at: at(n as u64),
            ..key(id, id)
        };
        store.create_key(made).await.unwrap();
    }
    assert!(store.revoke_key(at(9), "k1").await.unwrap());
    let keys = store.list_keys().await.unwrap();
    let ids: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids, ["k3", "k1", "k2"]);
}
