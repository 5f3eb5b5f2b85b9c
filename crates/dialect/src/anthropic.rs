//! Anthropic's `/v1/messages`: streamed and complete messages, token counts, and errors.

mod content;
mod message;
mod request;

use bytes::Bytes;
use proto::{ErrorCode, ModelName, Timestamp, WorkerReport};
use serde::Serialize;

pub use message::Message;
pub use request::{CountRequest, MessagesRequest};

use crate::{
    clock::rfc3339_seconds,
    ollama::json,
    openai::{Entry, entries},
};

/// HTTP status for "overloaded", used by no other API.
pub const OVERLOADED: u16 = 529;

/// Returns `{"type":"error","error":{"type","message","code"},"request_id"}`; `code` is Hearth's
/// own addition.
#[must_use]
pub fn error(status: u16, code: ErrorCode, message: &str, request_id: Option<&str>) -> Bytes {
    json(&failure(status, code, message, request_id))
}

#[derive(Serialize)]
struct Failure<'a> {
    r#type: &'a str,
    error: Detail<'a>,
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Detail<'a> {
    r#type: &'a str,
    message: &'a str,
    code: &'a str,
}

const fn failure<'a>(
    status: u16,
    code: ErrorCode,
    message: &'a str,
    request_id: Option<&'a str>,
) -> Failure<'a> {
    let r#type = match (code, status) {
        (ErrorCode::QueueFull, _) | (_, OVERLOADED) => "overloaded_error",
        (_, 401) => "authentication_error",
        (_, 403) => "permission_error",
        (_, 404) => "not_found_error",
        (_, 413) => "request_too_large",
        (_, 429) => "rate_limit_error",
        (_, 504) => "timeout_error",
        (_, 400..500) => "invalid_request_error",
        _ => "api_error",
    };
    let error = Detail {
        r#type,
        message,
        code: code.as_str(),
    };
    Failure {
        r#type: "error",
        error,
        request_id,
    }
}

/// Returns the request id of a job, as used in errors and in the `request-id` header.
#[must_use]
pub fn request_id(job: impl std::fmt::Display) -> String {
    format!("req_{job}")
}

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'a str,
    id: &'a ModelName,
    display_name: &'a ModelName,
    created_at: String,
}

impl<'a> From<Entry<'a>> for Model<'a> {
    fn from(entry: Entry<'a>) -> Self {
        Self {
            r#type: "model",
            id: entry.id,
            display_name: entry.id,
            created_at: rfc3339_seconds(Timestamp(entry.created.saturating_mul(1000))),
        }
    }
}

/// Returns the body of `GET /v1/models` for a client that sends `anthropic-version`: all models on
/// one page.
#[must_use]
pub fn models<'a>(reports: impl IntoIterator<Item = &'a WorkerReport>) -> Bytes {
    #[derive(Serialize)]
    struct Page<'a> {
        data: Vec<Model<'a>>,
        has_more: bool,
        first_id: Option<&'a ModelName>,
        last_id: Option<&'a ModelName>,
    }
    let data: Vec<Model<'a>> = entries(reports).into_iter().map(Model::from).collect();
    json(&Page {
        first_id: data.first().map(|model| model.id),
        last_id: data.last().map(|model| model.id),
        data,
        has_more: false,
    })
}

/// Returns the body of `GET /v1/models/{id}` for such a client; `None` if no worker has the model.
#[must_use]
pub fn model<'a>(
    reports: impl IntoIterator<Item = &'a WorkerReport>,
    id: &ModelName,
) -> Option<Bytes> {
    let found = entries(reports)
        .into_iter()
        .find(|model| model.id.is_same(id));
    found.map(|model| json(&Model::from(model)))
}

#[cfg(test)]
mod tests;
