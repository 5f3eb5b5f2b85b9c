//! What is sent while nothing is said: signs of life that every client is known to survive.

use hearth_tests::{
    scripted_ollama::{Answer, Gate, ScriptedOllama},
    stand::Stand,
};
use serde_json::Value;

use crate::{
    scene,
    wire::{Wire, question},
};

/// A relay that gives a sign of life after a second.
pub(crate) const LIVELY: [&str; 4] = ["--heartbeat", "1", "--pad-after", "1"];

/// A stream that is silent before its first token and again before its second.
pub(crate) async fn silent(
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
        let (wire, mut chunks) = silent(&stand, &ollama, path, path, &question(path, true)).await;
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
async fn an_answer_in_one_piece_is_preceded_by_nothing_but_white_space() {
    let (stand, ollama) = Stand::scripted_with(&LIVELY, 1).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        let gate = Gate::default();
        let whole = path == "/api/chat";
        ollama.script(
            "/api/chat",
            Answer::after(&gate).then_all(scene::named("words", whole).unwrap()),
        );
        let mut wire = Wire::post(&stand, path, &question(path, false)).await;
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
