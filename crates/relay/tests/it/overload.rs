//! Shedding of requests under overload, and requests that are given up.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hearth_relay::{RelaySettings, SystemWorld, World};
use http::{Method, StatusCode};
use proto::{Dialect, JobState, Timestamp};
use queue::{NewJob, NewQuery, Owner, Queries as _, Queue as _, Scope, conformance::sample};
use serde_json::json;

use crate::{
    client::Client,
    gated::Gated,
    in_time,
    limits::{nothing_to_do, refused, seconds},
    server::Server,
    worker::{CHAT_DONE, Scripted},
};

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
