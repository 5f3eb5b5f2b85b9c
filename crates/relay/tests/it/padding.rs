//! Non-streaming answers that take long.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::StatusCode;
use proto::{End, ErrorCode, JobError, worker::RelayMessage};
use serde_json::Value;

use crate::{
    client::Reply,
    server::Server,
    wire::question,
    worker::{CHAT_DONE, Scripted, chat},
};

const CHAT: &str = "/api/chat";
const ROUTES: [&str; 7] = [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
];

async fn padding() -> Server {
    let mut settings = RelaySettings::default();
    settings.pad_after = Duration::from_millis(30);
    settings.heartbeat = Duration::from_millis(20);
    Server::with(settings).await
}

/// Returns the leading whitespace and the rest.
async fn padded(mut reply: Reply) -> (String, String) {
    let (mut space, mut rest) = (String::new(), String::new());
    while let Some(chunk) = reply.chunk().await {
        if chunk == "\n" && rest.is_empty() {
            space += &chunk;
        } else {
            rest += &chunk;
        }
    }
    (space, rest)
}

#[tokio::test]
async fn an_answer_that_is_long_in_coming_is_preceded_by_line_feeds() {
    let server = padding().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for path in ROUTES {
        let mut reply = client.post(path, question(path, false)).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: before the answer");
        let kind = reply.header("content-type").to_owned();
        assert!(kind.starts_with("application/json"), "{path}: {kind}");
        assert_eq!(reply.header("x-accel-buffering"), "no");
        let named = reply.header("x-hearth-job").to_owned();
        for _ in 0..2 {
            assert_eq!(reply.chunk().await.unwrap(), "\n", "{path}");
        }
        let job = worker.lease().await;
        assert_eq!(named, job.token().job.to_string());
        worker.line(job.token(), 1, CHAT_DONE).await;
        worker.end(job.token(), 1, End::Completed).await;
        let (_, object) = padded(reply).await;
        assert!(object.starts_with('{'), "{path}: {object}");
        serde_json::from_str::<Value>(&object).unwrap();
    }
}

#[tokio::test]
async fn a_failure_after_the_padding_began_is_the_body_of_the_dialects_error() {
    let server = padding().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for path in ROUTES {
        let reply = client.post(path, question(path, false)).await;
        assert_eq!(reply.status, StatusCode::OK);
        let job = worker.lease().await;
        let error = JobError::new(ErrorCode::EngineFailed, "broke off");
        worker.end(job.token(), 0, End::Failed { error }).await;
        let (_, body) = padded(reply).await;
        let want = match path {
            "/v1/messages" => &format!(
                r#"{{"type":"error","error":{{"type":"api_error","message":"broke off","code":"engine_failed"}},"request_id":"req_{}"}}"#,
                job.token().job
            ),
            path if path.starts_with("/v1") => {
                r#"{"error":{"message":"broke off","type":"api_error","param":null,"code":"engine_failed"}}"#
            }
            _ => r#"{"error":"broke off"}"#,
        };
        assert_eq!(body, *want, "{path}");
    }
}

#[tokio::test]
async fn a_quick_answer_and_one_of_a_relay_that_never_pads_come_as_they_are() {
    for (pad_after, beats) in [(Duration::from_secs(20), 0), (Duration::ZERO, 3)] {
        let mut settings = RelaySettings::default();
        settings.pad_after = pad_after;
        settings.heartbeat = Duration::from_millis(10);
        let server = Server::with(settings).await;
        let client = server.requester().await;
        let mut worker = Scripted::ready(&server).await;
        // Another client's stream shows that heartbeat intervals have passed.
        let watched = client.clone();
        let asked = tokio::spawn(async move { client.post(CHAT, question(CHAT, false)).await });
        let job = worker.lease().await;
        let events = format!("/api/jobs/{}/events", job.token().job);
        let mut watcher = watched.get(&events).await;
        for _ in 0..beats {
            assert_eq!(watcher.chunk().await.unwrap(), ": ping\n");
        }
        assert!(!asked.is_finished(), "the status waits for the answer");
        worker.answer(&job, &["hi"]).await;
        let reply = asked.await.unwrap();
        assert!(!reply.header("content-length").is_empty());
        let text = reply.text().await;
        assert!(text.starts_with(r#"{"model":"m""#), "{text}");
    }
}

#[tokio::test]
async fn a_requester_who_leaves_a_padded_answer_stops_the_engine() {
    let server = padding().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for path in ROUTES {
        let mut reply = client.post(path, question(path, false)).await;
        assert_eq!(reply.chunk().await.unwrap(), "\n");
        let job = worker.lease().await;
        let token = job.token();
        drop(reply);
        assert_eq!(
            worker.next().await,
            RelayMessage::Cancel { token },
            "{path}"
        );
        worker.end(token, 0, End::Cancelled).await;
    }
}

#[tokio::test]
async fn an_attempt_that_was_lost_leaves_nothing_in_a_padded_answer() {
    let server = padding().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let reply = client.post(CHAT, question(CHAT, false)).await;
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("lost")).await;
    worker.gives_back(&job).await;
    let again = worker.lease().await;
    worker.answer(&again, &["kept"]).await;
    let (_, body) = padded(reply).await;
    assert!(body.contains("kept") && !body.contains("lost"), "{body}");
}
