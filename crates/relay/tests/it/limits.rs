//! Rate limits, limits on concurrent requests, and limits on connections.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hearth_relay::{RelaySettings, SystemWorld, World};
use http::{Method, StatusCode};
use proto::{Dialect, JobState, Timestamp, worker::SUBPROTOCOL};
use queue::{NewJob, NewQuery, Owner, Queries as _, Queue as _, Role, Scope, conformance::sample};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::{Client, Reply},
    gated::Gated,
    in_time,
    people::{PASSWORD, client_of, logged_in, user},
    server::{Ahead, Server},
    sessions::opened,
    worker::{CHAT_DONE, Scripted},
};

fn seconds(reply: &Reply) -> u64 {
    reply.header("retry-after").parse().unwrap()
}

fn refused(reply: &Reply, status: StatusCode, code: &str) {
    assert_eq!(reply.status, status);
    assert_eq!(reply.header("x-hearth-error"), code);
    assert!(seconds(reply) >= 1);
}

fn nothing_to_do() -> String {
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
async fn when_there_is_too_much_to_do_requests_are_shed_but_health_and_workers_get_through() {
    let mut settings = RelaySettings::default();
    settings.at_work_max = 0;
    let server = Server::with(settings).await;
    let scopes = [Scope::Enqueue, Scope::Read, Scope::Work];
    let client = server.client("default", &scopes).await;
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..8 {
        for reply in [
            client.get("/api/tags").await,
            client.get("/v1/models").await,
            client.post("/api/chat", r#"{"model":"m"}"#).await,
            client.post("/api/jobs", "{}").await,
        ] {
            refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "busy");
            assert_eq!(reply.header("x-should-retry"), "true");
            waits.insert(seconds(&reply));
        }
    }
    assert!(
        waits.len() > 1 && waits.iter().all(|wait| (1..=5).contains(wait)),
        "{waits:?}"
    );
    for path in ["/healthz", "/readyz"] {
        assert_eq!(client.get(path).await.status, StatusCode::OK, "{path}");
    }
    let polled = client.post("/api/worker/v1/poll", nothing_to_do()).await;
    assert_eq!(polled.status, StatusCode::OK);
    let _worker = Scripted::ready(&server).await;
}

/// A request that every worker of the founding systems can run.
fn question(n: u8, dialect: Dialect) -> NewJob {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    NewJob {
        account: sample::account("default"),
        body: body.into(),
        dialect,
        ..sample::job(n)
    }
}

#[tokio::test]
async fn a_flood_keeps_no_worker_of_the_founding_systems_from_its_work() {
    let mut settings = RelaySettings::default();
    settings.at_work_max = 0;
    let server = Server::with(settings).await;
    let (store, now) = (server.store.clone(), SystemWorld.now());
    let worker = server
        .client("default", &[Scope::Enqueue, Scope::Work])
        .await;
    let key = worker.key.clone().unwrap();
    let headerless = Client::new(format!("{}/k/{key}", server.base()), None);
    for (n, client) in [(1, &worker), (2, &headerless)] {
        let job = question(n, Dialect::RelayPolling);
        store.enqueue(now, job).await.unwrap();
        let polled = client.get("/api/ollama/poll").await;
        assert_eq!(polled.status, StatusCode::OK);
        let id = polled.json().await["request"]["id"].take();
        let answer = json!({"id": id, "response": "a", "model": "m", "success": true});
        let told = client
            .post("/api/ollama/response", answer.to_string())
            .await;
        assert_eq!(told.status, StatusCode::OK);
    }
    store
        .enqueue(now, question(3, Dialect::RelayPolling))
        .await
        .unwrap();
    let polled = worker.get("/api/v1/ollama/poll").await.json().await;
    let answer = json!({"job_uuid": polled["job"]["job_uuid"], "response_text": "a"}).to_string();
    let told = worker.post("/api/v1/ollama/response", answer).await;
    assert_eq!(told.status, StatusCode::OK);
    let query = NewQuery {
        job: question(4, Dialect::Queries),
        project: 1,
        user: None,
    };
    let id = store.create_query(now, query).await.unwrap();
    let claimed = worker.post("/api/queries/claim_next/", "").await;
    assert_eq!(claimed.status, StatusCode::OK);
    let log = json!({"project": 1, "query": id, "log_data": "x"}).to_string();
    let logged = worker.post("/api/logs/", log).await;
    assert_eq!(logged.status, StatusCode::CREATED);
    let (path, done) = (
        format!("/api/queries/{id}/"),
        json!({"status": "done", "answer_text": "a"}),
    );
    let patched = worker.send(Method::PATCH, &path, done.to_string()).await;
    assert_eq!(patched.status, StatusCode::OK);
    let desktop = r#"{"clientId":"a","platform":"b","version":"c"}"#;
    let bridge = worker.post("/api/bridge/register", desktop).await;
    let bridge = bridge.json().await["bridgeId"].take();
    let at = |what: &str| format!("/api/bridge/{}/{what}", bridge.as_str().unwrap());
    store
        .enqueue(now, question(5, Dialect::Ollama))
        .await
        .unwrap();
    let polled = worker.get(&at("poll")).await.json().await;
    let answer = json!({"requestId": polled["requests"][0]["id"], "body": CHAT_DONE}).to_string();
    for (what, body) in [
        ("provider-status", "{}"),
        ("heartbeat", ""),
        ("response", &answer),
    ] {
        let told = worker.post(&at(what), body.to_owned()).await;
        assert_eq!(told.status, StatusCode::OK, "{what}");
    }
    for n in 1..=5 {
        let job = store.get(Owner::Anyone, sample::id(n)).await.unwrap();
        assert_eq!(job.unwrap().state, JobState::Completed, "{n}");
    }
    let shed = worker
        .post("/api/ollama/request", r#"{"prompt":"x"}"#)
        .await;
    refused(&shed, StatusCode::SERVICE_UNAVAILABLE, "busy");
}

/// A world whose random bytes are all the same.
#[derive(Debug)]
struct Loaded(u8);

impl World for Loaded {
    fn now(&self) -> Timestamp {
        SystemWorld.now()
    }

    fn random(&self) -> std::io::Result<[u8; 32]> {
        Ok([self.0; 32])
    }
}

#[tokio::test]
async fn chance_says_after_how_many_seconds_from_one_to_five_to_come_again() {
    for (thrown, wait) in [(0, 1), (4, 5), (255, 1)] {
        let mut settings = RelaySettings::default();
        settings.at_work_max = 0;
        let server = Server::in_world(Arc::new(Loaded(thrown)), settings).await;
        let client = server.client("default", &[Scope::Read]).await;
        let reply = client.get("/api/tags").await;
        refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "busy");
        assert_eq!(seconds(&reply), wait, "{thrown}");
    }
}

#[tokio::test]
async fn a_request_whose_work_does_not_end_is_given_up_and_makes_room() {
    let mut settings = RelaySettings::default();
    settings.at_work_max = 1;
    settings.work_patience = Duration::from_millis(100);
    let gated = Gated::new(0, 0);
    let server = Server::beside(gated.clone(), gated.inner.clone(), settings).await;
    let client = server.requester().await;
    let job = client
        .post("/api/jobs", r#"{"op":"chat","body":{"model":"m"}}"#)
        .await;
    let job = job.json().await["id"].as_str().unwrap().to_owned();
    gated.is_stuck.store(true, Ordering::SeqCst);
    let path = format!("/api/jobs/{job}");
    for _ in 0..2 {
        let reply = in_time(client.get(&path)).await;
        refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "busy");
    }
    gated.is_stuck.store(false, Ordering::SeqCst);
    assert_eq!(client.get(&path).await.status, StatusCode::OK);
}

/// The disk stalls while jobs and queries are submitted, and writes all of them later.
#[tokio::test]
async fn a_submission_that_is_given_up_leaves_no_job_or_says_that_its_outcome_is_unknown() {
    let mut settings = RelaySettings::default();
    settings.work_patience = Duration::from_millis(300);
    let gated = Gated::new(0, 0);
    let store = gated.inner.clone();
    let server = Server::beside(gated.clone(), store.clone(), settings).await;
    let _worker = Scripted::serving(&server, "default", &["m"], 0).await;
    let client = server.requester().await;
    let native = r#"{"op":"chat","body":{"model":"m"}}"#;
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let key = [("idempotency-key", "k")];
    let keyed = || client.send_with(Method::POST, "/api/jobs", &key, native);
    let before = client.post("/api/jobs", native).await.json().await;
    let before = format!("/api/jobs/{}", before["id"].as_str().unwrap());
    let stalled = gated.writing.acquire().await.unwrap();
    let (a, b, c, d, e, cancelled, query) = tokio::join!(
        client.post("/api/jobs", native),
        client.post("/api/ollama/request", r#"{"model":"m","prompt":"x"}"#),
        client.post("/api/chat", chat),
        client.post("/v1/chat/completions", chat),
        keyed(),
        client.send(Method::DELETE, &before, ""),
        client.post("/api/queries/", r#"{"project":1,"query_text":"x"}"#),
    );
    for reply in [a, b, c, d] {
        refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "busy");
        assert_eq!(reply.header("x-should-retry"), "true");
    }
    for (reply, retry, after) in [
        (e, "true", "5"),
        (cancelled, "true", "5"),
        (query, "false", ""),
    ] {
        assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(reply.header("x-hearth-error"), "outcome_unknown");
        assert_eq!(reply.header("x-should-retry"), retry);
        assert_eq!(reply.header("retry-after"), after);
    }
    drop(stalled);
    // Permits are handed out in order: after all that was submitted and cancelled.
    drop(in_time(gated.writing.acquire()).await);
    let jobs = store.list(Owner::Anyone, 9).await.unwrap();
    let count = |state| jobs.iter().filter(|job| job.state == state).count();
    assert_eq!((jobs.len(), count(JobState::Cancelled)), (7, 4));
    assert_eq!(
        count(JobState::Queued),
        3,
        "the one with a key, the query, and the one before"
    );
    let again = keyed().await;
    assert_eq!(again.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn a_request_that_waits_for_a_worker_is_not_at_work() {
    for insecure_dev in [false, true] {
        let mut settings = RelaySettings::default();
        settings.at_work_max = 1;
        settings.insecure_dev = insecure_dev;
        let server = Server::with(settings).await;
        let _worker = Scripted::serving(&server, "default", &["m"], 0).await;
        let client = if insecure_dev {
            server.nobody()
        } else {
            server.requester().await
        };
        let body = r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
        let asked: Vec<_> = (0..5)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    let busy = StatusCode::SERVICE_UNAVAILABLE;
                    // Two simultaneous requests exceed the limit.
                    while client.post("/api/chat", body).await.status == busy {}
                })
            })
            .collect();
        server.until(|counts| counts.queued == 5).await;
        // The last request may not have released its slot yet.
        let listed = async { while client.get("/api/tags").await.status != StatusCode::OK {} };
        in_time(listed).await;
        asked.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The disk stalls while the relay reads what it needs to know before it hands anything in.
#[tokio::test]
async fn what_is_given_up_before_it_changed_anything_may_be_sent_again() {
    let mut settings = RelaySettings::default();
    settings.work_patience = Duration::from_millis(100);
    let gated = Gated::new(0, 0);
    let store = gated.inner.clone();
    let server = Server::beside(gated.clone(), store.clone(), settings).await;
    let client = server.requester().await;
    gated.is_stuck.store(true, Ordering::SeqCst);
    let retry = format!("/api/jobs/{}/retry", "0".repeat(32));
    let reply = in_time(client.post(&retry, "")).await;
    refused(&reply, StatusCode::SERVICE_UNAVAILABLE, "busy");
    assert_eq!(reply.header("x-should-retry"), "true");
    assert!(store.list(Owner::Anyone, 9).await.unwrap().is_empty());
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
