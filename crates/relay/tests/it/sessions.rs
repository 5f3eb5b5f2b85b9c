//! Logins of Hearth's own users: short-lived access tokens, and refresh tokens that are valid once.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hearth_relay::RelaySettings;
use http::{Method, StatusCode};
use queue::{PasswordHash, Role, SessionId, Sessions as _, UserChange, Users as _};
use serde_json::{Value, json};

use crate::{
    client::{Client, Reply},
    in_time,
    people::{PASSWORD, logged_in, user},
    server::{Ahead, Server},
    worker::Scripted,
};

/// Logs a user in and returns the response.
pub(crate) async fn opened(nobody: &Client, name: &str) -> Value {
    let body = json!({"username": name, "password": PASSWORD}).to_string();
    let reply = nobody.post("/api/sessions", body).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("cache-control"), "no-store");
    reply.json().await
}

/// Returns a client with the access token.
pub(crate) fn with(nobody: &Client, tokens: &Value) -> Client {
    let access = tokens["access_token"].as_str().unwrap().to_owned();
    Client::new(nobody.base.clone(), Some(access))
}

async fn held(nobody: &Client, what: &str, token: &Value) -> Reply {
    let body = json!({"refresh_token": token}).to_string();
    nobody.post(&format!("/api/sessions/{what}"), body).await
}

async fn refused(reply: Reply) -> (u16, String) {
    let status = reply.status.as_u16();
    let error = reply.json().await["error"].take();
    (
        status,
        error["code"].as_str().unwrap_or_default().to_owned(),
    )
}

fn unauthorized() -> (u16, String) {
    (401, "unauthorized".into())
}

const JOB: &str = r#"{"op":"chat","body":{"model":"m","messages":[]}}"#;

#[tokio::test]
async fn a_session_opens_what_the_role_allows_and_its_users_jobs_alone() {
    let server = Server::start().await;
    let nobody = server.nobody();
    for (name, role, account, work, admin) in [
        ("jan", Role::User, "one", false, false),
        ("worker", Role::Service, "two", true, false),
        ("root", Role::Admin, "three", true, true),
    ] {
        user(&*server.store, name, role, account).await;
        let tokens = opened(&nobody, name).await;
        assert_eq!(
            (&tokens["token_type"], &tokens["expires_in"]),
            (&json!("Bearer"), &json!(900))
        );
        let client = with(&nobody, &tokens);
        let made = client.post("/api/jobs", JOB).await;
        assert_eq!(made.status, StatusCode::ACCEPTED, "{name}");
        let jobs = client.get("/api/jobs").await.json().await;
        let count = jobs.as_array().unwrap().len();
        assert_eq!(count, if admin { 3 } else { 1 }, "{name}");
        let extend = format!("/api/worker/v1/jobs/{}/1/extend", "0".repeat(32));
        let extend = client.post(&extend, "").await.status;
        assert_eq!(extend == StatusCode::NOT_FOUND, work, "{name}: {extend}");
        let keys = client.get("/api/admin/keys").await.status;
        assert_eq!(keys == StatusCode::OK, admin, "{name}: {keys}");
    }
}

#[tokio::test]
async fn a_session_is_renewed_and_a_token_that_is_shown_twice_ends_it() {
    let server = Server::start().await;
    let nobody = server.nobody();
    user(&*server.store, "jan", Role::User, "default").await;
    let first = opened(&nobody, "jan").await;
    let other = opened(&nobody, "jan").await;
    let second = held(&nobody, "renew", &first["refresh_token"]).await;
    assert_eq!(second.status, StatusCode::OK);
    let second = second.json().await;
    for tokens in [&first, &second] {
        let tags = with(&nobody, tokens).get("/api/tags").await;
        assert_eq!(tags.status, StatusCode::OK, "until its own time has passed");
    }
    let again = held(&nobody, "renew", &first["refresh_token"]).await;
    assert_eq!(refused(again).await, (401, "token_reused".into()));
    for tokens in [&first, &second] {
        let tags = with(&nobody, tokens).get("/api/jobs").await;
        assert_eq!(refused(tags).await, unauthorized());
        let renewed = held(&nobody, "renew", &tokens["refresh_token"]).await;
        assert_eq!(refused(renewed).await, unauthorized());
    }
    let tags = with(&nobody, &other).get("/api/tags").await;
    assert_eq!(tags.status, StatusCode::OK, "another session is none of it");
}

#[tokio::test]
async fn of_two_who_renew_at_once_one_gets_tokens_and_they_are_void() {
    let server = Server::start().await;
    let nobody = server.nobody();
    user(&*server.store, "jan", Role::User, "default").await;
    let tokens = opened(&nobody, "jan").await;
    let renew = || held(&nobody, "renew", &tokens["refresh_token"]);
    let (one, two) = tokio::join!(renew(), renew());
    let (good, bad) = if one.status == StatusCode::OK {
        (one, two)
    } else {
        (two, one)
    };
    assert_eq!(good.status, StatusCode::OK);
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    let client = with(&nobody, &good.json().await);
    assert_eq!(refused(client.get("/api/jobs").await).await, unauthorized());
}

#[tokio::test]
async fn logging_out_voids_both_tokens_and_ends_what_is_open() {
    let mut settings = RelaySettings::default();
    // No periodic check runs during the test: the logout itself ends the stream.
    settings.key_check = Duration::from_secs(3600);
    let server = Server::with(settings).await;
    let nobody = server.nobody();
    user(&*server.store, "jan", Role::User, "default").await;
    let tokens = opened(&nobody, "jan").await;
    let client = with(&nobody, &tokens);
    let made = client.post("/api/jobs", JOB).await.json().await;
    let path = format!("/api/jobs/{}/events", made["id"].as_str().unwrap());
    let events = client.get(&path).await;
    for _ in 0..2 {
        let ended = held(&nobody, "end", &tokens["refresh_token"]).await;
        assert_eq!(ended.status, StatusCode::NO_CONTENT);
    }
    events.broken_off().await;
    assert_eq!(refused(client.get("/api/jobs").await).await, unauthorized());
    let renewed = held(&nobody, "renew", &tokens["refresh_token"]).await;
    assert_eq!(refused(renewed).await, unauthorized());
}

/// The change was made by another node of the same store, or by `hearth user`.
#[tokio::test]
async fn what_is_open_ends_when_its_session_or_its_user_is_changed_elsewhere() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    let (store, nobody) = (&server.store, server.nobody());
    user(&**store, "stays", Role::User, "default").await;
    let stays = with(&nobody, &opened(&nobody, "stays").await);
    let job = stays.post("/api/jobs", JOB).await.json().await["id"].take();
    let job = format!("/api/jobs/{}", job.as_str().unwrap());
    let open = stays.get(&format!("{job}/events")).await;
    for (name, is_ours) in [
        ("one", true),
        ("two", true),
        ("three", true),
        ("four", false),
    ] {
        user(&**store, name, Role::User, "default").await;
        let token = if is_ours {
            opened(&nobody, name).await["access_token"].take()
        } else {
            logged_in(&nobody, name).await["access"].take()
        };
        let token = token.as_str().unwrap();
        let client = Client::new(server.base(), Some(token.to_owned()));
        let made = client.post("/api/jobs", JOB).await.json().await;
        let path = format!("/api/jobs/{}/events", made["id"].as_str().unwrap());
        let events = client.get(&path).await;
        assert_eq!(events.status, StatusCode::OK);
        let changed = match name {
            "one" => store.end_session(session_of(token)).await,
            "two" => store.remove_user(name).await,
            _ => store.change_user(name, UserChange::LogOut).await,
        };
        assert!(changed.unwrap());
        events.broken_off().await;
    }
    assert_eq!(
        stays.send(Method::DELETE, &job, "").await.status,
        StatusCode::NO_CONTENT
    );
    let told = open.text().await;
    assert!(told.contains("cancelled"), "it was never cut: {told}");
}

/// Returns the session that a token names.
fn session_of(token: &str) -> SessionId {
    let claims = BASE64.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let id = u128::from_str_radix(claims["sid"].as_str().unwrap(), 16).unwrap();
    SessionId(id.to_be_bytes())
}

#[tokio::test]
async fn a_token_opens_doors_for_a_quarter_of_an_hour_and_the_other_renews_it_for_a_week() {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let nobody = server.nobody();
    user(&*server.store, "jan", Role::User, "default").await;
    let mut tokens = opened(&nobody, "jan").await;
    let client = with(&nobody, &tokens);
    clock.by(Duration::from_secs(15 * 60 + 20));
    let within_leeway = client.get("/api/tags").await;
    assert_eq!(within_leeway.status, StatusCode::OK);
    clock.by(Duration::from_secs(15 * 60 + 32));
    let late = refused(client.get("/api/jobs").await).await;
    assert_eq!(late, (401, "token_expired".into()));
    for days in [6, 12] {
        clock.by(Duration::from_secs(days * 24 * 60 * 60));
        let renewed = held(&nobody, "renew", &tokens["refresh_token"]).await;
        assert_eq!(renewed.status, StatusCode::OK, "after {days} days");
        tokens = renewed.json().await;
    }
    clock.by(Duration::from_secs(20 * 24 * 60 * 60));
    let late = held(&nobody, "renew", &tokens["refresh_token"]).await;
    assert_eq!(refused(late).await, (401, "token_expired".into()));
}

#[tokio::test]
async fn a_session_ends_with_its_user_his_password_and_his_logging_out_everywhere() {
    let server = Server::start().await;
    let nobody = server.nobody();
    let password = PasswordHash("$other$".into());
    for (name, change) in [
        ("gone", None),
        ("new", Some(UserChange::Password(password))),
        ("out", Some(UserChange::LogOut)),
    ] {
        user(&*server.store, name, Role::User, "default").await;
        let tokens = opened(&nobody, name).await;
        let changed = match change {
            None => server.store.remove_user(name).await,
            Some(change) => server.store.change_user(name, change).await,
        };
        assert!(changed.unwrap());
        let jobs = with(&nobody, &tokens).get("/api/jobs").await;
        assert_eq!(refused(jobs).await, unauthorized(), "{name}");
        let renewed = held(&nobody, "renew", &tokens["refresh_token"]).await;
        assert_eq!(refused(renewed).await, unauthorized(), "{name}");
    }
}

#[tokio::test]
async fn no_token_passes_for_another() {
    let mut settings = RelaySettings::default();
    settings.failures_per_minute = 0;
    let server = Server::with(settings).await;
    let nobody = server.nobody();
    user(&*server.store, "root", Role::Admin, "default").await;
    let ours = opened(&nobody, "root").await;
    let theirs = logged_in(&nobody, "root").await;
    for token in [&ours["access_token"], &theirs["access"], &theirs["refresh"]] {
        for what in ["renew", "end"] {
            let reply = held(&nobody, what, token).await;
            assert_eq!(refused(reply).await, unauthorized(), "{what}");
        }
    }
    for token in [&ours["access_token"], &ours["refresh_token"]] {
        let body = json!({"refresh": token}).to_string();
        let reply = nobody.post("/api/token/refresh/", body).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
    let queries = with(&nobody, &ours).get("/api/queries/").await;
    assert_eq!(queries.status, StatusCode::UNAUTHORIZED);
    assert_eq!(queries.json().await["code"], "token_not_valid");
    let renewing = json!({"access_token": ours["refresh_token"]});
    let jobs = with(&nobody, &renewing).get("/api/jobs").await;
    assert_eq!(refused(jobs).await, unauthorized());
    let jobs = with(&nobody, &ours).get("/api/jobs").await;
    assert_eq!(jobs.status, StatusCode::OK, "it is good all the same");
}

#[tokio::test]
async fn a_wrong_login_says_nothing_and_too_many_are_not_listened_to() {
    let server = Server::start().await;
    let nobody = server.nobody();
    user(&*server.store, "jan", Role::User, "default").await;
    for body in [r#""correct horse""#, r#"{"username":"jan"}"#, "{", "[]"] {
        let reply = nobody.post("/api/sessions", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        let said = reply.text().await;
        assert!(!said.contains("horse") && !said.contains("jan"), "{said}");
    }
    let login = |name: &str, password: &str| {
        let body = json!({"username": name, "password": password}).to_string();
        let nobody = nobody.clone();
        async move { nobody.post("/api/sessions", body).await }
    };
    let mut told = Vec::new();
    for (name, password) in [("jan", "wrong horse"), ("nobody", PASSWORD)] {
        told.push(login(name, password).await.text().await);
    }
    assert_eq!(told[0], told[1]);
    for _ in 0..3 {
        assert_eq!(refused(login("jan", "wrong").await).await, unauthorized());
    }
    let reply = login("jan", PASSWORD).await;
    assert!(!reply.header("retry-after").is_empty());
    assert_eq!(refused(reply).await, (429, "rate_limited".into()));
}

#[tokio::test]
async fn what_was_opened_with_a_token_ends_when_it_expires() {
    // Session tokens are valid 30 s longer, for clocks that differ.
    for (life, is_ours) in [(15 * 60 + 30, true), (24 * 60 * 60, false)] {
        let clock = Arc::new(Ahead::default());
        let mut settings = RelaySettings::default();
        settings.key_check = Duration::from_millis(20);
        let server = Server::at(clock.clone(), settings).await;
        let nobody = server.nobody();
        user(&*server.store, "worker", Role::Service, "default").await;
        let token = if is_ours {
            opened(&nobody, "worker").await["access_token"].take()
        } else {
            logged_in(&nobody, "worker").await["access"].take()
        };
        let token = token.as_str().unwrap();
        let client = Client::new(server.base(), Some(token.to_owned()));
        let other = server.requester().await;
        let made = client.post("/api/jobs", JOB).await.json().await;
        let path = format!("/api/jobs/{}/events", made["id"].as_str().unwrap());
        let (events, others) = (client.get(&path).await, other.get(&path).await);
        let body = r#"{"worker":"w","version":"0","free":0,"wait_ms":25000,"report":{"engine":"ollama","engine_version":"","engine_up":true,"models":[]}}"#;
        let poller = client.clone();
        let poll = tokio::spawn(async move { poller.post("/api/worker/v1/poll", body).await });
        let mut worker = Scripted::hello(&server, token, &["other"], vec![]).await;
        worker.next().await;
        clock.by(Duration::from_secs(life - 5));
        worker.is_answered().await;
        clock.by(Duration::from_secs(life + 1));
        assert_eq!(in_time(worker.close_code()).await, 4011);
        events.broken_off().await;
        let code = if is_ours {
            "token_expired"
        } else {
            "unauthorized"
        };
        assert_eq!(refused(poll.await.unwrap()).await, (401, code.into()));
        assert_eq!(others.status, StatusCode::OK, "its key is good");
    }
}
