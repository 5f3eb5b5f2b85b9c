//! Requests that name the worker that must answer them.

use http::{Method, StatusCode};
use proto::End;
use queue::Queue as _;

use crate::{
    server::Server,
    worker::{CHAT_DONE, Scripted},
};

/// Routes that create a job, with a body for the model `m`.
pub(crate) const ROUTES: &[(&str, &str)] = &[
    ("/api/chat", r#"{"model":"m","stream":false,"messages":[]}"#),
    (
        "/api/generate",
        r#"{"model":"m","stream":false,"prompt":"x"}"#,
    ),
    ("/api/embed", r#"{"model":"m","input":"x"}"#),
    ("/api/embeddings", r#"{"model":"m","prompt":"x"}"#),
    (
        "/api/ollama/api/chat",
        r#"{"model":"m","stream":false,"messages":[]}"#,
    ),
    (
        "/v1/chat/completions",
        r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
    ),
    ("/v1/completions", r#"{"model":"m","prompt":"x"}"#),
    ("/v1/embeddings", r#"{"model":"m","input":"x"}"#),
    ("/v1/responses", r#"{"model":"m","input":"x"}"#),
    (
        "/v1/messages",
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#,
    ),
    (
        "/api/jobs",
        r#"{"op":"chat","body":{"model":"m","messages":[]}}"#,
    ),
    ("/api/ollama/request", r#"{"model":"m","prompt":"x"}"#),
    ("/api/queries/", r#"{"project":1,"query_text":"x"}"#),
];

#[tokio::test]
async fn a_job_goes_to_the_chosen_worker_on_every_route_and_to_no_other() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut laptop = Scripted::named(&server, "laptop", "default", &["m"], 100).await;
    let mut desk = Scripted::named(&server, "desk", "default", &["m"], 1).await;
    for (path, body) in ROUTES {
        for header in ["x-hearth-worker", "x-device-id"] {
            let client = client.clone();
            let asked = tokio::spawn(async move {
                let chosen = [(header, "desk")];
                client.send_with(Method::POST, path, &chosen, *body).await
            });
            let job = desk.lease().await;
            desk.line(job.token(), 1, CHAT_DONE).await;
            desk.end(job.token(), 1, End::Completed).await;
            let _ = asked.await.unwrap();
        }
    }
    // The first job that the other worker gets is the one that names it.
    let own = tokio::spawn(async move {
        let chosen = [("x-hearth-worker", "laptop")];
        let (path, body) = ROUTES[1];
        client.send_with(Method::POST, path, &chosen, body).await
    });
    let job = laptop.lease().await;
    assert_eq!(job.body, ROUTES[1].1);
    own.abort();
}

#[tokio::test]
async fn a_worker_that_is_away_is_told_of_at_once_and_its_jobs_with_a_deadline_are_kept() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut laptop = Scripted::named(&server, "laptop", "default", &["m"], 8).await;
    let foreign = Scripted::named(&server, "foreign", "other", &["m"], 8).await;
    for (path, body) in &ROUTES[..10] {
        for name in ["desk", "foreign"] {
            let chosen = [("x-device-id", name)];
            let reply = client.send_with(Method::POST, path, &chosen, *body).await;
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!(reply.header("x-hearth-error"), "no_worker", "{path}");
            let text = reply.text().await;
            assert!(
                text.contains(&format!("worker {name} is not online")),
                "{text}"
            );
        }
    }
    let (path, body) = ROUTES[0];
    let chosen = [("x-device-id", "laptop")];
    let body_of_other = body.replace(r#""m""#, r#""other""#);
    let reply = client
        .send_with(Method::POST, path, &chosen, body_of_other)
        .await;
    assert_eq!(reply.header("x-hearth-error"), "unknown_model");
    let wrong = [("x-hearth-worker", "no name")];
    let reply = client.send_with(Method::POST, path, &wrong, body).await;
    assert_eq!(reply.header("x-hearth-error"), "bad_request");

    let asked = tokio::spawn({
        let client = client.clone();
        async move {
            let kept = [("x-device-id", "desk"), ("x-hearth-deadline-ms", "60000")];
            client.send_with(Method::POST, path, &kept, body).await
        }
    });
    server.until(|counts| counts.queued == 1).await;
    // A later job for any worker overtakes it.
    let anybody = tokio::spawn(async move { client.post("/api/generate", ROUTES[1].1).await });
    let job = laptop.lease().await;
    assert_eq!(job.body, ROUTES[1].1);
    laptop.line(job.token(), 1, CHAT_DONE).await;
    laptop.end(job.token(), 1, End::Completed).await;
    assert_eq!(anybody.await.unwrap().status, StatusCode::OK);
    assert_eq!(server.store.counts().queued, 1, "still kept");

    let mut desk = Scripted::named(&server, "desk", "default", &["m"], 1).await;
    let job = desk.lease().await;
    assert_eq!(job.body, body);
    desk.line(job.token(), 1, CHAT_DONE).await;
    desk.end(job.token(), 1, End::Completed).await;
    assert_eq!(asked.await.unwrap().status, StatusCode::OK);
    drop(foreign);
}

#[tokio::test]
async fn a_chosen_worker_is_shown_with_its_job_and_a_batch_has_none() {
    let server = Server::start().await;
    let client = server.requester().await;
    let chosen = [
        ("x-hearth-worker", "desk"),
        ("x-hearth-deadline-ms", "60000"),
    ];
    let (path, body) = (
        "/api/jobs",
        r#"{"op":"chat","body":{"model":"m","messages":[]}}"#,
    );
    let made = client.send_with(Method::POST, path, &chosen, body).await;
    let made = made.json().await;
    assert_eq!(made["worker"], "desk");
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        client.get(&format!("/api/jobs/{id}")).await.json().await["worker"],
        "desk"
    );
    let query = r#"{"project":1,"query_text":"x"}"#;
    let made = client.send_with(Method::POST, "/api/queries/", &chosen, query);
    assert_eq!(made.await.status, StatusCode::CREATED);
    let jobs = client.get("/api/jobs").await.json().await;
    assert_eq!(jobs[0]["worker"], "desk", "a query's too: {jobs}");
    let batch = r#"{"input_file_id":"f","endpoint":"/v1/embeddings","completion_window":"24h"}"#;
    let refused = client
        .send_with(Method::POST, "/v1/batches", &chosen, batch)
        .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let text = refused.text().await;
    assert!(text.contains("x-hearth-worker"), "{text}");
}
