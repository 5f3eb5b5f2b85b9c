//! The log of a job: its lines, its end, and positions in it.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de};

use crate::{Body, ErrorCode, ErrorDetail, limits::REASON_MAX};

/// One line of a job's log: the `n`-th NDJSON line of its engine, without the line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Number of the line; 1 for the first of an attempt.
    pub n: u64,
    /// The line, in the format of Ollama's native API.
    pub line: Body,
}

impl Chunk {
    /// The line's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.line.0
    }
}

/// Outcome of a job. It is on disk before anybody is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum End {
    /// The whole answer is in the log.
    Completed,
    /// The job failed.
    Failed {
        /// The reason.
        error: JobError,
    },
    /// The requester cancelled it.
    Cancelled,
}

/// The reason of a failure, with the HTTP status that the engine itself would have sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobError {
    /// Stable code.
    pub code: ErrorCode,
    /// One sentence for humans. Never contains a prompt.
    pub message: String,
    /// HTTP status of the engine, if the engine refused the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_status: Option<u16>,
}

impl JobError {
    /// An error found by Hearth, not by the engine.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            engine_status: None,
        }
    }
}

impl JobError {
    /// Truncates the message to [`REASON_MAX`], because it may come from a worker of
    /// another account.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let end = self.message.floor_char_boundary(REASON_MAX);
        self.message.truncate(end);
        self
    }
}

impl From<JobError> for ErrorDetail {
    fn from(error: JobError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// The position of an event in a job's log, written `attempt-n`: the SSE `id` and `Last-Event-ID`.
///
/// `n` is 0 before the first chunk of the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// Number of the attempt.
    pub attempt: u32,
    /// Number of the chunk within it.
    pub n: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.attempt, self.n)
    }
}

impl FromStr for EventId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "an event id must have the form `attempt-n`, for example `1-42`";
        let (attempt, n) = text.split_once('-').ok_or(SHAPE)?;
        Ok(Self {
            attempt: attempt.parse().map_err(|_| SHAPE)?,
            n: n.parse().map_err(|_| SHAPE)?,
        })
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_order_by_attempt_then_chunk() {
        let id = |text: &str| text.parse::<EventId>().unwrap();
        assert!(id("1-99") < id("2-1"));
        assert!(id("2-9") < id("2-10"));
        assert_eq!(id("2-10").to_string(), "2-10");
        for wrong in ["", "1", "1-", "-1", "a-b", "1-2-3", "1 -2"] {
            assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_end_is_one_flat_record() {
        let failed = End::Failed {
            error: JobError::new(ErrorCode::WorkerLost, "gone"),
        };
        let json = serde_json::to_string(&failed).unwrap();
        assert_eq!(
            json,
            r#"{"state":"failed","error":{"code":"worker_lost","message":"gone"}}"#
        );
        assert_eq!(serde_json::from_str::<End>(&json).unwrap(), failed);
        assert_eq!(
            serde_json::to_string(&End::Completed).unwrap(),
            r#"{"state":"completed"}"#
        );
    }
}
