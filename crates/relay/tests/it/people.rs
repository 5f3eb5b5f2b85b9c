//! Users for tests, and clients that log in as them.

use hearth_relay::{SystemWorld, World as _, users};
use proto::{Account, Timestamp};
use queue::{Role, Store, UserId};
use serde_json::{Value, json};

use crate::client::Client;

pub(crate) const PASSWORD: &str = "correct horse";

/// Creates a user whose password is [`PASSWORD`].
pub(crate) async fn user(store: &dyn Store, name: &str, role: Role, account: &str) -> UserId {
    let account = Account::new(account).unwrap();
    let password = PASSWORD.to_owned().into();
    let salt = SystemWorld.random().unwrap();
    let user = users::user(name.into(), account, role, &password, salt, Timestamp(0));
    store.create_user(user.unwrap()).await.unwrap()
}

/// Logs a user in and returns the response.
pub(crate) async fn logged_in(nobody: &Client, name: &str) -> Value {
    let body = json!({"username": name, "password": PASSWORD}).to_string();
    let reply = nobody.post("/api/login/", body).await;
    assert_eq!(reply.status, 200);
    reply.json().await
}

/// Logs a user in and returns a client with the access token.
pub(crate) async fn client_of(nobody: &Client, name: &str) -> Client {
    let access = logged_in(nobody, name).await["access"]
        .as_str()
        .unwrap()
        .to_owned();
    Client::new(nobody.base.clone(), Some(access))
}
