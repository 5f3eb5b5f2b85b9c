//! Loading and unloading a model does not wait for running jobs.

use hearth_tests::scripted_ollama::{Answer, Gate};
use reqwest::Method;
use serde_json::Value;

use crate::site::{Carrier, Exchange, Site, bounded};

const CHAT: &str = r#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"x"}]}"#;

async fn loads_beside_a_running_job(carrier: Carrier) {
    let site = Site::start(carrier).await;
    let gate = Gate::default();
    site.ollama.script("/api/chat", Answer::after(&gate));
    let busy = site.asking("/api/chat", CHAT);
    bounded(site.ollama.until_asked("/api/chat", 1)).await;
    // Another job waits for the only slot.
    let waiting = site.asking("/api/chat", CHAT);
    for (path, request, answer) in [
        (
            "/api/generate",
            r#"{"model":"tiny"}"#,
            r#"{"model":"tiny","response":"","done":true,  "done_reason":"load"}"#,
        ),
        (
            "/api/chat",
            r#"{"model":"tiny","messages":[],"stream":true,"keep_alive":"10m","options":{"num_ctx":64}}"#,
            r#"{"model":"tiny","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}"#,
        ),
        (
            "/api/generate",
            r#"{"model":"tiny","prompt":"","keep_alive":0}"#,
            r#"{"model":"tiny","response":"","done":true,"done_reason":"unload"}"#,
        ),
        (
            "/api/chat",
            r#"{"model":"tiny","messages":[ ],"keep_alive":0}"#,
            r#"{"model":"tiny","message":{"role":"assistant","content":""},"done":true,"done_reason":"unload"}"#,
        ),
    ] {
        site.ollama.script(path, Answer::json(200, answer));
        let want = Exchange {
            status: 200,
            kind: "application/json; charset=utf-8".into(),
            body: answer.into(),
        };
        assert_eq!(site.post(path, request).await, want, "{request}");
        assert_eq!(site.arrived(path).last().unwrap(), request, "byte for byte");
    }
    assert!(
        !busy.is_finished() && !waiting.is_finished(),
        "they still wait"
    );
    busy.abort();
    bounded(site.ollama.until_left(1)).await;
    let answer: Value = serde_json::from_str(&bounded(waiting).await.unwrap().body).unwrap();
    assert_eq!(answer["message"]["content"], "x");
}

#[tokio::test]
async fn a_model_is_loaded_beside_a_running_job_over_the_web_socket() {
    loads_beside_a_running_job(Carrier::WebSocket).await;
}

#[tokio::test]
async fn a_model_is_loaded_beside_a_running_job_over_polls() {
    loads_beside_a_running_job(Carrier::Polls).await;
}

#[tokio::test]
async fn a_few_load_beside_the_slots_one_more_takes_a_slot_and_whoever_leaves_makes_room() {
    let site = Site::start(Carrier::WebSocket).await;
    let gate = Gate::default();
    let most = proto::limits::URGENT_MAX + 1;
    for _ in 0..most {
        site.ollama.script("/api/generate", Answer::after(&gate));
    }
    let load = || site.asking("/api/generate", r#"{"model":"tiny"}"#);
    let loading: Vec<_> = (0..most).map(|_| load()).collect();
    bounded(site.ollama.until_asked("/api/generate", most)).await;
    let waiting = load();
    let question = site.asking("/api/chat", CHAT);
    site.until(Method::GET, "/api/jobs", "", |jobs| {
        jobs.matches(r#""state":"queued""#).count() == 2
    })
    .await;
    assert_eq!(site.arrived("/api/generate").len(), most);
    assert!(site.arrived("/api/chat").is_empty());
    loading.iter().for_each(|loading| loading.abort());
    bounded(site.ollama.until_left(most)).await;
    assert_eq!(bounded(waiting).await.unwrap().status, 200);
    assert_eq!(bounded(question).await.unwrap().status, 200);
}
