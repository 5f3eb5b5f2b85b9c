//! OpenAI's `/v1`: completions, embeddings, the list of models and errors.

mod chat;
mod embeddings;
mod message;
mod object;
mod request;
mod responses;
mod sampling;
mod text;

use bytes::Bytes;
use proto::{ErrorCode, ModelName, WorkerReport};
use serde::{Deserialize, Serialize};

pub use chat::Completion;
pub use embeddings::EmbeddingRequest;
pub use request::ChatRequest;
pub use responses::{ResponseAnswer, ResponseRequest};
pub use text::{TextCompletion, TextRequest};

use crate::{
    clock::seconds_of,
    ollama::{json, merged},
};

/// Returns `{"error":{"message","type","param","code"}}`.
#[must_use]
pub fn error(status: u16, code: ErrorCode, message: &str, param: Option<&str>) -> Bytes {
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
    json(&Body {
        error: Error {
            message,
            r#type: kind(status),
            param,
            code: code.as_str(),
        },
    })
}

/// Returns OpenAI's error type for this status.
pub(crate) const fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

/// Returns the event for a failure in the middle of a stream, on which every client raises an
/// error.
#[must_use]
pub fn error_event(code: ErrorCode, message: &str) -> Bytes {
    let error = error(code.http_status(), code, message, None);
    [b"data: ", &*error, b"\n\n"].concat().into()
}

/// A model in the list.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) id: &'a ModelName,
    object: &'a str,
    /// Time of creation in seconds since 1970.
    pub(crate) created: i64,
    owned_by: &'a str,
}

/// Returns every model of the workers once.
pub(crate) fn entries<'a>(reports: impl IntoIterator<Item = &'a WorkerReport>) -> Vec<Entry<'a>> {
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
        .map(|(id, tag)| Entry {
            id,
            object: "model",
            created: created(tag.get()),
            owned_by: "library",
        })
        .collect()
}

/// Returns the body of `GET /v1/models`.
#[must_use]
pub fn models<'a>(reports: impl IntoIterator<Item = &'a WorkerReport>) -> Bytes {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'a str,
        data: Vec<Entry<'a>>,
    }
    json(&List {
        object: "list",
        data: entries(reports),
    })
}

/// Returns the body of `GET /v1/models/{id}`; `None` if no worker has the model.
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
