//! The query service's logins and tokens.

use std::time::Duration;

use hearth_relay::{RelaySettings, users};
use http::{Method, StatusCode};
use proto::{
    Account, Timestamp,
    worker::{CLOSE_UNAUTHORIZED, RelayMessage, WorkerMessage},
};
use queue::{PasswordHash, Queue as _, Role, Scope, UserChange, Users as _};
use serde_json::json;

use crate::{
    client::{Client, Reply},
    in_time,
    people::{PASSWORD, client_of, logged_in, user},
    server::Server,
    worker::Scripted,
};

async fn said(reply: Reply) -> (u16, String, String) {
    let (status, challenge) = (reply.status, reply.header("www-authenticate").to_owned());
    assert_eq!(reply.header("content-type"), "application/json");
    (status.as_u16(), challenge, reply.text().await)
}

fn is(status: u16, challenge: &str, body: &str) -> (u16, String, String) {
    (status, challenge.into(), body.into())
}

const CHALLENGE: &str = "Bearer realm=\"api\"";
const BAD_REFRESH: &str = r#"{"detail":"Token is invalid","code":"token_not_valid"}"#;

/// Returns a client with another token.
fn with(client: &Client, token: &str) -> Client {
    Client::new(client.base.clone(), Some(token.to_owned()))
}

#[tokio::test]
async fn a_login_gives_tokens_that_open_what_the_role_allows() {
    let server = Server::start().await;
    let nobody = server.nobody();
    for (name, role, enqueue, work) in [
        ("jan", Role::User, true, false),
        ("worker", Role::Service, true, true),
        ("root", Role::Admin, true, true),
    ] {
        user(&*server.store, name, role, "default").await;
        let client = client_of(&nobody, name).await;
        assert_eq!(
            client.get("/api/tags").await.status,
            StatusCode::OK,
            "{name}"
        );
        let chat = client.post("/api/chat", "{}").await.status;
        assert_eq!(chat != StatusCode::FORBIDDEN, enqueue, "{name}");
        let extend = format!("/api/worker/v1/jobs/{}/1/extend", "0".repeat(32));
        let extend = client.post(&extend, "").await.status;
        assert_eq!(extend == StatusCode::NOT_FOUND, work, "{name}: {extend}");
    }
}

#[tokio::test]
async fn a_login_is_answered_with_tokens_and_profile() {
    let server = Server::start().await;
    let id = user(&*server.store, "worker", Role::Service, "home").await;
    let first = logged_in(&server.nobody(), "worker").await;
    assert_eq!(
        first.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["access", "refresh", "user", "first_login"]
    );
    assert_eq!(
        (&first["first_login"], &first["user"]["id"]),
        (&true.into(), &id.into())
    );
    assert_eq!(first["user"]["last_login"], json!(null));
    let again = logged_in(&server.nobody(), "worker").await;
    assert_eq!(again["first_login"], false);
    assert!(again["user"]["last_login"].as_str().unwrap().ends_with('Z'));
    let refresh = json!({"refresh": again["refresh"]}).to_string();
    let reply = server.nobody().post("/api/token/refresh/", refresh).await;
    let answer = reply.json().await;
    assert_eq!(
        answer.as_object().unwrap().len(),
        1,
        "the refresh token stays"
    );
    let client = with(&server.nobody(), answer["access"].as_str().unwrap());
    assert_eq!(client.get("/api/tags").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_look_alike() {
    let server = Server::start().await;
    user(&*server.store, "worker", Role::Service, "default").await;
    for body in [
        json!({"username": "worker", "password": "correct hors"}),
        json!({"username": "nobody", "password": PASSWORD}),
        json!({"username": "worker", "password": ""}),
        json!({"username": "worker", "password": "x".repeat(2000)}),
        json!({"username": "'; DROP TABLE users; --", "password": PASSWORD}),
        json!({"username": "worker"}),
        json!({"username": "worker", "password": [PASSWORD]}),
        json!({}),
    ] {
        let reply = server.nobody().post("/api/login/", body.to_string()).await;
        let refused = is(401, "", r#"{"error":"Invalid credentials"}"#);
        assert_eq!(said(reply).await, refused, "{body}");
    }
    let reply = server.nobody().post("/api/login/", "{").await;
    let (status, _, body) = said(reply).await;
    assert!(
        status == 400 && body.starts_with(r#"{"detail":"JSON parse error"#),
        "{body}"
    );
}

#[tokio::test]
async fn the_longest_password_logs_in_and_what_nobody_can_have_is_no_failure() {
    let server = Server::start().await;
    let longest = "x".repeat(1024);
    let (account, password) = (Account::new("default").unwrap(), longest.clone().into());
    let jan = users::user(
        "jan".into(),
        account,
        Role::User,
        &password,
        [7; 32],
        Timestamp(0),
    );
    server.store.create_user(jan.unwrap()).await.unwrap();
    let longer = format!("{longest}x");
    let login = |name: &str, password: &str| {
        let body = json!({"username": name, "password": password}).to_string();
        let nobody = server.nobody();
        async move { nobody.post("/api/login/", body).await.status }
    };
    // More often than the limit on failures allows.
    for _ in 0..4 {
        for (name, password) in [("jan k", "x"), ("jan", longer.as_str())] {
            let told = login(name, password).await;
            assert_eq!(told, StatusCode::UNAUTHORIZED, "{name}");
        }
    }
    assert_eq!(login("jan", &longest).await, StatusCode::OK);
}

#[tokio::test]
async fn a_form_logs_in_too_and_a_slash_at_the_end_is_not_needed() {
    let server = Server::start().await;
    user(&*server.store, "worker", Role::Service, "default").await;
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let body = "username=worker&password=correct+horse";
    let nobody = server.nobody();
    for path in ["/api/login/", "/api/login"] {
        let reply = nobody.send_with(Method::POST, path, &headers, body).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
    }
    let reply = nobody.get("/api/login/").await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_refresh_token_opens_nothing_and_an_access_token_refreshes_nothing() {
    let server = Server::start().await;
    user(&*server.store, "worker", Role::Service, "default").await;
    let nobody = server.nobody();
    let tokens = logged_in(&nobody, "worker").await;
    let client = with(&nobody, tokens["refresh"].as_str().unwrap());
    assert_eq!(
        client.get("/api/tags").await.status,
        StatusCode::UNAUTHORIZED
    );
    for (body, answer) in [
        (
            json!({"refresh": tokens["access"]}),
            is(
                401,
                CHALLENGE,
                r#"{"detail":"Token has wrong type","code":"token_not_valid"}"#,
            ),
        ),
        (json!({"refresh": "a.b.c"}), is(401, CHALLENGE, BAD_REFRESH)),
        (
            json!({}),
            is(400, "", r#"{"refresh":["This field is required."]}"#),
        ),
    ] {
        let reply = nobody.post("/api/token/refresh/", body.to_string()).await;
        assert_eq!(said(reply).await, answer, "{body}");
    }
}

#[tokio::test]
async fn tokens_are_void_at_once_when_their_user_changes() {
    let server = Server::start().await;
    let store = &server.store;
    let nobody = server.nobody();
    for (name, what) in [
        ("one", "removed"),
        ("two", "logged out"),
        ("three", "password"),
    ] {
        user(&**store, name, Role::Service, "default").await;
        let tokens = logged_in(&nobody, name).await;
        let client = with(&nobody, tokens["access"].as_str().unwrap());
        assert_eq!(
            client.get("/api/tags").await.status,
            StatusCode::OK,
            "{what}"
        );
        let changed = match what {
            "removed" => store.remove_user(name).await,
            "logged out" => store.change_user(name, UserChange::LogOut).await,
            _ => {
                let password = UserChange::Password(PasswordHash("$x".into()));
                store.change_user(name, password).await
            }
        };
        assert!(changed.unwrap());
        assert_eq!(
            client.get("/api/tags").await.status,
            StatusCode::UNAUTHORIZED,
            "{what}"
        );
        let refresh = json!({"refresh": tokens["refresh"]}).to_string();
        let reply = nobody.post("/api/token/refresh/", refresh).await;
        let gone = r#"{"detail":"No active account found for the given token.","code":"no_active_account"}"#;
        let answer = if what == "removed" { gone } else { BAD_REFRESH };
        assert_eq!(said(reply).await, is(401, CHALLENGE, answer), "{what}");
    }
    // A new user with the same name is a different user.
    user(&**store, "one", Role::Service, "default").await;
    assert_eq!(
        client_of(&nobody, "one")
            .await
            .get("/api/tags")
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_removed_users_connection_is_closed() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    user(&*server.store, "worker", Role::Service, "default").await;
    let access = client_of(&server.nobody(), "worker").await.key.unwrap();
    let mut worker = Scripted::hello(&server, &access, &["m"], vec![]).await;
    assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
    let kept = server.key("default", &[Scope::Work]).await;
    let mut other = Scripted::hello(&server, &kept, &["m"], vec![]).await;
    assert!(matches!(other.next().await, RelayMessage::Welcome { .. }));
    assert!(server.store.remove_user("worker").await.unwrap());
    assert_eq!(in_time(worker.close_code()).await, CLOSE_UNAUTHORIZED);
    // A connection whose key is still valid continues.
    other.say(&WorkerMessage::Capacity { slots: 1 }).await;
    let requester = server.requester().await;
    let body = r#"{"op":"chat","body":{"model":"m","messages":[{}]}}"#;
    requester.post("/api/jobs", body).await;
    assert_eq!(other.lease().await.head.model.as_str(), "m");
    assert_eq!(server.store.counts().leased, 1);
}

#[tokio::test]
async fn a_users_connection_lasts_as_long_as_his_tokens_and_is_lent_his_accounts_jobs() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    let mut workers = Vec::new();
    for name in ["one", "other"] {
        user(&*server.store, name, Role::Service, "default").await;
        let access = client_of(&server.nobody(), name).await.key.unwrap();
        let mut worker = Scripted::hello(&server, &access, &["m"], vec![]).await;
        assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
        workers.push(worker);
    }
    let out = server.store.change_user("one", UserChange::LogOut).await;
    assert!(out.unwrap());
    let closed = in_time(workers[0].close_code()).await;
    assert_eq!(closed, CLOSE_UNAUTHORIZED);
    workers[1].say(&WorkerMessage::Capacity { slots: 1 }).await;
    let body = r#"{"op":"chat","body":{"model":"m","messages":[{}]}}"#;
    server.requester().await.post("/api/jobs", body).await;
    assert_eq!(workers[1].lease().await.head.model.as_str(), "m");
}

#[tokio::test]
async fn a_token_never_stands_in_the_url() {
    let server = Server::start().await;
    user(&*server.store, "jan", Role::User, "default").await;
    let token = client_of(&server.nobody(), "jan").await.key.unwrap();
    let reply = server
        .nobody()
        .get(&format!("/api/tags?token={token}"))
        .await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(!reply.text().await.contains(&token[40..60]));
}
