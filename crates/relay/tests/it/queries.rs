//! The query service: requesters and workers.

mod access;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hearth_relay::{Relay, RelaySettings, SystemWorld, World as _};
use http::{Method, StatusCode};
use proto::worker::WorkerMessage;
use queue::{Owner, Queries as _, Queue as _, Role, Scope, Store, Users as _};
use queue_sqlite::SqliteQueue;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, Reply},
    gated::Gated,
    in_time,
    people::{client_of, user},
    readers::stuck,
    server::Server,
    worker::Scripted,
};

/// A relay with a requester and a worker of the query service, both logged in.
async fn scene() -> (Server, Client, Client) {
    let server = Server::start().await;
    user(&*server.store, "jan", Role::User, "default").await;
    user(&*server.store, "worker", Role::Service, "default").await;
    let jan = client_of(&server.nobody(), "jan").await;
    let worker = client_of(&server.nobody(), "worker").await;
    (server, jan, worker)
}

async fn asked(client: &Client, text: &str) -> u64 {
    let body = json!({"project": 1, "query_text": text}).to_string();
    let reply = client.post("/api/queries/", body).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    reply.json().await["id"].as_u64().unwrap()
}

async fn claimed(client: &Client) -> Value {
    let reply = client.post("/api/queries/claim_next/", "").await;
    assert_eq!(reply.status, StatusCode::OK);
    reply.json().await
}

async fn patched(client: &Client, id: u64, body: Value) -> Reply {
    let path = format!("/api/queries/{id}/");
    client.send(Method::PATCH, &path, body.to_string()).await
}

async fn query(client: &Client, id: u64) -> Value {
    client
        .get(&format!("/api/queries/{id}/"))
        .await
        .json()
        .await
}

#[tokio::test]
async fn a_query_goes_from_its_requester_to_a_worker_of_the_service_and_back() {
    let (server, jan, worker) = scene().await;
    let id = asked(&jan, "Тестовый запрос").await;
    let waiting = query(&jan, id).await;
    assert_eq!(
        (&waiting["status"], &waiting["answer_text"]),
        (&"queued".into(), &"".into())
    );
    assert_eq!(waiting["query_started"], json!(null));

    let work = claimed(&worker).await;
    assert_eq!(
        work.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "id",
            "project",
            "project_name",
            "user",
            "user_name",
            "query_text",
            "answer_text",
            "status",
            "query_created",
            "query_started",
            "query_finished",
            "logs_count"
        ]
    );
    assert_eq!(
        (&work["id"], &work["status"]),
        (&id.into(), &"in_progress".into())
    );
    assert_eq!(
        (&work["query_text"], &work["user_name"]),
        (&"Тестовый запрос".into(), &"jan".into())
    );
    let asker = server.store.find_user_named("jan").await.unwrap().unwrap();
    assert_eq!(work["user"], asker.id);
    assert!(work["query_started"].as_str().unwrap().ends_with('Z'));

    let log = json!({"project": work["project"], "query": id, "log_data": "Начинаем"});
    let reply = worker.post("/api/logs/", log.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let entry = reply.json().await;
    assert_eq!(
        entry.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["id", "project", "query", "log_data", "create_dtime"]
    );

    let done = json!({"status": "done", "answer_text": "Результат", "query_finished": "2025-11-11T12:05:00"});
    let reply = patched(&worker, id, done.clone()).await;
    assert_eq!(reply.status, StatusCode::OK);
    let answered = reply.json().await;
    assert_eq!(
        (&answered["status"], &answered["answer_text"]),
        (&"done".into(), &"Результат".into())
    );
    assert_ne!(
        answered["query_finished"], "2025-11-11T12:05:00",
        "the relay's own clock"
    );
    assert_eq!(
        patched(&worker, id, done).await.status,
        StatusCode::OK,
        "once more"
    );

    let seen = query(&jan, id).await;
    assert_eq!(
        (&seen["answer_text"], &seen["logs_count"]),
        (&"Результат".into(), &1.into())
    );
    assert_eq!(seen["logs"], json!([entry]));
    let logs = jan
        .get(&format!("/api/queries/{id}/logs/"))
        .await
        .json()
        .await;
    assert_eq!(logs, seen["logs"]);

    let reply = worker.post("/api/queries/claim_next/", "").await;
    let status = reply.status;
    assert_eq!(
        (status, reply.text().await.as_str()),
        (
            StatusCode::NOT_FOUND,
            r#"{"detail":"No queued queries available"}"#
        )
    );
}

#[tokio::test]
async fn an_agent_answers_a_query_and_no_worker_of_the_service_gets_other_jobs() {
    let (server, jan, service) = scene().await;
    let mut agent = Scripted::serving(&server, "default", &["m"], 1).await;
    let native = r#"{"op":"chat","body":{"model":"m","messages":[]}}"#;
    jan.post("/api/jobs", native).await;
    let held = agent.lease().await;
    let id = asked(&jan, "hello").await;
    jan.post("/api/jobs", native).await;
    assert_eq!(claimed(&service).await["id"], id);
    assert_eq!(
        service.post("/api/queries/claim_next/", "").await.status,
        StatusCode::NOT_FOUND
    );

    let second = asked(&jan, "again").await;
    agent.answer(&held, &["x"]).await;
    let job = agent.lease().await;
    agent.answer(&job, &["x"]).await;
    let job = agent.lease().await;
    assert_eq!(
        job.body,
        r#"{"model":"m","messages":[{"role":"user","content":"again"}],"stream":true}"#
    );
    agent.answer(&job, &["par", "tly"]).await;
    let seen = query(&jan, second).await;
    assert_eq!(
        (&seen["status"], &seen["answer_text"]),
        (&"done".into(), &"partly".into())
    );
}

#[tokio::test]
async fn a_lost_claim_waits_again_and_its_late_answer_is_dropped() {
    let mut settings = RelaySettings::default();
    settings.legacy_lease = Duration::from_millis(30);
    let server = Server::with(settings).await;
    let requester = server.requester().await;
    let slow = server.client("default", &[Scope::Work]).await;
    let quick = server.client("default", &[Scope::Work]).await;
    let id = asked(&requester, "x").await;
    claimed(&slow).await;
    server.until(|counts| counts.queued == 1).await;
    assert_eq!(query(&requester, id).await["status"], "queued");
    let late = patched(&slow, id, json!({"status": "done", "answer_text": "late"})).await;
    assert_eq!(late.status, StatusCode::OK);
    assert_eq!(late.json().await["status"], "queued", "dropped");
    assert_eq!(claimed(&quick).await["id"], id);
}

#[tokio::test]
async fn a_query_given_back_waits_again_and_a_draft_becomes_the_answer() {
    let (_server, jan, worker) = scene().await;
    let id = asked(&jan, "x").await;
    claimed(&worker).await;
    let back = patched(&worker, id, json!({"status": "queued"}))
        .await
        .json()
        .await;
    assert_eq!(
        (&back["status"], &back["query_started"]),
        (&"queued".into(), &json!(null))
    );
    claimed(&worker).await;
    let draft = patched(&worker, id, json!({"answer_text": "half"}))
        .await
        .json()
        .await;
    assert_eq!(
        (&draft["status"], &draft["answer_text"]),
        (&"in_progress".into(), &"half".into())
    );
    let done = patched(&worker, id, json!({"status": "done"}))
        .await
        .json()
        .await;
    assert_eq!(done["answer_text"], "half");
    let weird = patched(&worker, id, json!({"status": "weird"})).await;
    assert_eq!(weird.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        weird.text().await,
        r#"{"status":["\"weird\" is not a valid choice."]}"#
    );
    let after = patched(
        &worker,
        id,
        json!({"status": "queued", "answer_text": "other"}),
    )
    .await;
    assert_eq!(
        after.json().await["status"],
        "done",
        "what ended never changes"
    );
}

#[tokio::test]
async fn a_query_that_was_accepted_is_answered_so_where_nothing_can_be_read_or_gathered() {
    const MIB: usize = 1024 * 1024;
    let gated = Gated::new(0, 0);
    let mut settings = RelaySettings::default();
    settings.gathered_max = 0;
    let server = Server::beside(gated.clone(), gated.inner.clone(), settings).await;
    let requester = server.requester().await;
    // A client that does not read its response, which is larger than the buffers of its socket.
    let body = json!({"project": 7, "query_text": "\u{1f600}".repeat(2 * MIB)}).to_string();
    let key = requester.key.as_deref().unwrap();
    let request = format!(
        "POST /api/queries/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut slow = stuck(&server, &request).await;
    let mut head = [0; 12];
    in_time(slow.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 201");
    let long = "x".repeat(2 * MIB);
    for (text, is_blind) in [("short", true), (long.as_str(), false)] {
        gated.is_blind.store(is_blind, Ordering::SeqCst);
        let body = json!({"project": 7, "query_text": text}).to_string();
        let reply = requester.post("/api/queries/", body).await;
        assert_eq!(reply.status, StatusCode::CREATED, "it is in the queue");
        let made = reply.json().await;
        gated.is_blind.store(false, Ordering::SeqCst);
        let id = made["id"].as_u64().unwrap();
        let (count, found) = gated
            .inner
            .list_queries(Owner::Anyone, &[], 0, 1)
            .await
            .unwrap();
        assert_eq!(
            (found[0].id, count),
            (id, server.store.counts().queued as u64)
        );
        assert_eq!(
            (&made["query_text"], &made["project"]),
            (&text.into(), &7.into())
        );
        if is_blind {
            let mut shown = query(&requester, id).await;
            assert_eq!(shown["logs"].take(), json!([]));
            shown.as_object_mut().unwrap().remove("logs");
            // The queue's own clock may be a moment ahead.
            shown["query_created"] = made["query_created"].clone();
            assert_eq!(made, shown);
        }
    }
}

#[tokio::test]
async fn a_query_whose_worker_could_not_be_told_is_given_back_at_once() {
    let gated = Gated::new(2, 0);
    let store = gated.inner.clone();
    let server = Server::beside(gated.clone(), store, RelaySettings::default()).await;
    let requester = server.requester().await;
    let worker = server.client("default", &[Scope::Work]).await;
    let id = asked(&requester, "x").await;
    gated.is_blind.store(true, Ordering::SeqCst);
    let refused = worker.post("/api/queries/claim_next/", "").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    gated.is_blind.store(false, Ordering::SeqCst);
    server.until(|counts| counts.queued == 1).await;
    assert_eq!(claimed(&worker).await["id"], id);
}

#[tokio::test]
async fn only_what_has_ended_is_deleted() {
    let (_server, jan, worker) = scene().await;
    let id = asked(&jan, "x").await;
    let path = format!("/api/queries/{id}");
    assert_eq!(
        jan.send(Method::DELETE, &path, "").await.status,
        StatusCode::BAD_REQUEST
    );
    claimed(&worker).await;
    patched(&worker, id, json!({"status": "failed"})).await;
    assert_eq!(
        jan.send(Method::DELETE, &path, "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(jan.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn queries_are_listed_by_pages_of_fifty() {
    let (server, jan, _worker) = scene().await;
    for n in 0..51 {
        asked(&jan, &n.to_string()).await;
    }
    let first = jan.get("/api/queries/").await.json().await;
    assert_eq!(
        (&first["count"], &first["previous"]),
        (&51.into(), &json!(null))
    );
    assert_eq!(first["results"].as_array().unwrap().len(), 50);
    assert_eq!(first["results"][0]["query_text"], "50", "newest first");
    let next = first["next"].as_str().unwrap();
    assert_eq!(next, format!("{}/api/queries/?page=2", server.base()));
    let second = jan.get("/api/queries/?page=2").await.json().await;
    assert_eq!(
        (&second["next"], &second["results"][0]["query_text"]),
        (&json!(null), &"0".into())
    );
    assert_eq!(
        second["previous"],
        format!("{}/api/queries/", server.base())
    );
    for page in ["3", "0", "x", "-1"] {
        let reply = jan.get(&format!("/api/queries/?page={page}")).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{page}");
        assert_eq!(reply.text().await, r#"{"detail":"Invalid page."}"#);
    }
    assert_eq!(
        jan.get("/api/queries/by_status/").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn users_queries_and_claims_outlive_the_relay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let serve = async || {
        let store = Arc::new(SqliteQueue::open(&path, SystemWorld.now()).unwrap());
        if store.list_users().await.unwrap().is_empty() {
            user(&*store, "worker", Role::Service, "default").await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let relay = Relay::new(
            store as Arc<dyn Store>,
            RelaySettings::default(),
            Arc::new(SystemWorld),
        );
        let served = tokio::spawn(hearth_relay::serve(listener, relay, stop.clone()));
        (base, stop, served)
    };
    let (base, stop, served) = serve().await;
    let worker = client_of(&Client::new(base, None), "worker").await;
    let id = asked(&worker, "x").await;
    claimed(&worker).await;
    let log = json!({"project": 1, "query": id, "log_data": "begun"}).to_string();
    worker.post("/api/logs/", log).await;
    stop.cancel();
    in_time(served).await.unwrap().unwrap();

    let (base, stop, served) = serve().await;
    let worker = Client::new(base, worker.key);
    let reply = patched(&worker, id, json!({"status": "done", "answer_text": "y"})).await;
    assert_eq!(
        reply.status,
        StatusCode::OK,
        "the token and the claim are still good"
    );
    let seen = query(&worker, id).await;
    assert_eq!(
        (&seen["answer_text"], &seen["logs"][0]["log_data"]),
        (&"y".into(), &"begun".into())
    );
    stop.cancel();
    in_time(served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_query_that_an_agent_answers_has_started_when_it_was_lent() {
    let (server, jan, worker) = scene().await;
    let mut agent = Scripted::named(&server, "desk", "default", &["m"], 0).await;
    let id = asked(&jan, "one").await;
    let claim = claimed(&worker).await;
    assert_eq!(claim["id"], id);
    let back = patched(&worker, id, json!({"status": "queued"})).await;
    assert_eq!(back.status, StatusCode::OK);
    assert_eq!(query(&jan, id).await["query_started"], json!(null));
    agent.say(&WorkerMessage::Capacity { slots: 1 }).await;
    let job = agent.lease().await;
    let started = query(&jan, id).await;
    assert_eq!(started["status"], "in_progress");
    assert!(
        started["query_started"].as_str().unwrap().ends_with('Z'),
        "{started}"
    );
    // A late answer of the previous holder is acknowledged and dropped.
    let late = patched(&worker, id, json!({"status": "done", "answer_text": "no"})).await;
    assert_eq!(late.status, StatusCode::OK);
    assert_eq!(late.json().await["status"], "in_progress");
    drop(job);
}
