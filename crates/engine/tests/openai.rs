//! Tests of the client of OpenAI-compatible servers, over a real socket.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hearth_engine::{Clock, Engine as _, EngineError, EngineTimes, OpenAiCompatible};
use proto::{Body, Op, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use tests::scripted_ollama::{Answer, ScriptedOllama, Step};
use tokio::time::timeout;

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

async fn scripted() -> (ScriptedOllama, OpenAiCompatible) {
    let server = ScriptedOllama::start().await.unwrap();
    let url = format!("{}/v1/", server.url()).parse().unwrap();
    let key = SecretString::from("k-1");
    let clock = Clock::new(|| Timestamp(0));
    let client = OpenAiCompatible::new(&url, Some(&key), EngineTimes::default(), clock).unwrap();
    (server, client)
}

fn events(events: &[Value], end: Step) -> Answer {
    let text: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    Answer::begin()
        .then(Step::Send(Bytes::from(text)))
        .then(end)
}

fn delta(text: &str) -> Value {
    json!({"choices": [{"delta": {"content": text}, "finish_reason": null}]})
}

fn done() -> Step {
    Step::Send(Bytes::from_static(b"data: [DONE]\n\n"))
}

async fn ask(client: &OpenAiCompatible, op: Op, body: &str) -> Result<Vec<Value>, EngineError> {
    let answer = async {
        let mut lines = client.start(op, Body(Bytes::from(body.to_owned()))).await?;
        let mut got = Vec::new();
        while let Some(line) = lines.next().await {
            got.push(serde_json::from_slice(&line?).unwrap());
        }
        Ok(got)
    };
    timeout(Duration::from_secs(20), answer).await.unwrap()
}

#[tokio::test]
async fn a_chat_is_streamed_through_with_the_key_and_ends_with_a_done_line() {
    let (server, client) = scripted().await;
    let finish = json!({"choices": [{"delta": {}, "finish_reason": "length"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}});
    let answer = events(&[delta("He"), delta("llo"), finish, usage], done());
    server.script("/v1/chat/completions", answer.then(Step::Finish));
    let lines = ask(&client, Op::Chat, CHAT).await.unwrap();
    let texts: Vec<_> = lines
        .iter()
        .map(|l| l["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["He", "llo", ""]);
    assert_eq!(lines[2]["done"], true);
    assert_eq!(lines[2]["done_reason"], "length");
    assert_eq!(lines[2]["prompt_eval_count"], 5);
    assert_eq!(lines[2]["eval_count"], 2);
    let request = &server.requests()[0];
    assert_eq!(request.headers["authorization"], "Bearer k-1");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["stream"], true);
}

#[tokio::test]
async fn an_answer_without_an_end_is_broken() {
    let (server, client) = scripted().await;
    server.script("/v1/chat/completions", events(&[delta("He")], Step::Finish));
    let answer = ask(&client, Op::Chat, CHAT).await;
    assert!(matches!(answer, Err(EngineError::Broken(_))), "{answer:?}");
}

#[tokio::test]
async fn an_error_within_the_stream_is_told_in_its_words() {
    let (server, client) = scripted().await;
    let error = json!({"error": {"message": "out of memory", "type": "server_error"}});
    server.script(
        "/v1/chat/completions",
        events(&[delta("He"), error], Step::Finish),
    );
    let answer = ask(&client, Op::Chat, CHAT).await;
    assert_eq!(answer, Err(EngineError::Broken("out of memory".into())));
}

#[tokio::test]
async fn a_refused_key_is_not_the_requesters_fault() {
    let (server, client) = scripted().await;
    server.script(
        "/v1/chat/completions",
        Answer::json(401, r#"{"error":{"message":"no"}}"#),
    );
    let answer = ask(&client, Op::Chat, CHAT).await;
    assert!(
        matches!(answer, Err(EngineError::Unavailable(_))),
        "{answer:?}"
    );
    server.script(
        "/v1/chat/completions",
        Answer::json(400, r#"{"error":{"message":"no"}}"#),
    );
    let refused = EngineError::Refused {
        status: 400,
        message: "no".into(),
    };
    assert_eq!(ask(&client, Op::Chat, CHAT).await, Err(refused));
}

#[tokio::test]
async fn embeddings_come_in_the_order_they_were_asked_for() {
    let (server, client) = scripted().await;
    let answer = json!({"data": [{"index": 1, "embedding": [0.25]}, {"index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 2}});
    server.script("/v1/embeddings", Answer::json(200, &answer.to_string()));
    let lines = ask(&client, Op::Embed, r#"{"model":"m","input":["a","b"]}"#)
        .await
        .unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["embeddings"], json!([[0.5], [0.25]]));
    assert_eq!(lines[0]["prompt_eval_count"], 2);
}

#[tokio::test]
async fn embeddings_that_make_too_long_a_line_are_refused_for_good() {
    let (server, client) = scripted().await;
    for each in [700, 1_400] {
        let vector = vec![0.123_456_789; 1_000];
        let data: Vec<_> = (0..each)
            .map(|n| json!({"index": n, "embedding": vector}))
            .collect();
        let answer = json!({"data": data}).to_string();
        server.script("/v1/embeddings", Answer::json(200, &answer));
        let lines = ask(&client, Op::Embed, r#"{"model":"m","input":["a"]}"#).await;
        assert_eq!(lines, Err(EngineError::TooLong), "{} bytes", answer.len());
    }
}

#[tokio::test]
async fn embeddings_that_stop_half_way_are_broken_off_and_the_server_is_not_down() {
    let server = ScriptedOllama::start().await.unwrap();
    let url = format!("{}/v1/", server.url()).parse().unwrap();
    let times = EngineTimes {
        whole_answer: Duration::from_millis(50),
        ..EngineTimes::default()
    };
    let clock = Clock::new(|| Timestamp(0));
    let client = OpenAiCompatible::new(&url, None, times, clock).unwrap();
    let half = Step::Send(Bytes::from_static(br#"{"data":["#));
    server.script("/v1/embeddings", Answer::begin().then(half));
    let body = r#"{"model":"m","input":"a"}"#;
    let error = ask(&client, Op::Embed, body).await.unwrap_err();
    assert_eq!(error, EngineError::Broken("it stopped answering".into()));
}

#[tokio::test]
async fn loading_asks_nothing_of_the_server() {
    let (server, client) = scripted().await;
    let lines = ask(&client, Op::Chat, r#"{"model":"m","messages":[]}"#)
        .await
        .unwrap();
    assert_eq!(lines[0]["done_reason"], "load");
    assert_eq!(lines[0]["done"], true);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn dropping_the_lines_closes_the_connection() {
    let (server, client) = scripted().await;
    let answer = Answer::begin().then(Step::Send(Bytes::from(format!("data: {}\n\n", delta("a")))));
    server.script("/v1/chat/completions", answer);
    let mut lines = client.start(Op::Chat, Body::from(CHAT)).await.unwrap();
    lines.next().await.unwrap().unwrap();
    drop(lines);
    timeout(Duration::from_secs(5), server.until_left(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn its_models_are_reported_as_ollama_would_list_them() {
    let (server, client) = scripted().await;
    let models = json!({"data": [{"id": "org/model", "created": 0}, {"id": "a b"}]});
    server.script("/v1/models", Answer::json(200, &models.to_string()));
    let report = client.report().await.unwrap();
    assert_eq!(report.models.len(), 1);
    assert_eq!(client.kind(), report.engine);
    let tag: Value = serde_json::from_str(report.models[0].tag.get()).unwrap();
    assert_eq!(tag["name"], "org/model");
    assert_eq!(tag["modified_at"], "1970-01-01T00:00:00Z");
}

#[tokio::test]
async fn a_model_is_shown_with_what_the_server_says_of_it_and_no_more() {
    let (server, client) = scripted().await;
    let llama = json!({"id": "m", "meta": {"n_ctx_train": 8192, "n_params": 5, "n_embd": 576}});
    let models = json!({"data": [llama, {"id": "v", "max_model_len": 4096}, {"id": "x"}]});
    server.script("/v1/models", Answer::json(200, &models.to_string()));
    let report = client.report().await.unwrap();
    for (entry, info) in report.models.iter().zip([
        json!({"general.basename": "m", "general.parameter_count": 5,
            "general.context_length": 8192, "general.embedding_length": 576}),
        json!({"general.basename": "v", "general.context_length": 4096}),
        json!({"general.basename": "x"}),
    ]) {
        server.script("/v1/models", Answer::json(200, &models.to_string()));
        let show = client.show(entry).await.unwrap().unwrap();
        let show: Value = serde_json::from_str(show.get()).unwrap();
        assert_eq!(show["model_info"], info);
        assert_eq!(show["capabilities"], json!(["completion"]));
    }
    assert!(client.running().await.unwrap().is_empty());
}
