//! `GET /api/ollama/status/{id}`: how far a request has got.

use bytes::Bytes;
use proto::{JobId, ModelName};
use serde::Serialize;

use crate::ollama::json;

/// The 202 of `POST /api/ollama/request`.
#[must_use]
pub fn queued(id: JobId) -> Bytes {
    status(id, &Progress::Queued)
}

/// How far a request has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Nobody has it yet.
    Queued,
    /// A worker has it.
    Processing,
    /// Answered.
    Completed {
        /// The text.
        response: String,
        /// By which model.
        model: &'a ModelName,
    },
    /// Given up or withdrawn.
    Error(&'a str),
    /// No such request, or not yours.
    NotFound,
}

/// The body of `GET /api/ollama/status/{id}`.
#[must_use]
pub fn status(id: impl std::fmt::Display, progress: &Progress<'_>) -> Bytes {
    #[derive(Serialize, Default)]
    struct Status<'a> {
        id: String,
        status: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a ModelName>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    }
    let id = id.to_string();
    json(&match progress {
        Progress::Queued => Status {
            id,
            status: "queued",
            ..Status::default()
        },
        Progress::Processing => Status {
            id,
            status: "processing",
            ..Status::default()
        },
        Progress::Completed { response, model } => Status {
            id,
            status: "completed",
            response: Some(response),
            model: Some(model),
            ..Status::default()
        },
        Progress::Error(error) => Status {
            id,
            status: "error",
            error: Some(error),
            ..Status::default()
        },
        Progress::NotFound => Status {
            id,
            status: "not_found",
            ..Status::default()
        },
    })
}
