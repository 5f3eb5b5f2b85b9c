//! `POST /api/ollama/response`: conversion between a worker's text and native lines.

use bytes::Bytes;
use proto::{ErrorDetail, ModelName, Op, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    clock::rfc3339,
    line::Line,
    ollama::{json, parse},
};

/// The 200 body of `POST /api/ollama/response`.
pub const ACKNOWLEDGED: &str = r#"{"success":true}"#;

/// `POST /api/ollama/response`. Failures sent by the real client have no `response` and no `model`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Identifier from the poll.
    pub id: String,
    /// The text; absent in failures.
    #[serde(default)]
    pub response: Option<String>,
    /// Reason of a failure.
    #[serde(default)]
    pub error: Option<String>,
    /// Whether it succeeded; derived from the other fields when absent.
    #[serde(default)]
    pub success: Option<bool>,
}

impl Answer {
    /// Parses an answer.
    ///
    /// # Errors
    /// `malformed_json` or `bad_request`, naming the field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        parse(body)
    }

    /// Returns the text.
    ///
    /// # Errors
    /// The worker's own message for its failure.
    pub fn outcome(&self) -> Result<&str, &str> {
        let succeeded = self.success.unwrap_or(self.error.is_none());
        match (&self.response, succeeded) {
            (Some(text), true) => Ok(text),
            (text, _) => Err(self
                .error
                .as_deref()
                .or(text.as_deref())
                .unwrap_or("the worker gave no answer and no reason")),
        }
    }
}

/// Returns a poller's text as the native lines of a streaming engine.
#[must_use]
pub fn lines(op: Op, model: &ModelName, text: &str, now: Timestamp) -> [Bytes; 2] {
    #[derive(Serialize)]
    struct Line<'a> {
        model: &'a ModelName,
        created_at: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<Message<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a str>,
        done: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        done_reason: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        role: &'a str,
        content: &'a str,
    }
    let created_at = rfc3339(now);
    let line = |text, done: bool| {
        let message = Message {
            role: "assistant",
            content: text,
        };
        json(&Line {
            model,
            created_at: &created_at,
            message: matches!(op, Op::Chat).then_some(message),
            response: (!matches!(op, Op::Chat)).then_some(text),
            done,
            done_reason: done.then_some("stop"),
        })
    };
    [line(text, false), line("", true)]
}

/// Returns the concatenated text of a job's lines.
#[must_use]
pub fn text<'a>(lines: impl IntoIterator<Item = &'a Bytes>) -> String {
    lines
        .into_iter()
        .filter_map(|bytes| Line::parse(bytes).map(|line| line.text().to_owned()))
        .collect()
}
