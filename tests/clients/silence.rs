//! What is sent while nothing is said: signs of life that every client is known to survive.

use hearth_tests::{
    scripted_ollama::{Answer, Gate, ScriptedOllama},
    stand::Stand,
};
use serde_json::{Value, json};

use crate::{
    scene,
    wire::{Wire, question},
};

/// A relay that gives a sign of life after a second.
pub(crate) const LIVELY: [&str; 4] = ["--heartbeat", "1", "--pad-after", "1"];

/// A stream that is silent before its first token and again before its second.
async fn silent(
    stand: &Stand,
    ollama: &ScriptedOllama,
    path: &str,
    native: &str,
    body: &Value,
) -> (Wire, Vec<String>) {
    let gates = [Gate::default(), Gate::default()];
    ollama.script(native, scene::with_silences(native, &gates));
    let mut wire = Wire::post(stand, path, body).await;
    let mut chunks = Vec::new();
    for gate in &gates {
        for _ in 0..2 {
            chunks.push(wire.chunk().await.unwrap());
        }
        gate.open();
        // Whether the token comes next or one more sign of life is chance.
        while !chunks.last().unwrap().contains(scene::SPOKEN) {
            chunks.push(wire.chunk().await.unwrap());
        }
    }
    (wire, chunks)
}

#[tokio::test]
async fn an_ndjson_stream_is_whole_objects_in_whole_chunks_and_lives_through_silence() {
    let (stand, ollama) = Stand::scripted_with(&LIVELY, 1).await;
    for (path, text) in [
        ("/api/chat", "/message/content"),
        ("/api/generate", "/response"),
    ] {
        let (wire, mut chunks) = silent(&stand, &ollama, path, path, &question(true)).await;
        wire.has("content-type: application/x-ndjson");
        wire.has("cache-control: no-cache");
        wire.has("x-accel-buffering: no");
        chunks.extend(wire.rest().await);

        let mut said = String::new();
        for chunk in &chunks {
            assert!(chunk.ends_with('\n'), "{path}: a line is split: {chunk:?}");
            for line in chunk.split_terminator('\n') {
                let line: Value = serde_json::from_str(line).expect("each line is an object");
                assert!(
                    line["done"].is_boolean() && line["created_at"].is_string(),
                    "{line}"
                );
                said += line.pointer(text).unwrap().as_str().unwrap();
            }
        }
        assert_eq!(said, scene::SPOKEN.repeat(2));
        let last: Value = serde_json::from_str(chunks.last().unwrap()).unwrap();
        assert_eq!(last["done"], true, "{path}");
    }
}

#[tokio::test]
async fn a_stream_of_openai_events_has_data_and_pings_and_nothing_else() {
    let (stand, ollama) = Stand::scripted_with(&LIVELY, 1).await;
    for include_usage in [false, true] {
        let mut body = question(true);
        body["stream_options"] = json!({ "include_usage": include_usage });
        let path = "/v1/chat/completions";
        let (wire, mut chunks) = silent(&stand, &ollama, path, "/api/chat", &body).await;
        wire.has("content-type: text/event-stream");
        wire.has("cache-control: no-cache");
        wire.has("x-accel-buffering: no");
        chunks.extend(wire.rest().await);

        // One line break after a comment: after two, a client that saw an id would dispatch it.
        let pings = chunks.iter().filter(|chunk| chunk.starts_with(':'));
        assert!(pings.clone().count() >= 4, "{chunks:?}");
        assert!(pings.clone().all(|ping| *ping == ": ping\n"), "{chunks:?}");
        let events: String = chunks
            .iter()
            .filter(|chunk| !chunk.starts_with(':'))
            .map(String::as_str)
            .collect();
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk.starts_with(':') || chunk.ends_with("\n\n")),
            "{chunks:?}"
        );
        let mut data: Vec<&str> = events
            .split_terminator("\n\n")
            .map(|event| {
                event
                    .strip_prefix("data: ")
                    .expect("no event:, id: or retry:")
            })
            .collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        let events: Vec<Value> = data
            .iter()
            .map(|json| serde_json::from_str(json).unwrap())
            .collect();
        chat_chunks(&events, include_usage);
    }
}

fn chat_chunks(events: &[Value], include_usage: bool) {
    let (usage, chunks): (Vec<_>, Vec<_>) = events
        .iter()
        .partition(|event| event["choices"] == json!([]));
    assert_eq!(usage.len(), usize::from(include_usage), "{events:?}");
    if include_usage {
        assert_eq!(
            events.last().unwrap()["usage"],
            json!({ "prompt_tokens": 31, "completion_tokens": 4, "total_tokens": 35 })
        );
    }
    for event in events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(
            (&event["id"], &event["created"]),
            (&events[0]["id"], &events[0]["created"])
        );
    }
    let field = |name: &str| {
        chunks
            .iter()
            .filter(|chunk| !chunk["choices"][0]["delta"][name].is_null())
            .count()
    };
    assert_eq!((field("role"), field("content")), (1, 2), "{events:?}");
    let finish: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["finish_reason"])
        .filter(|reason| !reason.is_null())
        .collect();
    assert_eq!(finish, ["stop"]);
    let last = chunks.last().unwrap();
    assert_eq!(
        (
            &last["choices"][0]["delta"],
            &last["choices"][0]["finish_reason"]
        ),
        (&json!({}), &json!("stop"))
    );
}

#[tokio::test]
async fn an_answer_in_one_piece_is_preceded_by_nothing_but_white_space() {
    let (stand, ollama) = Stand::scripted_with(&LIVELY, 1).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        let gate = Gate::default();
        let whole = path == "/api/chat";
        ollama.script(
            "/api/chat",
            Answer::after(&gate).then_all(scene::named("words", whole).unwrap()),
        );
        let mut wire = Wire::post(&stand, path, &question(false)).await;
        let mut text = wire.chunk().await.unwrap();
        assert!(text.trim().is_empty(), "{text:?}");
        gate.open();
        text += &wire.rest().await.concat();
        let answer: Value = serde_json::from_str(&text).expect("white space, then one object");
        let said = answer
            .pointer("/message/content")
            .or(answer.pointer("/choices/0/message/content"));
        assert_eq!(said.unwrap(), "Six times seven.");
    }
}
