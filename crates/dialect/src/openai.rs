//! OpenAI's `/v1`: chat completions, streamed or whole, the models list and the error shape.

mod answer;
mod request;

use bytes::Bytes;
use proto::{ErrorCode, ModelName, WorkerReport};
use serde::{Deserialize, Serialize};

pub use answer::{Completion, Named};
pub use request::ChatRequest;

use crate::{
    clock::seconds_of,
    ollama::{json, merged},
};

/// The line after the last event of a stream.
pub const DONE: &str = "data: [DONE]\n\n";

/// `{"error":{"message","type","param","code"}}`.
#[must_use]
pub fn error(status: u16, code: ErrorCode, message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        message: &'a str,
        r#type: &'a str,
        param: Option<&'a str>,
        code: &'a str,
    }
    let r#type = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    json(&Body {
        error: Error {
            message,
            r#type,
            param: None,
            code: code.as_str(),
        },
    })
}

/// A failure in the middle of a stream, as the event that every client raises on.
#[must_use]
pub fn error_event(code: ErrorCode, message: &str) -> Bytes {
    event(&error(code.http_status(), code, message))
}

pub(crate) fn event(data: &[u8]) -> Bytes {
    [b"data: ", data, b"\n\n"].concat().into()
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a ModelName,
    object: &'a str,
    created: i64,
    owned_by: &'a str,
}

fn entries<'a>(reports: impl IntoIterator<Item = &'a WorkerReport>) -> Vec<Model<'a>> {
    #[derive(Deserialize)]
    struct Tag {
        #[serde(default)]
        modified_at: String,
    }
    let created = |tag: &str| {
        let tag = serde_json::from_str::<Tag>(tag);
        tag.map_or(0, |tag| seconds_of(&tag.modified_at))
    };
    merged(reports)
        .into_iter()
        .map(|(id, tag)| Model {
            id,
            object: "model",
            created: created(tag.get()),
            owned_by: "library",
        })
        .collect()
}

/// `GET /v1/models`.
#[must_use]
pub fn models<'a>(reports: impl IntoIterator<Item = &'a WorkerReport>) -> Bytes {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'a str,
        data: Vec<Model<'a>>,
    }
    json(&List {
        object: "list",
        data: entries(reports),
    })
}

/// `GET /v1/models/{id}`; `None` if nobody has it.
#[must_use]
pub fn model<'a>(
    reports: impl IntoIterator<Item = &'a WorkerReport>,
    id: &ModelName,
) -> Option<Bytes> {
    let found = entries(reports)
        .into_iter()
        .find(|model| model.id.is_same(id));
    found.map(|model| json(&model))
}

#[cfg(test)]
mod tests;
