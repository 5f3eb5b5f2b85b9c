//! Repeats under an idempotency key whose job is erased.

use std::{sync::Arc, time::Duration};

use hearth_relay::{RelaySettings, World as _};
use http::{Method, StatusCode};
use queue::{KEY_RETENTION, Owner, Queue as _, QueueCounts, RESULT_RETENTION};

use crate::{
    client::{Client, Reply},
    in_time,
    server::{Ahead, Server},
    worker::Scripted,
};

/// The routes that take a key and a request for each, of every way in which a job is submitted.
const REQUESTS: [(&str, &str); 5] = [
    (
        "/api/jobs",
        r#"{"op":"chat","body":{"model":"m","messages":[{"content":"hi"}]}}"#,
    ),
    ("/api/ollama/request", r#"{"model":"m","prompt":"hi"}"#),
    (
        "/api/chat",
        r#"{"model":"m","messages":[{"content":"hi"}],"stream":false}"#,
    ),
    (
        "/v1/chat/completions",
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
    ),
    (
        "/v1/messages",
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}"#,
    ),
];

/// Sends a request under a key that is the path.
async fn send(client: &Client, path: &str, body: String) -> Reply {
    let key = [("idempotency-key", path)];
    client.send_with(Method::POST, path, &key, body).await
}

#[tokio::test]
async fn a_late_repeat_is_told_that_its_job_was_erased_and_makes_no_second_one() {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let client = server.requester().await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 9).await;
    for (path, body) in REQUESTS {
        let client = client.clone();
        let asked = tokio::spawn(async move { send(&client, path, body.into()).await });
        let job = worker.lease().await;
        worker.answer(&job, &["Hello"]).await;
        let reply = in_time(asked).await.unwrap();
        assert!(reply.status.is_success(), "{path}: {}", reply.status);
    }
    server
        .until(|counts| counts == QueueCounts::default())
        .await;

    let almost = KEY_RETENTION - Duration::from_secs(600);
    for later in [RESULT_RETENTION, almost] {
        clock.by(later);
        server.store.reap(clock.now()).await.unwrap();
        for (path, body) in REQUESTS {
            let again = send(&client, path, body.into()).await;
            assert_eq!(again.status, StatusCode::GONE, "{path}");
            assert_eq!(again.header("x-hearth-error"), "erased", "{path}");
            let other = send(&client, path, body.replace("hi", "ho")).await;
            assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
            assert_eq!(other.header("x-hearth-error"), "idempotency_conflict");
        }
        let jobs = server.store.list(Owner::Anyone, 9).await.unwrap();
        assert!(jobs.is_empty(), "{jobs:?}");
    }

    // Keys are kept up to a full minute.
    clock.by(KEY_RETENTION + Duration::from_secs(60));
    server.store.reap(clock.now()).await.unwrap();
    let (path, body) = REQUESTS[0];
    let new = send(&client, path, body.into()).await;
    assert_eq!(new.status, StatusCode::ACCEPTED);
    assert_eq!(new.header("idempotent-replayed"), "");
    assert!(worker.lease().await.body.contains("hi"));
}
