//! Rate limits, and limits on connections.

use std::{sync::Arc, time::Duration};

use hearth_relay::RelaySettings;
use http::StatusCode;
use proto::{Timestamp, worker::SUBPROTOCOL};
use queue::{Role, Scope};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::{Client, Reply},
    in_time,
    people::{PASSWORD, client_of, logged_in, user},
    server::{Ahead, Server},
    sessions::opened,
    worker::Scripted,
};

pub(crate) fn seconds(reply: &Reply) -> u64 {
    reply.header("retry-after").parse().unwrap()
}

pub(crate) fn refused(reply: &Reply, status: StatusCode, code: &str) {
    assert_eq!(reply.status, status);
    assert_eq!(reply.header("x-hearth-error"), code);
    assert!(seconds(reply) >= 1);
}

pub(crate) fn nothing_to_do() -> String {
    json!({"worker": "p", "version": "0", "free": 0, "wait_ms": 0}).to_string()
}

#[tokio::test]
async fn a_key_that_asks_too_fast_is_told_to_wait_in_its_own_words_and_others_are_served() {
    let mut settings = RelaySettings::default();
    settings.key_rate = 1;
    settings.key_burst = 3;
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), settings).await;
    let scopes = [Scope::Read, Scope::Work];
    let hasty = server.client("default", &scopes).await;
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(hasty.get("/api/tags").await.status);
    }
    let first = answers
        .iter()
        .position(|status| *status == StatusCode::TOO_MANY_REQUESTS);
    assert!(first.is_some_and(|first| first >= 3), "{answers:?}");
    for (path, words) in [
        ("/api/tags", r#"{"error":"too many requests with this key"#),
        ("/api/jobs", r#"{"error":{"code":"rate_limited","message":"#),
        ("/v1/models", r#"{"error":{"message":"#),
        ("/api/queries/", r#"{"detail":"#),
    ] {
        // Another request may have become allowed in the meantime.
        let mut reply = hasty.get(path).await;
        if reply.status == StatusCode::OK {
            reply = hasty.get(path).await;
        }
        refused(&reply, StatusCode::TOO_MANY_REQUESTS, "rate_limited");
        assert_eq!(seconds(&reply), 1);
        let text = reply.text().await;
        assert!(text.starts_with(words), "{path}: {text}");
    }
    let other = server.client("default", &[Scope::Read]).await;
    assert_eq!(other.get("/api/tags").await.status, StatusCode::OK);
    assert_eq!(server.nobody().get("/healthz").await.status, StatusCode::OK);
    // Requests of a worker to its carrier are bounded by its slots instead.
    for _ in 0..10 {
        let polled = hasty.post("/api/worker/v1/poll", nothing_to_do()).await;
        assert_eq!(polled.status, StatusCode::OK);
    }
    clock.by(Duration::from_secs(60));
    for _ in 0..3 {
        assert_eq!(hasty.get("/api/tags").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn who_shows_too_many_bad_keys_is_not_told_about_them_for_a_while() {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let good = server.client("default", &[Scope::Read]).await;
    let bad = |key: &str| Client::new(server.base(), Some(key.to_owned()));
    for key in ["x", "hearth_1_2_3", "eyJhbGciOiJub25lIn0.e30.", "sk-1", "y"] {
        let reply = bad(key).get("/api/tags").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{key}");
    }
    let mut waits = Vec::new();
    for ahead in [0, 20, 60, 130] {
        clock.by(Duration::from_secs(ahead));
        let mut reply = bad("z").get("/api/tags").await;
        for _ in 0..20 {
            if reply.status == StatusCode::UNAUTHORIZED {
                reply = bad("z").get("/api/tags").await;
            }
        }
        refused(&reply, StatusCode::TOO_MANY_REQUESTS, "rate_limited");
        waits.push(seconds(&reply));
        let good = good.get("/api/tags").await;
        assert_eq!(good.status, StatusCode::OK, "a good key is good");
    }
    assert_eq!(waits, [15, 30, 60, 120]);
}

#[tokio::test]
async fn a_key_that_was_good_once_is_always_told_why_it_is_good_no_more() {
    let server = Server::start().await;
    let revoked = server.client("default", &[Scope::Read]).await;
    let now = Timestamp(1);
    let ended = queue::Keys::revoke_key(&*server.store, now, "key-0").await;
    assert!(ended.unwrap());
    for _ in 0..20 {
        let reply = revoked.get("/api/jobs").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        let told = reply.json().await;
        let told = told["error"]["message"].as_str().unwrap();
        assert!(told.contains("was revoked"), "{told}");
    }
}

#[tokio::test]
async fn passwords_are_not_listened_to_after_too_many_wrong_ones() {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    user(&*server.store, "jan", Role::User, "default").await;
    let nobody = server.nobody();
    let jan = client_of(&nobody, "jan").await;
    let login = |name: &str, password: &str| {
        let body = json!({"username": name, "password": password}).to_string();
        let nobody = nobody.clone();
        async move { nobody.post("/api/login/", body).await }
    };
    for name in ["jan", "nobody", "jan", "jan", "jan"] {
        let reply = login(name, "wrong horse").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
    for (name, password) in [("jan", PASSWORD), ("jan", "wrong horse"), ("nobody", "x")] {
        let reply = login(name, password).await;
        refused(&reply, StatusCode::TOO_MANY_REQUESTS, "rate_limited");
        assert!(
            reply
                .text()
                .await
                .starts_with(r#"{"detail":"too many failed logins"#)
        );
    }
    let still = jan.get("/api/tags").await;
    assert_eq!(still.status, StatusCode::OK, "who is logged in stays so");
    clock.by(Duration::from_secs(60));
    assert_eq!(login("jan", PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test]
async fn only_so_many_connections_are_open_with_one_key_of_every_kind() {
    let mut settings = RelaySettings::default();
    settings.connections_per_key = 2;
    let server = Server::with(settings).await;
    let key = server
        .key("default", &[Scope::Enqueue, Scope::Read, Scope::Work])
        .await;
    let other = server.requester().await;
    let client = Client::new(server.base(), Some(key.clone()));
    let job = r#"{"op":"chat","body":{"model":"m"}}"#;
    let made = other.post("/api/jobs", job).await.json().await;
    let path = format!("/api/jobs/{}/events", made["id"].as_str().unwrap());
    let worker = Scripted::hello(&server, &key, &["other"], vec![]).await;
    let stream = client.get(&path).await;
    assert_eq!(stream.status, StatusCode::OK);
    let over = client.get("/api/jobs").await;
    refused(&over, StatusCode::TOO_MANY_REQUESTS, "too_many_connections");
    assert!(seconds(&over) > 0);
    assert_eq!(over.header("connection"), "close");
    assert!(
        over.text()
            .await
            .contains("2 connections are already open with this key")
    );
    for path in ["/api/queries/", "/api/tags"] {
        let over = client.get(path).await;
        assert_eq!(over.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert_eq!(over.header("x-hearth-error"), "too_many_connections");
        assert_eq!(over.header("connection"), "close", "{path}");
    }
    assert!(Scripted::dial(&server, &key, SUBPROTOCOL).await.is_err());
    assert_eq!(
        other.get("/api/tags").await.status,
        StatusCode::OK,
        "another key"
    );
    worker.goes().await;
    // The relay notices the close a moment later.
    let free = async { while client.get("/api/tags").await.status != StatusCode::OK {} };
    in_time(free).await;
    drop(stream);
}

#[tokio::test]
async fn only_so_many_connections_of_an_address_wait_for_their_first_good_key() {
    let mut settings = RelaySettings::default();
    settings.connections_per_address = Some(2);
    // No connection is closed for being silent.
    settings.head_patience = Duration::from_secs(60);
    let server = Server::with(settings).await;
    let key = server.key("default", &[Scope::Read]).await;
    let dial = || async { TcpStream::connect(server.address).await.unwrap() };
    let with_key =
        format!("GET /api/tags HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    let mut answer = [0; 4096];
    // A connection that shows a valid key makes room for the next.
    let mut kept = Vec::new();
    for _ in 0..5 {
        let mut socket = dial().await;
        socket.write_all(with_key.as_bytes()).await.unwrap();
        let read = in_time(socket.read(&mut answer)).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        kept.push(socket);
    }
    let silent = [dial().await, dial().await];
    let mut third = dial().await;
    let ended = in_time(third.read(&mut answer)).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    drop(silent);
    // The relay notices the closes a moment later.
    let health = async {
        loop {
            let mut socket = dial().await;
            let head = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
            if socket.write_all(head).await.is_ok()
                && let Ok(read @ 1..) = socket.read(&mut answer).await
            {
                break answer[..read].starts_with(b"HTTP/1.1 200");
            }
        }
    };
    assert!(in_time(health).await);
}

#[tokio::test]
async fn a_flood_of_refusals_is_held_back_and_nobody_else_is() {
    let mut settings = RelaySettings::default();
    settings.at_work_max = 0;
    settings.refusals_at_once = 1;
    settings.refusal_every = Duration::from_secs(3600);
    let server = Server::with(settings).await;
    let client = server.client("default", &[Scope::Read]).await;
    let first = client.get("/api/tags").await;
    refused(&first, StatusCode::SERVICE_UNAVAILABLE, "busy");
    let (flood, path) = (client.clone(), "/api/tags");
    let second = tokio::spawn(async move { flood.get(path).await });
    for _ in 0..50 {
        assert_eq!(client.get("/healthz").await.status, StatusCode::OK);
    }
    assert!(!second.is_finished());
    // The delay does not hold up a shutdown.
    let (second, stopped) = tokio::join!(second, server.stop());
    refused(&second.unwrap(), StatusCode::SERVICE_UNAVAILABLE, "busy");
    stopped.unwrap();
}

#[tokio::test]
async fn a_worker_on_a_websocket_is_one_of_the_connections_that_are_counted() {
    let mut settings = RelaySettings::default();
    settings.connections_max = 2;
    let server = Server::with(settings).await;
    let worker = Scripted::ready(&server).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let asked = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    third.write_all(asked).await.unwrap();
    let mut answer = Vec::new();
    {
        let mut answered = Box::pin(third.read_to_end(&mut answer));
        let soon = tokio::time::timeout(Duration::from_millis(100), &mut answered).await;
        assert!(soon.is_err(), "there are two places");
        drop(worker);
        in_time(answered).await.unwrap();
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    drop(idle);
}

#[tokio::test]
async fn renewing_counts_among_a_users_requests() {
    let mut settings = RelaySettings::default();
    settings.key_rate = 1;
    settings.key_burst = 3;
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock, settings).await;
    user(&*server.store, "jan", Role::User, "default").await;
    let nobody = server.nobody();
    let mut tokens = opened(&nobody, "jan").await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let body = json!({"refresh_token": tokens["refresh_token"]}).to_string();
        let reply = nobody.post("/api/sessions/renew", body).await;
        statuses.push(reply.status);
        if reply.status == StatusCode::TOO_MANY_REQUESTS {
            refused(&reply, StatusCode::TOO_MANY_REQUESTS, "rate_limited");
            break;
        }
        tokens = reply.json().await;
    }
    assert_eq!(statuses.pop(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert!(statuses.len() >= 3, "{statuses:?}");
    let refresh = logged_in(&nobody, "jan").await["refresh"].take();
    let body = json!({"refresh": refresh}).to_string();
    let mut refreshed = nobody.post("/api/token/refresh/", body.clone()).await;
    while refreshed.status == StatusCode::OK {
        refreshed = nobody.post("/api/token/refresh/", body.clone()).await;
    }
    refused(&refreshed, StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn workers_that_log_in_at_once_all_get_in_though_somebody_there_shows_bad_keys() {
    let server = Server::start().await;
    user(&*server.store, "worker", Role::Service, "default").await;
    let nobody = server.nobody();
    for _ in 0..20 {
        let stock = Client::new(server.base(), Some("EMPTY".to_owned()));
        stock.get("/v1/models").await;
    }
    let logins = (0..12).map(|_| logged_in(&nobody, "worker"));
    futures_util::future::join_all(logins).await;
}
