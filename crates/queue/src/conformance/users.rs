//! Rules for users: found by id and name, changed by name, and ids never reused.

use super::{
    sample::{T0, account, at},
    sessions::session,
};
use crate::{NewUser, PasswordHash, QueueError, Role, SessionId, Store, User, UserChange};

/// Returns a user.
#[must_use]
pub fn user(name: &str) -> NewUser {
    NewUser {
        name: name.into(),
        account: account("a"),
        role: Role::Service,
        password: PasswordHash("$hash$".into()),
        created_at: T0,
    }
}

/// All fields are returned as stored.
pub async fn a_user_is_found_by_id_and_by_name(store: &dyn Store) {
    let admin = NewUser {
        role: Role::Admin,
        account: account("b"),
        ..user("two")
    };
    let one = store.create_user(user("one")).await.unwrap();
    let two = store.create_user(admin.clone()).await.unwrap();
    let stored = |id, new| User {
        id,
        new,
        generation: 1,
        last_login: None,
    };
    let found = store.find_user(one).await.unwrap();
    assert_eq!(found, Some(stored(one, user("one"))));
    let found = store.find_user_named("two").await.unwrap();
    assert_eq!(found, Some(stored(two, admin)));
    assert_eq!(store.find_user(two + 1).await.unwrap(), None);
    assert_eq!(store.find_user_named("ONE").await.unwrap(), None);
    let names: Vec<_> = store.list_users().await.unwrap();
    let names: Vec<_> = names.iter().map(|user| user.new.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
}

/// Removing a user frees its name.
pub async fn a_user_name_is_taken_until_its_user_is_removed(store: &dyn Store) {
    store.create_user(user("one")).await.unwrap();
    let refused = store.create_user(user("one")).await.unwrap_err();
    assert!(matches!(refused, QueueError::Exists(_)), "{refused}");
    assert!(store.remove_user("one").await.unwrap());
    assert!(!store.remove_user("one").await.unwrap());
    store.create_user(user("one")).await.unwrap();
}

/// Otherwise the tokens of a removed user would be valid for the next one with its id.
pub async fn an_id_of_a_removed_user_is_never_given_again(store: &dyn Store) {
    let first = store.create_user(user("one")).await.unwrap();
    store.remove_user("one").await.unwrap();
    assert_eq!(store.find_user(first).await.unwrap(), None);
    let second = store.create_user(user("one")).await.unwrap();
    assert!(second > first, "{second} after {first}");
}

/// Only the password differs afterwards.
pub async fn each_change_of_a_user_is_a_new_generation(store: &dyn Store) {
    let id = store.create_user(user("one")).await.unwrap();
    let other = store.create_user(user("two")).await.unwrap();
    let password = PasswordHash("$other$".into());
    let change = UserChange::Password(password.clone());
    assert!(store.change_user("one", change).await.unwrap());
    assert!(store.change_user("one", UserChange::LogOut).await.unwrap());
    assert!(!store.change_user("none", UserChange::LogOut).await.unwrap());
    let changed = store.find_user(id).await.unwrap().unwrap();
    assert_eq!((changed.generation, changed.new.password), (3, password));
    let other = store.find_user(other).await.unwrap().unwrap();
    assert_eq!((other.generation, other.new), (1, user("two")));
}

/// A login invalidates no token.
pub async fn a_login_is_noted(store: &dyn Store) {
    let id = store.create_user(user("one")).await.unwrap();
    store.logged_in(at(5), id).await.unwrap();
    store.logged_in(at(7), id).await.unwrap();
    let user = store.find_user(id).await.unwrap().unwrap();
    assert_eq!((user.last_login, user.generation), (Some(at(7)), 1));
}

/// The first key offered is kept.
pub async fn the_token_key_is_chosen_once(store: &dyn Store) {
    assert_eq!(store.token_key([1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(store.token_key([2; 32]).await.unwrap(), [1; 32]);
}

/// Nothing that a copy of the store could sign stays valid. Passwords do.
pub async fn logging_all_out_replaces_the_token_key_and_ends_every_session(store: &dyn Store) {
    assert_eq!(store.log_out_all([1; 32]).await.unwrap(), 0);
    assert_eq!(store.token_key([2; 32]).await.unwrap(), [1; 32]);
    let one = store.create_user(user("one")).await.unwrap();
    let two = store.create_user(user("two")).await.unwrap();
    for (n, user) in [(1, one), (2, one), (3, two)] {
        store.open_session(at(0), session(n, user)).await.unwrap();
    }
    assert_eq!(store.log_out_all([3; 32]).await.unwrap(), 2);
    assert_eq!(store.token_key([4; 32]).await.unwrap(), [3; 32]);
    for (id, name) in [(one, "one"), (two, "two")] {
        let found = store.find_user(id).await.unwrap().unwrap();
        assert_eq!((found.generation, found.new), (2, user(name)));
    }
    for n in 1..=3 {
        let found = store.find_session(SessionId([n; 16])).await.unwrap();
        assert_eq!(found, None);
    }
}
