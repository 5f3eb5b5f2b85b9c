//! The lines of a worker's answer in every dialect.

use bytes::Bytes;
use dialect::{Answer, Named, anthropic, ollama, openai};
use proto::{JobId, ModelName, Op, Timestamp};
use serde_json::value::RawValue;

fn named() -> Named {
    Named {
        job: JobId([7; 16]),
        model: "tiny".into(),
        created: Timestamp(1_000),
    }
}

fn lines(bytes: &[u8]) -> Vec<Bytes> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.map(Bytes::copy_from_slice).collect()
}

/// Writes the lines as a stream and as one answer; clients must be able to parse each event.
fn tell<A: Answer>(lines: &[Bytes], answer: impl Fn() -> A) {
    let mut streamed = answer();
    for line in lines {
        match streamed.events(line) {
            Ok(events) => {
                is_stream(&events);
                // Nothing follows the end.
                if streamed.is_finished() {
                    break;
                }
            }
            Err(error) => {
                is_stream(&streamed.failure(error.code, &error.message));
                break;
            }
        }
    }
    if let Ok(whole) = answer().whole(lines) {
        serde_json::from_slice::<&RawValue>(&whole).expect("an answer is JSON");
    }
}

fn is_stream(events: &[u8]) {
    let events = std::str::from_utf8(events).expect("events are text");
    for line in events.lines() {
        let Some(data) = line.strip_prefix("data: ") else {
            let is_known = line.is_empty() || line.starts_with("event: ") || line.starts_with(':');
            assert!(is_known, "{line}");
            continue;
        };
        if data != "[DONE]" {
            // Also with a number that no float can hold: it passes as the engine wrote it.
            serde_json::from_str::<&RawValue>(data).expect("data is JSON");
        }
    }
}

pub(crate) fn openai(bytes: &[u8]) {
    const ASKED: &[u8] = br#"{"model":"tiny","input":"x"}"#;
    let lines = lines(bytes);
    tell(&lines, || openai::Completion::new(named(), true));
    tell(&lines, || openai::TextCompletion::new(named(), true));
    let asked = openai::ResponseRequest::parse(ASKED).expect("a request");
    tell(&lines, || openai::ResponseAnswer::new(named(), &asked));
}

pub(crate) fn anthropic(bytes: &[u8]) {
    tell(&lines(bytes), || anthropic::Message::new(named()));
}

/// Ollama's own answers, and its descriptions of models.
pub(crate) fn ollama(bytes: &[u8]) {
    drop(ollama::joined(&lines(bytes)));
    drop(ollama::first_embedding(bytes));
    let _ = ollama::is_success(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    drop(ollama::sentence(text));
    if let Ok(model) = ModelName::new(text) {
        drop(ollama::model_not_found(Op::Chat, text));
        drop(ollama::heartbeat(Op::Chat, &model, Timestamp(0)));
        drop(ollama::thought(Op::Generate, &model, Timestamp(0), text));
    }
    if let Ok(entry) = RawValue::from_string(text.to_owned()) {
        drop(ollama::running_name(&entry));
        drop(ollama::show_of_tag(&entry));
        drop(ollama::running([&*entry], Timestamp(0)));
    }
}
