//! Requests and answers over a size limit, and the errors for them.

use std::sync::Arc;

use hearth_relay::RelaySettings;
use http::StatusCode;
use proto::{End, ErrorCode, worker::RelayMessage};
use queue::{MemoryQueue, QueueLimits};

use crate::{
    client::{Client, Reply},
    server::Server,
    worker::{Scripted, chat},
};

async fn on(queue_limits: QueueLimits) -> Server {
    Server::over(
        Arc::new(MemoryQueue::new(queue_limits)),
        RelaySettings::default(),
    )
    .await
}

async fn submit(client: &Client) -> Reply {
    let job = r#"{"op":"chat","deadline_ms":60000,"body":{"model":"m","messages":[{}]}}"#;
    client.post("/api/jobs", job).await
}

#[tokio::test]
async fn a_full_share_is_429_and_a_full_queue_503_and_both_say_when_to_come_again() {
    let server = on(QueueLimits {
        jobs_max: 3,
        account_jobs_max: 2,
        ..QueueLimits::default()
    })
    .await;
    let scopes = [queue::Scope::Enqueue, queue::Scope::Read];
    let (one, other) = (
        server.client("one", &scopes).await,
        server.client("other", &scopes).await,
    );
    for client in [&one, &one, &other] {
        let accepted = submit(client).await;
        assert!(accepted.status.is_success(), "{}", accepted.text().await);
    }
    for (client, status, code) in [
        (&one, StatusCode::TOO_MANY_REQUESTS, "account_full"),
        (&other, StatusCode::SERVICE_UNAVAILABLE, "queue_full"),
    ] {
        let refused = submit(client).await;
        assert_eq!(refused.status, status);
        assert_eq!(refused.header("retry-after"), "5");
        assert_eq!(refused.json().await["error"]["code"], code);
        for path in ["/api/chat", "/v1/chat/completions", "/v1/messages"] {
            let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}]}"#;
            let headers = [("x-hearth-deadline-ms", "60000")];
            let refused = client
                .send_with(http::Method::POST, path, &headers, body)
                .await;
            assert_eq!(refused.header("x-hearth-error"), code, "{path}");
            assert_eq!(refused.header("retry-after"), "5", "{path}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_fails_its_job_and_stops_its_worker() {
    let server = on(QueueLimits {
        log_max: 10_000,
        ..QueueLimits::default()
    })
    .await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move {
        let body = r#"{"model":"m","messages":[{}]}"#;
        client.post("/api/chat", body).await.text().await
    });
    let job = worker.lease().await;
    let line = chat("much ado");
    for n in 1..=10_000 / line.len() as u64 {
        worker.line(job.token(), n, &line).await;
    }
    let answer = crate::in_time(asked).await.unwrap();
    assert!(answer.contains("the answer exceeds"), "{answer}");
    // The worker is notified that this lease has ended, and takes the next job.
    assert_eq!(
        worker.next().await,
        RelayMessage::Closed {
            token: job.token(),
            code: Some(ErrorCode::StaleLease)
        }
    );
    let client = server.requester().await;
    let again = tokio::spawn(async move {
        let body = r#"{"model":"m","messages":[{}],"stream":false}"#;
        client.post("/api/chat", body).await
    });
    let job = worker.lease().await;
    worker.line(job.token(), 1, crate::worker::CHAT_DONE).await;
    worker.end(job.token(), 1, End::Completed).await;
    assert_eq!(crate::in_time(again).await.unwrap().status, StatusCode::OK);
}
