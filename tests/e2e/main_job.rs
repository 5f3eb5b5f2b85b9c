//! The main job on the real model: a question goes in, and the model's answer comes out.

use serde_json::{Value, json};

use hearth_tests::{
    process::PATIENCE,
    test_bed::{TestBed, read_json},
};
use tokio::time::timeout;

/// One test for all ways, because starting the model costs more than a question.
#[tokio::test]
async fn every_way_in_is_answered_by_the_real_model() {
    let mut bed = TestBed::relay_only("builtin").await;
    bed.start_agent().await;
    bed.until("ready").await;
    let status = bed.status().await;
    assert_eq!(status["relay"]["state"], "up");
    assert_eq!(status["carrier"], "websocket");

    // The text of so small a model is random; that there is text is not.
    let asked = bed.ask(&["What is the capital of France?"]).await;
    assert!(asked.status.success(), "{}", asked.stderr);
    assert!(!asked.stdout.trim().is_empty(), "{}", asked.stderr);

    let tags = read_json(bed.get("/api/tags")).await;
    let model = tags["models"][0]["name"].as_str().unwrap().to_owned();

    ollama_streams_and_answers_whole(&bed, &model).await;
    openai_streams_and_answers_whole(&bed, &model).await;
    the_polling_relays_requester_is_answered(&bed, &model).await;
}

fn question(model: &str) -> Value {
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": "Say hello." }],
        "options": { "temperature": 0, "num_predict": 12 },
    })
}

async fn ollama_streams_and_answers_whole(bed: &TestBed, model: &str) {
    let answer = bed
        .post("/api/chat", &question(model))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() > 3, "it streams: {text}");
    assert_eq!(lines.last().unwrap()["done"], true);
    let streamed: String = lines
        .iter()
        .map(|line| line["message"]["content"].as_str().unwrap_or_default())
        .collect();

    let mut whole = question(model);
    whole["stream"] = json!(false);
    let answer = bed.post("/api/chat", &whole).send().await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/json; charset=utf-8"
    );
    let whole: Value = answer.json().await.unwrap();
    assert_eq!(
        whole["message"]["content"], streamed,
        "temperature 0 answers alike"
    );

    let version: Value = bed
        .get("/api/version")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(version["version"].is_string(), "{version}");
}

async fn openai_streams_and_answers_whole(bed: &TestBed, model: &str) {
    let mut body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": "Say hello." }],
        "temperature": 0,
        "max_tokens": 12,
        "stream": true,
    });
    let answer = bed
        .post("/v1/chat/completions", &body)
        .send()
        .await
        .unwrap();
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let streamed: String = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();

    body["stream"] = json!(false);
    let whole: Value = bed
        .post("/v1/chat/completions", &body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], streamed);
    assert!(
        whole["usage"]["completion_tokens"].as_u64().unwrap() > 0,
        "{whole}"
    );

    let models: Value = bed
        .get("/v1/models")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(models["data"][0]["id"], model);
}

async fn the_polling_relays_requester_is_answered(bed: &TestBed, model: &str) {
    let body = json!({ "prompt": "Say hello.", "model": model, "max_tokens": 12 });
    let answer = bed.post("/api/ollama/request", &body).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let queued: Value = answer.json().await.unwrap();
    assert_eq!(queued["status"], "queued");
    let id = queued["id"].as_str().unwrap();
    let path = format!("/api/ollama/status/{id}");
    // The polling dialect has no events, so this client polls as well.
    let polling = async {
        loop {
            let status: Value = bed.get(&path).send().await.unwrap().json().await.unwrap();
            if status["status"] == "completed" || status["status"] == "error" {
                break status;
            }
        }
    };
    let status = timeout(PATIENCE, polling).await.expect("it never ended");
    assert_eq!(status["status"], "completed", "{status}");
    assert!(!status["response"].as_str().unwrap().is_empty(), "{status}");
}
