//! Asynchronous jobs: queued without a worker, fetched later, and submitted only once per
//! idempotency key.

use std::sync::atomic::Ordering;

use hearth_relay::{RelaySettings, SystemWorld, World as _};
use http::{Method, StatusCode};
use proto::End;
use queue::Queue as _;

use crate::{
    client::{Client, Reply},
    gated::Gated,
    in_time,
    server::Server,
    worker::Scripted,
};

const CHAT: &str = r#"{"op":"chat","body":{"model":"m","messages":[{}]}}"#;
const OTHER: &str = r#"{"op":"chat","body":{"model":"m","messages":[{}],"x":1}}"#;

async fn keyed(client: &Client, path: &str, key: &str, body: &'static str) -> Reply {
    let header = [("idempotency-key", key)];
    client.send_with(Method::POST, path, &header, body).await
}

async fn submit(client: &Client, body: &str) -> String {
    let reply = client.post("/api/jobs", body.to_owned()).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    reply.json().await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_submissions_at_once_under_one_key_are_one_job() {
    let server = Server::start().await;
    let client = server.requester().await;
    let (a, b) = tokio::join!(
        keyed(&client, "/api/jobs", "k", CHAT),
        keyed(&client, "/api/jobs", "k", CHAT)
    );
    assert_eq!([a.status, b.status], [StatusCode::ACCEPTED; 2]);
    let replayed = [&a, &b].map(|reply| reply.header("idempotent-replayed").to_owned());
    assert_eq!(replayed.iter().filter(|said| *said == "true").count(), 1);
    assert_eq!(a.json().await["id"], b.json().await["id"]);
    assert_eq!(server.store.counts().queued, 1);
}

#[tokio::test]
async fn what_was_accepted_is_answered_so_also_where_nothing_can_be_read() {
    let gated = Gated::new(0, 0);
    let store = gated.inner.clone();
    let server = Server::beside(gated.clone(), store.clone(), RelaySettings::default()).await;
    let client = server.requester().await;
    gated.is_blind.store(true, Ordering::SeqCst);
    let url = r#""webhook":{"url":"https://example.org/told"}"#;
    let body = CHAT.replacen('{', &format!("{{{url},"), 1);
    let reply = client.post("/api/jobs", body).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "it is on disk");
    let job = reply.json().await;
    assert_eq!(job["state"], "queued");
    assert_eq!(job["position"], 0);
    assert_eq!(job["webhook"]["state"], "waiting");
    assert!(
        job["webhook"]["secret"]
            .as_str()
            .unwrap()
            .starts_with("whsec_")
    );
    assert_eq!(store.counts().queued, 1);
}

#[tokio::test]
async fn a_repeat_finds_its_job_after_a_restart_and_with_its_answer() {
    let server = Server::start().await;
    let client = server.requester().await;
    // The request names no model. At first an online worker provides one, later none is online.
    let body = r#"{"op":"chat","body":{"messages":[{}]}}"#;
    let mut worker = Scripted::ready(&server).await;
    let first = keyed(&client, "/api/jobs", "k", body).await.json().await;
    let job = worker.lease().await;
    worker.answer(&job, &["Hello"]).await;
    let (store, key) = (server.store.clone(), client.key.clone());
    drop(worker);
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());

    let server = Server::over(store, RelaySettings::default()).await;
    let client = Client::new(server.base(), key);
    let again = keyed(&client, "/api/jobs", "k", body).await;
    assert_eq!(again.status, StatusCode::ACCEPTED);
    let again = again.json().await;
    assert_eq!(
        (&again["id"], &again["state"]),
        (&first["id"], &"completed".into())
    );
}

#[tokio::test]
async fn a_key_is_one_request_of_one_account() {
    let server = Server::start().await;
    let client = server.requester().await;
    let first = keyed(&client, "/api/jobs", "k", CHAT).await.json().await;
    let other = keyed(&client, "/api/jobs", "k", OTHER).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.header("x-hearth-error"), "idempotency_conflict");
    let scopes = [queue::Scope::Enqueue, queue::Scope::Read];
    let stranger = server.client("other", &scopes).await;
    let theirs = keyed(&stranger, "/api/jobs", "k", CHAT).await.json().await;
    assert_ne!(first["id"], theirs["id"]);
    for wrong in ["", &"k".repeat(256)] {
        let refused = keyed(&client, "/api/jobs", wrong, CHAT).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(server.store.counts().queued, 2);
}

#[tokio::test]
async fn a_requester_who_left_and_asks_again_under_his_key_gets_the_same_answer() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for (path, body) in [
        (
            "/api/chat",
            r#"{"model":"m","messages":[{}],"stream":true}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#,
        ),
    ] {
        let asking = tokio::spawn({
            let client = client.clone();
            async move { keyed(&client, path, path, body).await }
        });
        let job = worker.lease().await;
        worker
            .line(job.token(), 1, &crate::worker::chat("One "))
            .await;
        let reply = in_time(asking).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        let id = reply.header("x-hearth-job").to_owned();
        drop(reply);
        worker
            .line(job.token(), 2, &crate::worker::chat("two"))
            .await;
        worker.line(job.token(), 3, crate::worker::CHAT_DONE).await;
        worker.end(job.token(), 3, End::Completed).await;

        let again = keyed(&client, path, path, body).await;
        assert_eq!(again.header("x-hearth-job"), id);
        let text = again.text().await;
        assert!(text.contains("One ") && text.contains("two"), "{text}");
        let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
        assert_eq!(
            (&job["attempt"], &job["state"]),
            (&1.into(), &"completed".into())
        );
    }
}

#[tokio::test]
async fn a_job_waits_for_an_agent_that_comes_later() {
    let server = Server::start().await;
    let client = server.requester().await;
    let body = r#"{"op":"chat","deadline_ms":600000,"body":{"model":"m","messages":[{}]}}"#;
    let id = submit(&client, body).await;
    let chat = tokio::spawn({
        let client = client.clone();
        async move {
            let deadline = [("x-hearth-deadline-ms", "600000")];
            let body = r#"{"model":"m","messages":[{}],"stream":false}"#;
            client
                .send_with(Method::POST, "/api/chat", &deadline, body)
                .await
        }
    });
    server.until(|counts| counts.queued == 2).await;
    let mut worker = Scripted::ready(&server).await;
    for text in ["first", "second"] {
        let job = worker.lease().await;
        worker.answer(&job, &[text]).await;
        worker
            .say(&proto::worker::WorkerMessage::Capacity { slots: 1 })
            .await;
    }
    let path = format!("/api/jobs/{id}/answer?wait=20");
    let answer = client.get(&path).await.json().await;
    assert_eq!(answer["message"]["content"], "first");
    let chat = in_time(chat).await.unwrap().json().await;
    assert_eq!(chat["message"]["content"], "second");
}

#[tokio::test]
async fn a_job_that_nobody_took_in_time_fails_at_its_deadline() {
    let server = Server::start().await;
    let client = server.requester().await;
    let body = r#"{"op":"chat","deadline_ms":50,"body":{"model":"m","messages":[{}]}}"#;
    let id = submit(&client, body).await;
    let late = client.get(&format!("/api/jobs/{id}/answer?wait=20")).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(late.header("x-hearth-error"), "deadline_exceeded");
    let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(job["state"], "failed");
    assert_eq!(job["error"]["code"], "deadline_exceeded");

    // A worker that connects now finds no job.
    Scripted::ready(&server).await;
    assert_eq!(server.store.counts(), queue::QueueCounts::default());
}

#[tokio::test]
async fn no_deadline_is_longer_than_a_week() {
    let server = Server::start().await;
    let client = server.requester().await;
    for wrong in [0, 604_800_001_u64, u64::MAX] {
        let body = format!(
            r#"{{"op":"chat","deadline_ms":{wrong},"body":{{"model":"m","messages":[{{}}]}}}}"#
        );
        let refused = client.post("/api/jobs", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let header = [("x-hearth-deadline-ms", "604800001")];
    let refused = client
        .send_with(Method::POST, "/api/jobs", &header, CHAT)
        .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_answer_is_fetched_whole_and_waited_for() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submit(&client, CHAT).await;
    let path = format!("/api/jobs/{id}/answer");
    let early = client.get(&path).await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    assert_eq!(early.header("x-hearth-error"), "job_unfinished");

    let waiting = tokio::spawn({
        let (client, path) = (client.clone(), format!("{path}?wait=60"));
        async move { client.get(&path).await }
    });
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    worker.answer(&job, &["Hel", "lo"]).await;
    let answer = in_time(waiting).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-hearth-job"), id);
    let answer = answer.json().await;
    assert_eq!(answer["message"]["content"], "Hello");
    assert_eq!(
        (&answer["done"], &answer["eval_count"]),
        (&true.into(), &2.into())
    );

    let impatient = client.get(&format!("{path}?wait=61")).await;
    assert_eq!(impatient.status, StatusCode::BAD_REQUEST);
    let stranger = server.client("other", &[queue::Scope::Read]).await;
    assert_eq!(stranger.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn jobs_are_searched_and_read_page_by_page() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let model = if n % 2 == 0 { "even" } else { "odd" };
        let op = if n == 4 { "generate" } else { "chat" };
        let body = format!(r#"{{"op":"{op}","body":{{"model":"{model}","n":{n}}}}}"#);
        ids.push(submit(&client, &body).await);
    }
    ids.reverse();
    let cancelled = format!("/api/jobs/{}", ids[0]);
    client.send(Method::DELETE, &cancelled, "").await;
    let list = async |query: &str| {
        let reply = client.get(&format!("/api/jobs{query}")).await;
        assert_eq!(reply.status, StatusCode::OK, "{query}");
        let link = reply.header("link").to_owned();
        let jobs = reply.json().await;
        let jobs = jobs.as_array().unwrap().iter();
        let found: Vec<_> = jobs
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect();
        (found, link)
    };
    assert_eq!(list("").await, (ids.clone(), String::new()));
    assert_eq!(list("?state=queued").await.0, ids[1..]);
    assert_eq!(list("?state=cancelled").await.0, ids[..1]);
    assert_eq!(list("?model=odd").await.0, [&*ids[1], &ids[3]]);
    assert_eq!(list("?op=generate").await.0, ids[..1]);
    assert_eq!(list("?until=1").await.0, [""; 0]);
    assert_eq!(list("?since=1&until=9000000000000").await.0, ids);

    let (mut query, mut seen) = ("?op=chat&limit=3".to_owned(), Vec::new());
    loop {
        let (found, link) = list(&query).await;
        assert!(found.len() <= 3);
        seen.extend(found);
        let next = link.strip_prefix('<').and_then(|link| link.split_once('>'));
        let Some((next, rel)) = next else { break };
        assert_eq!(rel, r#"; rel="next""#);
        assert!(next.starts_with("?op=chat&limit=3&after="), "{next}");
        next.clone_into(&mut query);
    }
    assert_eq!(seen, ids[1..]);
    for wrong in ["?state=lost", "?after=x", "?since=x", "?op=dance"] {
        let refused = client.get(&format!("/api/jobs{wrong}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}
