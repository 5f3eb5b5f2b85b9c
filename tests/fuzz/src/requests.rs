//! Requests of other APIs: each parsed one becomes a request that Ollama accepts.

use bytes::Bytes;
use dialect::{anthropic, bridge, ollama, openai, queries, relay_polling};
use proto::{JobId, LeaseToken, ModelName, Op, Timestamp};
use serde_json::Value;

const OPS: [Op; 7] = [
    Op::Chat,
    Op::Generate,
    Op::Embed,
    Op::Pull,
    Op::Copy,
    Op::Delete,
    Op::Create,
];

fn model() -> ModelName {
    ModelName::new("tiny").expect("a name")
}

/// Checks that the translation is an object with this model.
fn is_native(body: &Bytes) {
    let native: Value = serde_json::from_slice(body).expect("a translation is JSON");
    assert_eq!(native["model"], "tiny", "{native}");
}

/// Of Ollama's own requests only the head is parsed.
pub(crate) fn ollama(bytes: &[u8]) {
    for op in OPS {
        let is_read = ollama::request_head(op, bytes).is_ok();
        drop(ollama::change_head(op, bytes));
        drop(ollama::named_model("ShowRequest", bytes));
        if let Ok(named) = ollama::with_model(bytes, &model()) {
            let head = ollama::request_head(op, &named);
            assert!(head.is_ok() || !is_read, "a name broke a request");
        }
    }
    if let Ok(asked) = ollama::EmbeddingsRequest::parse(bytes) {
        // Half a surrogate pair passes unchanged; Ollama accepts it.
        let head = ollama::request_head(Op::Embed, &asked.native("tiny"));
        let head = head.expect("a translation is a request");
        assert_eq!(head.model.as_deref(), Some("tiny"));
    }
}

pub(crate) fn openai_chat(bytes: &[u8]) {
    if let Ok(asked) = openai::ChatRequest::parse(bytes) {
        is_native(&asked.native(&model()));
    }
}

pub(crate) fn openai_text(bytes: &[u8]) {
    if let Ok(asked) = openai::TextRequest::parse(bytes) {
        is_native(&asked.native(&model()));
    }
}

pub(crate) fn openai_embeddings(bytes: &[u8]) {
    let Ok(asked) = openai::EmbeddingRequest::parse(bytes) else {
        return;
    };
    is_native(&asked.native(&model()));
    drop(asked.answer("tiny", &[Bytes::copy_from_slice(bytes)]));
    let answer = Bytes::from_static(br#"{"model":"tiny","embeddings":[[0.5,-1e-3]]}"#);
    drop(asked.answer("tiny", &[answer]));
}

pub(crate) fn openai_responses(bytes: &[u8]) {
    if let Ok(asked) = openai::ResponseRequest::parse(bytes) {
        is_native(&asked.native(&model()));
    }
}

pub(crate) fn anthropic(bytes: &[u8]) {
    if let Ok(asked) = anthropic::MessagesRequest::parse(bytes) {
        is_native(&asked.native(&model()));
    }
    if let Ok(asked) = anthropic::CountRequest::parse(bytes) {
        is_native(&asked.native(&model()));
        drop(asked.answer(&[Bytes::copy_from_slice(bytes)]));
    }
}

/// Both sides of the polling API.
pub(crate) fn polling(bytes: &[u8]) {
    if let Ok(asked) = relay_polling::Request::parse(bytes) {
        is_native(&asked.native(&model()));
    }
    let token = LeaseToken {
        job: JobId([7; 16]),
        attempt: 1,
    };
    for op in [Op::Chat, Op::Generate] {
        let polled = relay_polling::PolledRequest::of(token, op, &model(), bytes, Timestamp(0));
        if let Some(polled) = polled {
            drop(relay_polling::polled(&polled));
            drop(relay_polling::production::polled_job(&polled));
        }
    }
    let answers = [
        relay_polling::Answer::parse(bytes),
        relay_polling::production::answer(bytes),
    ];
    for answer in answers.into_iter().flatten() {
        if let Ok(text) = answer.outcome() {
            let lines = relay_polling::lines(Op::Chat, &model(), text, Timestamp(0));
            assert_eq!(relay_polling::text(&lines), text);
        }
    }
}

/// Registrations, models, jobs and answers of a desktop of the tunnel service.
pub(crate) fn bridge(bytes: &[u8]) {
    let _ = bridge::polling::is_registration(bytes);
    if let Ok(models) = bridge::polling::models(bytes) {
        let count = models.len();
        assert_eq!(bridge::polling::report(models).models.len(), count);
    }
    let token = LeaseToken {
        job: JobId([7; 16]),
        attempt: 2,
    };
    if let Some(request) = bridge::EngineRequest::of(token, Op::Chat, bytes) {
        let sent = request.http_request();
        let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
        assert_eq!(sent["body"].as_str().map(str::as_bytes), Some(bytes));
    }
    let text = String::from_utf8_lossy(bytes);
    let body = serde_json::json!({"requestId": "x", "status": 200, "body": text}).to_string();
    let mut answers: Vec<_> = bridge::Answer::parse(body.as_bytes()).into_iter().collect();
    answers.extend(bridge::Answer::parse(bytes));
    if let bridge::tunnel::TunnelMessage::Answer(answer) =
        bridge::tunnel::TunnelMessage::parse(&text)
    {
        answers.push(answer);
    }
    for answer in answers {
        for op in [Op::Chat, Op::Embed] {
            let outcome = answer.outcome(op);
            let is_native = |line: &Bytes| line.starts_with(b"{") && !line.contains(&b'\n');
            assert!(outcome.lines.iter().all(is_native));
            assert!(outcome.end.is_err() || !outcome.lines.is_empty());
        }
    }
}

/// The first line is the content type, because JSON and forms are both accepted.
pub(crate) fn queries(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (kind, body) = match end {
        Some(end) => (std::str::from_utf8(&bytes[..end]).ok(), &bytes[end + 1..]),
        None => (None, bytes),
    };
    for (kind, body) in [(kind, body), (Some("application/json"), bytes)] {
        let Ok(fields) = queries::Fields::parse(kind, body) else {
            continue;
        };
        drop((fields.refresh(), fields.patch(), fields.new_log()));
        if let Ok(query) = fields.new_query() {
            is_native(&queries::native(&query.query_text.0, &model()));
        }
    }
    drop(queries::text_of(bytes));
    let _ = std::str::from_utf8(bytes).map(queries::Status::parse);
}
