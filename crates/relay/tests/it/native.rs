//! The native API: jobs and their events.

use hearth_relay::RelaySettings;
use http::{Method, StatusCode};
use proto::{
    End, ErrorCode, JobError,
    worker::{RelayMessage, Retry, WorkerMessage},
};
use queue::Scope;
use serde_json::Value;

use crate::{
    client::{Client, Reply},
    server::Server,
    worker::{CHAT_DONE, Scripted, chat},
};

const CHAT: &str = r#"{"op":"chat","body":{"model":"m",  "messages":[{}],"x":1.50}}"#;

async fn submitted(client: &Client, body: &'static str) -> String {
    let reply = client.post("/api/jobs", body).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    reply.json().await["id"].as_str().unwrap().to_owned()
}

/// Parses server-sent events as (name, id, data).
fn events(text: &str) -> Vec<(String, String, String)> {
    let field = |event: &str, name: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().to_owned()
    };
    text.split_terminator("\n\n")
        .map(|event| {
            (
                field(event, "event: "),
                field(event, "id: "),
                field(event, "data: "),
            )
        })
        .collect()
}

fn text_of(events: &[(String, String, String)]) -> String {
    let lines = events.iter().filter(|(name, ..)| name.is_empty());
    lines
        .map(|(.., line)| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["message"]["content"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_job_goes_from_its_requester_to_a_worker_and_back() {
    let server = Server::start().await;
    let client = server.requester().await;
    let reply = client.post("/api/jobs", CHAT).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let job = reply.json().await;
    assert_eq!(
        (&job["state"], &job["model"]),
        (&"queued".into(), &"m".into())
    );

    let mut worker = Scripted::ready(&server).await;
    let leased = worker.lease().await;
    assert_eq!(
        leased.body, r#"{"model":"m",  "messages":[{}],"x":1.50}"#,
        "byte for byte"
    );
    worker.answer(&leased, &["Hel", "lo"]).await;

    let id = job["id"].as_str().unwrap();
    let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(
        (&job["state"], &job["attempt"]),
        (&"completed".into(), &1.into())
    );
    let events = events(
        &client
            .get(&format!("/api/jobs/{id}/events"))
            .await
            .text()
            .await,
    );
    assert_eq!(text_of(&events), "Hello");
    let (name, at, data) = events.last().unwrap();
    assert_eq!(
        (name.as_str(), at.as_str(), data.as_str()),
        ("end", "1-3", r#"{"state":"completed"}"#)
    );
}

#[tokio::test]
async fn a_stream_resumed_after_any_event_gives_the_same_text() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submitted(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    worker.answer(&job, &["a", "b", "ć", "d"]).await;

    let path = format!("/api/jobs/{id}/events");
    let whole = events(&client.get(&path).await.text().await);
    assert_eq!(whole.len(), 6);
    for seen in 0..=whole.len() - 1 {
        let (_, last, _) = &whole[..seen].last().cloned().unwrap_or_default();
        let after = if last.is_empty() { "0-0" } else { last };
        let by_query = client
            .get(&format!("{path}?after={after}"))
            .await
            .text()
            .await;
        assert_eq!(
            [&whole[..seen], &events(&by_query)].concat(),
            whole,
            "after {seen}"
        );
        let header = [("last-event-id", after)];
        let url = format!("{path}?after=1-1");
        let by_header = client.send_with(Method::GET, &url, &header, "").await;
        assert_eq!(by_header.text().await, by_query);
    }
    let wrong = client.get(&format!("{path}?after=x")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn two_watchers_see_the_same_while_it_grows() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submitted(&client, CHAT).await;
    let path = format!("/api/jobs/{id}/events");
    let mut first = client.get(&path).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("one")).await;
    let early = first.chunk().await.unwrap();
    assert!(early.contains("one"), "{early}");

    let second = client.get(&path).await;
    worker.line(job.token(), 2, CHAT_DONE).await;
    worker.end(job.token(), 2, End::Completed).await;
    assert_eq!(early + &first.text().await, second.text().await);
}

#[tokio::test]
async fn a_watcher_of_a_second_attempt_is_told_that_it_began_anew() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submitted(&client, CHAT).await;
    let mut watcher = client.get(&format!("/api/jobs/{id}/events")).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("lost")).await;
    assert!(watcher.chunk().await.unwrap().contains("lost"));
    worker
        .say(&WorkerMessage::Nack {
            token: job.token(),
            retry: Retry::Now,
            code: ErrorCode::EngineUnavailable,
            message: "gone".into(),
            engine_status: None,
        })
        .await;
    let token = job.token();
    assert_eq!(
        worker.next().await,
        RelayMessage::Closed { token, code: None }
    );
    let again = worker.lease().await;
    assert_eq!(again.token().attempt, 2);
    worker.answer(&again, &["found"]).await;

    let seen = events(&watcher.text().await);
    let names: Vec<_> = seen
        .iter()
        .map(|(name, id, _)| (name.as_str(), id.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("restarted", "2-0"),
            ("", "2-1"),
            ("", "2-2"),
            ("end", "2-2")
        ]
    );
    assert_eq!(seen[0].2, r#"{"attempt":2}"#);
    let resumed = client
        .get(&format!("/api/jobs/{id}/events?after=1-1"))
        .await
        .text()
        .await;
    assert_eq!(events(&resumed), seen, "resuming with the older attempt");
}

#[tokio::test]
async fn a_silent_stream_shows_signs_of_life() {
    let mut settings = RelaySettings::default();
    settings.heartbeat = std::time::Duration::from_millis(20);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let id = submitted(&client, CHAT).await;
    let mut watcher = client.get(&format!("/api/jobs/{id}/events")).await;
    assert_eq!(watcher.header("content-type"), "text/event-stream");
    assert_eq!(watcher.header("x-accel-buffering"), "no");
    assert_eq!(watcher.chunk().await.unwrap(), ": ping\n");
}

#[tokio::test]
async fn a_withdrawn_job_stops_its_worker_and_ends_cancelled() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submitted(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    let reply = client
        .send(Method::DELETE, &format!("/api/jobs/{id}"), "")
        .await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    let token = job.token();
    assert_eq!(worker.next().await, RelayMessage::Cancel { token });
    let (code, message) = (ErrorCode::Cancelled, "stopped".to_owned());
    worker
        .say(&WorkerMessage::Nack {
            token,
            retry: Retry::Never,
            code,
            message,
            engine_status: None,
        })
        .await;
    assert_eq!(
        worker.next().await,
        RelayMessage::Closed { token, code: None }
    );

    let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(job["state"], "cancelled");
    let again = client
        .send(Method::DELETE, &format!("/api/jobs/{id}"), "")
        .await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_failed_job_says_why() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submitted(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(job.token(), 0, End::Failed { error }).await;
    let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(job["error"]["code"], "engine_failed");
    assert_eq!(job["error"]["message"], "broke off");
}

#[tokio::test]
async fn the_newest_jobs_are_listed_first_and_only_ones_own() {
    let server = Server::start().await;
    let client = server.requester().await;
    let first = submitted(&client, CHAT).await;
    let second = submitted(&client, CHAT).await;
    let other = server.client("other", &[Scope::Enqueue, Scope::Read]).await;
    submitted(&other, CHAT).await;
    let ids = |list: Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|job| job["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        ids(client.get("/api/jobs").await.json().await),
        [second.as_str(), &first]
    );
    assert_eq!(
        ids(client.get("/api/jobs?limit=1").await.json().await),
        [second]
    );
    let admin = server.client("staff", &[Scope::Read, Scope::Admin]).await;
    assert_eq!(ids(admin.get("/api/jobs").await.json().await).len(), 3);
}

#[tokio::test]
async fn a_foreign_job_and_one_that_never_was_are_the_same_404() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submitted(&client, CHAT).await;
    let other = server.client("other", &[Scope::Enqueue, Scope::Read]).await;
    let nowhere = "0".repeat(32);
    for (method, tail) in [
        (Method::GET, ""),
        (Method::GET, "/events"),
        (Method::POST, "/retry"),
        (Method::DELETE, ""),
    ] {
        let mut answers = Vec::new();
        for id in [&id, &nowhere, "what"] {
            let reply = other
                .send(method.clone(), &format!("/api/jobs/{id}{tail}"), "")
                .await;
            answers.push(seen(reply).await);
        }
        assert_eq!(answers[0].0, StatusCode::NOT_FOUND);
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:?}"
        );
    }
    let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(job["state"], "queued", "nothing happened to it");
}

async fn seen(reply: Reply) -> (StatusCode, String, String) {
    let kind = reply.header("content-type").to_owned();
    (reply.status, kind, reply.text().await)
}

#[tokio::test]
async fn a_submission_that_cannot_be_read_is_refused_by_name() {
    let server = Server::start().await;
    let client = server.requester().await;
    for (body, code) in [
        ("", "malformed_json"),
        ("{", "malformed_json"),
        (r#"{"op":"chat"}"#, "bad_request"),
        (r#"{"op":"sing","body":{}}"#, "bad_request"),
        (
            r#"{"op":"chat","body":{"model":"m"},"priority":11}"#,
            "bad_request",
        ),
        (r#"{"op":"chat","body":{"model":"a b"}}"#, "bad_request"),
    ] {
        let reply = client.post("/api/jobs", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(reply.json().await["error"]["code"], code, "{body}");
    }
    let nameless = client.post("/api/jobs", r#"{"op":"chat","body":{}}"#).await;
    assert_eq!(
        nameless.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "nobody is there to choose"
    );
}

#[tokio::test]
async fn a_job_that_names_no_model_gets_the_first_of_a_worker_online() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let reply = client
        .post("/api/jobs", r#"{"op":"chat","body":{"x":1}}"#)
        .await;
    assert_eq!(reply.json().await["model"], "m");
    assert_eq!(worker.lease().await.body, r#"{"model":"m","x":1}"#);
}

#[tokio::test]
async fn a_job_is_kept_while_nobody_is_online_but_not_for_a_model_nobody_has() {
    let server = Server::start().await;
    let client = server.requester().await;
    submitted(&client, CHAT).await;
    let _worker = Scripted::serving(&server, "default", &["other"], 0).await;
    let reply = client.post("/api/jobs", CHAT).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.json().await["error"]["code"], "unknown_model");
}

#[tokio::test]
async fn a_job_past_its_deadline_fails_as_such() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submitted(
        &client,
        r#"{"op":"chat","body":{"model":"m"},"deadline_ms":1}"#,
    )
    .await;
    let events = events(
        &client
            .get(&format!("/api/jobs/{id}/events"))
            .await
            .text()
            .await,
    );
    let (_, _, end) = events.last().unwrap();
    assert!(end.contains("deadline_exceeded"), "{end}");
}

#[tokio::test]
async fn the_openapi_document_is_there_for_everybody() {
    let server = Server::start().await;
    let reply = server.nobody().get("/openapi.json").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "application/json");
    let document = reply.json().await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(
        document["paths"]["/api/jobs"]["post"]["security"],
        serde_json::json!([{"bearer": []}, {"key": []}])
    );
}
