//! Descriptions of models are served at once from the workers' reports, and never queued.

use hearth_tests::scripted_ollama::{Answer, Gate};
use reqwest::Method;

use crate::site::{Carrier, Site, bounded};

const SHOW: &str = r#"{"model_info":{"general.architecture":"llama","llama.rope.freq_base":  0.00001},"capabilities":["completion","tools"]}"#;
const RUNNING: &str = r#"{"name":"tiny:latest","model":"tiny:latest","size":1.50,  "expires_at":"2319-03-04T03:54:46.728006853Z"}"#;

async fn told_of(carrier: Carrier) -> Site {
    let mut site = Site::without_worker(carrier).await;
    site.ollama.settle("/api/show", Answer::json(200, SHOW));
    let running = format!(r#"{{"models":[{RUNNING}]}}"#);
    site.ollama.settle("/api/ps", Answer::json(200, &running));
    site.add_worker("home", |_| {}).await;
    site.until(Method::POST, "/api/show", r#"{"model":"tiny"}"#, |body| {
        body == SHOW
    })
    .await;
    site.until(Method::GET, "/api/ps", "", |body| body == running)
        .await;
    site
}

async fn shows(site: &Site) {
    for request in [
        r#"{"model":"tiny"}"#,
        r#"{"name":"tiny:latest"}"#,
        r#"{"model":"TINY","verbose":true,"zzz":1}"#,
        r#"{"model":"","name":"tiny"} and more"#,
    ] {
        let reply = site.post("/api/show", request).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (200, SHOW),
            "{request}"
        );
        assert_eq!(reply.kind, "application/json; charset=utf-8");
    }
    for (request, status, want) in [
        (
            r#"{"model":"nosuch:1b"}"#,
            404,
            "model 'nosuch:1b' not found",
        ),
        ("{}", 400, "model is required"),
        ("", 400, "missing request body"),
        (r#"{"model":"#, 400, "unexpected EOF"),
        (r#"{"model":"a b/c d"}"#, 400, "invalid model name"),
    ] {
        let reply = site.post("/api/show", request).await;
        assert_eq!(reply.status, status, "{request}");
        assert_eq!(reply.body, format!(r#"{{"error":"{want}"}}"#));
    }
}

#[tokio::test]
async fn a_model_is_shown_byte_for_byte_over_the_web_socket() {
    shows(&told_of(Carrier::WebSocket).await).await;
}

#[tokio::test]
async fn a_model_is_shown_byte_for_byte_over_polls() {
    shows(&told_of(Carrier::Polls).await).await;
}

#[tokio::test]
async fn models_are_told_of_while_every_worker_is_busy_and_after_it_is_gone() {
    let mut site = told_of(Carrier::WebSocket).await;
    let gate = Gate::default();
    site.ollama.script("/api/chat", Answer::after(&gate));
    let running = site.get("/api/ps").await.body;
    let tags = site.get("/api/tags").await.body;
    let version = site.get("/api/version").await.body;
    let chat = r#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
    let asking = site.asking("/api/chat", chat);
    bounded(site.ollama.until_asked("/api/chat", 1)).await;
    for is_gone in [false, true] {
        if is_gone {
            site.stop_workers().await;
        }
        assert_eq!(
            site.post("/api/show", r#"{"model":"tiny"}"#).await.body,
            SHOW
        );
        assert_eq!(site.get("/api/ps").await.body, running);
        assert_eq!(site.get("/api/tags").await.body, tags);
        assert_eq!(site.get("/api/version").await.body, version);
    }
    asking.abort();
    let refused = site.post("/api/chat", chat).await;
    assert_eq!(refused.status, 503, "what is remembered does not answer");
}

#[tokio::test]
async fn a_model_is_asked_about_once_and_again_when_it_changed() {
    let site = told_of(Carrier::WebSocket).await;
    let before = site.arrived("/api/show").len();
    // A new connection makes the worker probe its engine again.
    site.ollama
        .set_models(&[("tiny:latest", true), ("other:1b", false)]);
    let other = r#"{"model_info":{"general.basename":"other"}}"#;
    site.ollama.settle("/api/show", Answer::json(200, other));
    site.workers[0].wake();
    site.until(
        Method::POST,
        "/api/show",
        r#"{"model":"other:1b"}"#,
        |body| body == other,
    )
    .await;
    let later = &site.arrived("/api/show")[before..];
    let is_new = |request: &String| request == r#"{"model":"other:1b"}"#;
    assert!(later.iter().all(is_new), "{later:?}");
    assert_eq!(
        site.post("/api/show", r#"{"model":"tiny"}"#).await.body,
        SHOW
    );

    site.ollama.set_models(&[("other:1b", false)]);
    site.workers[0].wake();
    let tiny = r#"{"model":"tiny"}"#;
    site.until(Method::POST, "/api/show", tiny, |body| {
        body.contains("not found")
    })
    .await;
}

#[tokio::test]
async fn what_runs_is_told_again_when_a_job_has_ended() {
    let site = told_of(Carrier::WebSocket).await;
    let later = r#"{"models":[{"name":"tiny:latest","expires_at":"2400-01-01T00:00:00Z"}]}"#;
    site.ollama.settle("/api/ps", Answer::json(200, later));
    let chat = r#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(site.post("/api/chat", chat).await.status, 200);
    site.until(Method::GET, "/api/ps", "", |body| body == later)
        .await;
}
