//! Calls that change something, sent twice: the repeat changes nothing.

use http::Method;
use proto::{End, ErrorCode, EventId, JobError, LeaseToken};
use queue::{Owner, Queue as _, Scope};
use serde_json::json;

use crate::{
    client::{Client, Reply},
    server::Server,
    worker::{CHAT_DONE, chat, report},
};

const CHAT: &str = r#"{"op":"chat","body":{"model":"m"}}"#;

/// What the store holds: its counts, every job, and every log.
async fn held(server: &Server) -> String {
    let mut held = format!("{:?}\n", server.store.counts());
    for job in server.store.list(Owner::Anyone, 100).await.unwrap() {
        let log = server.store.log(Owner::Anyone, job.new.id).await;
        let log = log.unwrap().unwrap();
        let page = log.read(EventId::default(), usize::MAX).await.unwrap();
        held += &format!("{job:?}\n{page:?}\n");
    }
    held
}

/// Sends a request twice, and returns the second answer.
async fn twice(server: &Server, what: &str, send: impl AsyncFn() -> Reply) -> Reply {
    let first = send().await;
    assert!(first.status.is_success(), "{what}: {}", first.status);
    first.text().await;
    let before = held(server).await;
    let second = send().await;
    assert!(
        second.status.is_success() || second.status.is_client_error(),
        "{what}: {}",
        second.status
    );
    assert_eq!(held(server).await, before, "{what}");
    second
}

/// Submits a job, and returns its path.
async fn submitted(client: &Client) -> String {
    let job = client.post("/api/jobs", CHAT).await.json().await;
    format!("/api/jobs/{}", job["id"].as_str().unwrap())
}

/// Leases the only job that waits.
async fn leased(worker: &Client) -> LeaseToken {
    let poll = json!({
        "worker": "w", "version": "0", "report": report(&["m"]), "free": 1, "wait_ms": 0,
    });
    let polled = worker.post("/api/worker/v1/poll", poll.to_string()).await;
    polled.polled().await.leases[0].head.token
}

fn path(token: LeaseToken, what: &str) -> String {
    let LeaseToken { job, attempt } = token;
    format!("/api/worker/v1/jobs/{job}/{attempt}/{what}")
}

#[tokio::test]
async fn whatever_a_worker_sends_twice_changes_the_store_once() {
    let failed = End::Failed {
        error: JobError::new(ErrorCode::EngineFailed, "no"),
    };
    let nack = |retry| json!({"retry": retry, "code": "engine_failed", "message": "no"});
    for (what, body) in [
        ("lines?first=2", format!("{}\n{CHAT_DONE}\n", chat("b"))),
        ("extend", String::new()),
        (
            "end",
            json!({"lines": 1, "end": End::Completed}).to_string(),
        ),
        ("end", json!({"lines": 1, "end": failed}).to_string()),
        ("nack", nack(json!("now")).to_string()),
        ("nack", nack(json!({"after_ms": 60_000})).to_string()),
        ("nack", nack(json!("never")).to_string()),
    ] {
        let server = Server::start().await;
        let client = server.requester().await;
        let worker = server.client("default", &[Scope::Work]).await;
        submitted(&client).await;
        let token = leased(&worker).await;
        let line = worker.post(&path(token, "lines?first=1"), chat("a")).await;
        assert!(line.status.is_success(), "{}", line.status);
        let send = async || worker.post(&path(token, what), body.clone()).await;
        twice(&server, &format!("{what} {body}"), send).await;
    }
}

#[tokio::test]
async fn whatever_a_requester_sends_twice_changes_the_store_once() {
    let server = Server::start().await;
    let client = server.requester().await;
    let worker = server.client("default", &[Scope::Work]).await;

    let waiting = submitted(&client).await;
    let delete = async || client.send(Method::DELETE, &waiting, "").await;
    twice(&server, "cancel a waiting job", delete).await;

    let running = submitted(&client).await;
    let token = leased(&worker).await;
    let delete = async || client.send(Method::DELETE, &running, "").await;
    twice(&server, "cancel a running job", delete).await;
    let failed = json!({"retry": "never", "code": "cancelled", "message": ""});
    let ended = worker.post(&path(token, "nack"), failed.to_string()).await;
    assert!(ended.status.is_success(), "{}", ended.status);

    let submission = [("idempotency-key", "one")];
    let submit = async || {
        client
            .send_with(Method::POST, "/api/jobs", &submission, CHAT)
            .await
    };
    let again = twice(&server, "submit with an idempotency key", submit).await;
    let found = again.json().await["id"].take();
    let token = leased(&worker).await;
    assert_eq!(found, token.job.to_string());

    let nack = json!({"retry": "never", "code": "engine_failed", "message": "no"});
    let ended = worker.post(&path(token, "nack"), nack.to_string()).await;
    assert!(ended.status.is_success(), "{}", ended.status);
    let retry = format!("/api/jobs/{}/retry", token.job);
    let retry = async || client.post(&retry, "").await;
    twice(&server, "retry a failed job", retry).await;
}
