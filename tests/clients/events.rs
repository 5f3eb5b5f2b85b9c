//! Server-sent events of each API: their content, and nothing that clients cannot parse.

use futures_util::future::join_all;
use hearth_tests::test_bed::TestBed;
use serde_json::{Value, json};

use crate::{
    scene::SPOKEN,
    silence::{LIVELY, silent},
    wire::{Wire, question},
};

/// The optional name and the data of an event.
type Event = (Option<String>, String);

/// Sends a request whose stream is silent twice, and returns its events.
async fn asked(path: &str, native: &str, body: &Value) -> Vec<Event> {
    let (bed, ollama) = TestBed::scripted_with(&LIVELY, 1).await;
    let (wire, mut chunks) = silent(&bed, &ollama, path, native, body).await;
    wire.has("content-type: text/event-stream");
    wire.has("cache-control: no-cache");
    wire.has("x-accel-buffering: no");
    chunks.extend(Wire::rest(wire).await);
    events(&chunks)
}

/// The events in chunks, each of which holds whole events and heartbeats.
fn events(chunks: &[String]) -> Vec<Event> {
    let (comments, whole): (Vec<&String>, Vec<_>) =
        chunks.iter().partition(|chunk| chunk.starts_with(':'));
    // One line feed after a comment: after two, a client that saw an id would dispatch an event.
    assert!(
        comments.iter().all(|comment| *comment == ": ping\n"),
        "{chunks:?}"
    );
    assert!(
        whole.iter().all(|chunk| chunk.ends_with("\n\n")),
        "{chunks:?}"
    );
    let text: String = whole.into_iter().map(String::as_str).collect();
    let events: Vec<Event> = text.split_terminator("\n\n").map(event).collect();
    let pings = events.iter().filter(|event| is_ping(event)).count();
    assert!(comments.len() + pings >= 3, "{chunks:?}");
    events
}

fn is_ping((name, _): &Event) -> bool {
    name.as_deref() == Some("ping")
}

/// Parses an event without `id` and `retry`, with one non-empty line of data.
fn event(text: &str) -> Event {
    let (name, data) = match text
        .strip_prefix("event: ")
        .and_then(|rest| rest.split_once('\n'))
    {
        Some((name, data)) => (Some(name.to_owned()), data),
        None => (None, text),
    };
    let data = data
        .strip_prefix("data: ")
        .unwrap_or_else(|| panic!("no data: {text}"));
    assert!(!data.is_empty() && !data.contains('\n'), "{text}");
    (name, data.to_owned())
}

/// The JSON objects of events without names, which end with `[DONE]`.
fn nameless(mut events: Vec<Event>) -> Vec<Value> {
    assert_eq!(events.pop(), Some((None, "[DONE]".into())));
    assert!(events.iter().all(|(name, _)| name.is_none()), "{events:?}");
    events
        .iter()
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect()
}

/// The JSON objects of events named by their type, without heartbeats.
fn named(events: &[Event]) -> Vec<Value> {
    let object = |(name, data): &Event| {
        let object: Value = serde_json::from_str(data).unwrap();
        assert_eq!(object["type"].as_str(), name.as_deref(), "{data}");
        object
    };
    let said = events.iter().filter(|event| !is_ping(event));
    said.map(object).collect()
}

fn types(objects: &[Value]) -> Vec<&str> {
    objects
        .iter()
        .map(|object| object["type"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_chat_completion_is_chunks_of_one_id_a_finish_and_the_usage_that_was_asked_for() {
    join_all([false, true].map(async |include_usage| {
        let path = "/v1/chat/completions";
        let mut body = question(path, true);
        body["stream_options"] = json!({ "include_usage": include_usage });
        let events = asked(path, "/api/chat", &body).await;
        chat_chunks(&nameless(events), include_usage);
    }))
    .await;
}

#[tokio::test]
async fn a_text_completion_is_chunks_of_text() {
    let events = nameless(
        asked(
            "/v1/completions",
            "/api/generate",
            &question("/v1/completions", true),
        )
        .await,
    );
    let text: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, SPOKEN.repeat(2));
    assert!(
        events
            .iter()
            .all(|event| event["object"] == "text_completion"),
        "{events:?}"
    );
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[tokio::test]
async fn a_response_is_named_events_in_a_rising_sequence() {
    let events = named(
        &asked(
            "/v1/responses",
            "/api/chat",
            &question("/v1/responses", true),
        )
        .await,
    );
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.iter().copied().eq(0..events.len() as u64),
        "{numbers:?}"
    );
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
}

#[tokio::test]
async fn a_message_is_named_events_around_its_blocks() {
    let events = named(&asked("/v1/messages", "/api/chat", &question("/v1/messages", true)).await);
    assert_eq!(
        types(&events),
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let delta = &events[5];
    assert_eq!(
        (
            &delta["delta"]["stop_reason"],
            &delta["usage"]["output_tokens"]
        ),
        (&json!("end_turn"), &json!(4))
    );
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
