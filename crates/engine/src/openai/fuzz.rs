//! Entry points of `tests/fuzz` for the parsers of OpenAI-compatible servers.

use bytes::Bytes;
use proto::{Op, Timestamp};
use tokio::time::Duration;

use super::{
    Embeddings, Models, entry,
    reply::{Ending, Reply},
    request::{Form, Shape, translate},
    shown,
};

/// Parses a streamed answer, one event per line.
pub fn answer(bytes: &[u8]) {
    for (form, stream) in [(Form::Chat, true), (Form::Generate, false)] {
        let mut reply = Reply::new("tiny".into(), Shape { form, stream });
        for line in bytes.split(|byte| *byte == b'\n') {
            let data = line.strip_prefix(b"data:").unwrap_or(line);
            match reply.event(data.trim_ascii(), Timestamp(0)) {
                Ok(Some(line)) => is_line(&line),
                Ok(None) => {}
                Err(_) => return,
            }
        }
        let ended = reply.end(Ending::Done, Duration::from_secs(1), Timestamp(0));
        ended.unwrap_or_default().iter().for_each(is_line);
    }
}

fn is_line(line: &Bytes) {
    let line: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    assert!(line["done"].is_boolean(), "{line} is no line of Ollama's");
}

/// Translates an Ollama request, as passed on by a relay.
pub fn request(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    for op in [Op::Chat, Op::Generate, Op::Embed, Op::Pull] {
        drop(translate(op, &body));
    }
}

/// Parses a list of models, and embeddings.
pub fn models(bytes: &[u8]) {
    if let Ok(models) = serde_json::from_slice::<Models>(bytes) {
        for model in &models.data {
            drop((entry(model), shown(model)));
        }
    }
    drop(serde_json::from_slice::<Embeddings>(bytes));
}
