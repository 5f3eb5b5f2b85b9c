//! `GET /api/ollama/status/{id}`: the progress of a request.

use bytes::Bytes;
use proto::{JobId, ModelName};
use serde::Serialize;

use crate::ollama::json;

/// Returns the 202 body of `POST /api/ollama/request`.
#[must_use]
pub fn queued(id: JobId) -> Bytes {
    status(id, &Progress::Queued)
}

/// Progress of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Waiting for a worker.
    Queued,
    /// A worker runs it.
    Processing,
    /// Completed.
    Completed {
        /// The text.
        response: String,
        /// The model that answered.
        model: &'a ModelName,
    },
    /// Failed or cancelled, with the reason.
    Error(&'a str),
    /// The request does not exist or belongs to another account.
    NotFound,
}

/// Returns the body of `GET /api/ollama/status/{id}`.
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
