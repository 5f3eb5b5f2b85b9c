//! An online agent whose engine is down.

use http::StatusCode;
use proto::{
    ErrorCode, JobId, LeaseToken,
    worker::{RelayMessage, WorkerMessage},
};
use queue::Scope;
use serde_json::json;

use crate::{
    client::Client,
    server::Server,
    worker::{Scripted, report},
};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const JOB: &str = r#"{"op":"chat","body":{"model":"m"}}"#;
const REQUEST: &str = r#"{"prompt":"x","model":"m"}"#;

/// Reports that the engine is down; the relay has processed it when this returns.
async fn goes_down(worker: &mut Scripted, models: &[&str]) {
    let mut report = report(models);
    report.engine_up = false;
    worker.say(&WorkerMessage::Report { report }).await;
    let token = LeaseToken {
        job: JobId([9; 16]),
        attempt: 1,
    };
    let tokens = vec![token];
    worker.say(&WorkerMessage::Extend { tokens }).await;
    let code = Some(ErrorCode::StaleLease);
    assert_eq!(worker.next().await, RelayMessage::Closed { token, code });
}

async fn refused(client: &Client, path: &str, body: &'static str) -> (StatusCode, String) {
    let reply = client.post(path, body).await;
    (reply.status, reply.header("x-hearth-error").to_owned())
}

#[tokio::test]
async fn whoever_waits_is_told_that_the_engine_is_down_and_not_that_nobody_is_there() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 1).await;
    let down = (
        StatusCode::SERVICE_UNAVAILABLE,
        "engine_unavailable".to_owned(),
    );
    for models in [&["m"][..], &[]] {
        goes_down(&mut worker, models).await;
        for (path, body) in [
            ("/api/chat", CHAT),
            ("/api/generate", "{}"),
            ("/v1/chat/completions", CHAT),
        ] {
            assert_eq!(
                refused(&client, path, body).await,
                down,
                "{path} {models:?}"
            );
        }
        let text = client.post("/api/chat", CHAT).await.text().await;
        assert!(
            text.contains("agent is online, but its engine is down"),
            "{text}"
        );
        let tags = client.get("/api/tags").await.text().await;
        assert!(tags.contains(r#""name":"m""#), "it still has them: {tags}");
    }
    let unknown = refused(&client, "/api/chat", r#"{"model":"x"}"#).await;
    assert_eq!(unknown, (StatusCode::NOT_FOUND, "unknown_model".to_owned()));
}

#[tokio::test]
async fn a_job_for_the_engine_that_is_down_is_kept_while_another_agent_serves_other_models() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 1).await;
    let _other = Scripted::serving(&server, "default", &["other"], 0).await;
    goes_down(&mut worker, &[]).await;

    let (status, code) = refused(&client, "/api/chat", CHAT).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{code}");
    for (path, body) in [("/api/jobs", JOB), ("/api/ollama/request", REQUEST)] {
        let (status, code) = refused(&client, path, body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{path}: {code}");
    }
    let nowhere = r#"{"op":"chat","body":{"model":"nowhere"}}"#;
    let (_, code) = refused(&client, "/api/jobs", nowhere).await;
    assert_eq!(code, "unknown_model");

    let up = report(&["m"]);
    worker.say(&WorkerMessage::Report { report: up }).await;
    assert_eq!(worker.lease().await.head.model.as_str(), "m");
}

#[tokio::test]
async fn an_agent_that_comes_with_its_engine_down_may_have_any_model() {
    let server = Server::start().await;
    let client = server.requester().await;
    let poller = server.client("default", &[Scope::Work]).await;
    let mut down = report(&[]);
    down.engine_up = false;
    let poll = json!({"worker": "w", "version": "0", "report": down, "free": 1, "wait_ms": 0});
    poller.post("/api/worker/v1/poll", poll.to_string()).await;

    for body in [CHAT, "{}"] {
        let (_, code) = refused(&client, "/api/chat", body).await;
        assert_eq!(code, "engine_unavailable", "{body}");
    }
    for (path, body) in [
        ("/api/jobs", JOB),
        ("/api/ollama/request", REQUEST),
        ("/api/ollama/request", r#"{"prompt":"x"}"#),
    ] {
        let (status, code) = refused(&client, path, body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{path} {body}: {code}");
    }
}

#[tokio::test]
async fn a_polling_agent_whose_engine_went_down_keeps_the_models_it_had() {
    let server = Server::start().await;
    let client = server.requester().await;
    let poller = server.client("default", &[Scope::Work]).await;
    let _other = Scripted::serving(&server, "default", &["other"], 0).await;
    for engine_up in [true, false] {
        let mut report = report(if engine_up { &["m"] } else { &[] });
        report.engine_up = engine_up;
        let poll =
            json!({"worker": "w", "version": "0", "report": report, "free": 0, "wait_ms": 0});
        poller.post("/api/worker/v1/poll", poll.to_string()).await;
    }
    let (_, code) = refused(&client, "/api/chat", CHAT).await;
    assert_eq!(code, "engine_unavailable");
    let (_, code) = refused(&client, "/api/chat", r#"{"model":"x"}"#).await;
    assert_eq!(
        code, "unknown_model",
        "what it had is known, so `x` is not its"
    );
}
