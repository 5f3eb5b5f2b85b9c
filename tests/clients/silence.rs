//! Heartbeats while there is no output, in forms that every client is known to accept.

use hearth_tests::{
    scripted_ollama::{Answer, Gate, ScriptedOllama},
    test_bed::TestBed,
};
use serde_json::Value;

use crate::{
    scene,
    wire::{Wire, question},
};

/// Options of a relay that sends heartbeats every second.
pub(crate) const LIVELY: [&str; 4] = ["--heartbeat", "1", "--pad-after", "1"];

/// A stream that is silent before its first token and again before its second.
pub(crate) async fn silent(
    bed: &TestBed,
    ollama: &ScriptedOllama,
    path: &str,
    native: &str,
    body: &Value,
) -> (Wire, Vec<String>) {
    let gates = [Gate::default(), Gate::default()];
    ollama.script(native, scene::with_silences(native, &gates));
    let mut wire = Wire::post(bed, path, body).await;
    let mut chunks = Vec::new();
    for (gate, signs) in gates.iter().zip([2, 1]) {
        for _ in 0..signs {
            chunks.push(wire.chunk().await.unwrap());
        }
        gate.open();
        // Either the token or one more heartbeat may come next.
        while !chunks.last().unwrap().contains(scene::SPOKEN) {
            chunks.push(wire.chunk().await.unwrap());
        }
    }
    (wire, chunks)
}

#[tokio::test]
async fn an_ndjson_stream_is_whole_objects_in_whole_chunks_and_lives_through_silence() {
    tokio::join!(
        lines("/api/chat", "/message/content"),
        lines("/api/generate", "/response")
    );
}

async fn lines(path: &str, text: &str) {
    let (bed, ollama) = TestBed::scripted_with(&LIVELY, 1).await;
    let (wire, mut chunks) = silent(&bed, &ollama, path, path, &question(path, true)).await;
    wire.has("content-type: application/x-ndjson");
    wire.has("cache-control: no-cache");
    wire.has("x-accel-buffering: no");
    chunks.extend(wire.rest().await);

    let mut said = String::new();
    for chunk in &chunks {
        assert!(chunk.ends_with('\n'), "{path}: a line is split: {chunk:?}");
        for line in chunk.split_terminator('\n') {
            let line: Value = serde_json::from_str(line).expect("each line is an object");
            let has_head = line["done"].is_boolean() && line["created_at"].is_string();
            assert!(has_head, "{line}");
            said += line.pointer(text).unwrap().as_str().unwrap();
        }
    }
    assert_eq!(said, scene::SPOKEN.repeat(2));
    let last: Value = serde_json::from_str(chunks.last().unwrap()).unwrap();
    assert_eq!(last["done"], true, "{path}");
}

#[tokio::test]
async fn an_answer_in_one_piece_is_preceded_by_nothing_but_white_space() {
    tokio::join!(
        padded("/api/chat", "/message/content"),
        padded("/v1/chat/completions", "/choices/0/message/content"),
        padded("/v1/messages", "/content/0/text"),
        padded("/v1/responses", "/output/0/content/0/text")
    );
}

async fn padded(path: &str, text: &str) {
    let (bed, ollama) = TestBed::scripted_with(&LIVELY, 1).await;
    let gate = Gate::default();
    let words = scene::named("words", path == "/api/chat").unwrap();
    ollama.script("/api/chat", Answer::after(&gate).then_all(words));
    let mut wire = Wire::post(&bed, path, &question(path, false)).await;
    let mut body = wire.chunk().await.unwrap();
    assert!(body.trim().is_empty(), "{body:?}");
    gate.open();
    body += &wire.rest().await.concat();
    let answer: Value = serde_json::from_str(&body).expect("white space, then one object");
    assert_eq!(answer.pointer(text).unwrap(), "Six times seven.", "{path}");
}
