//! The answer of a desktop: an HTTP response in one piece, as the native lines of a job.

use std::fmt;

use bytes::Bytes;
use proto::{ErrorCode, JobError, Op, limits, worker::may_succeed_later};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ollama::sentence;

/// Maximum length of a message that is made from an error, in bytes.
const MESSAGE_MAX: usize = 8_000;
/// Maximum length of an error that is searched for its message, in bytes. A longer one could become
/// a tree of JSON that takes many times its size.
const ERROR_MAX: usize = limits::CONTROL_BODY_MAX;
const SUCCESS: u16 = 200;
const FAILURE: u16 = 500;

/// Answer of a desktop to one request.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Identifier of the request; `None` if it is absent or empty.
    pub id: Option<String>,
    status: u16,
    body: String,
    error: Option<String>,
}

/// The lines of an answer, and how it ended after them.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The engine's lines.
    pub lines: Vec<Bytes>,
    /// Whether the answer is complete.
    pub end: Result<(), Failure>,
}

/// Reason why an answer is not complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The error, as a native worker would report it.
    pub error: JobError,
    /// Whether the same request may succeed later, and the failed answer has no line.
    pub is_retryable: bool,
}

impl Answer {
    /// Creates an answer from its fields; a missing status follows from the error.
    pub(super) fn new(
        id: Option<String>,
        status: Option<&RawValue>,
        body: Option<&RawValue>,
        error: Option<&RawValue>,
    ) -> Self {
        let error = error.map(words).filter(|error| !error.is_empty());
        let usual = if error.is_some() { FAILURE } else { SUCCESS };
        let status = status.and_then(|status| words(status).parse().ok());
        Self {
            id: id.filter(|id| !id.is_empty()),
            status: status.unwrap_or(usual),
            body: body.map(words).unwrap_or_default(),
            error,
        }
    }

    /// Creates the answer of a request that failed, with an HTTP status as its code.
    pub(super) fn failed(
        id: Option<String>,
        code: Option<&RawValue>,
        error: Option<&RawValue>,
    ) -> Self {
        let failed = Self::new(id, code, None, error);
        let is_error = (400..600).contains(&failed.status);
        Self {
            status: if is_error { failed.status } else { FAILURE },
            error: failed.error.or_else(|| Some(String::new())),
            ..failed
        }
    }

    /// Returns the native lines of the answer, and its end.
    #[must_use]
    pub fn outcome(&self, op: Op) -> Outcome {
        let is_success = (200..300).contains(&self.status);
        let failed = match &self.error {
            Some(error) if is_success => Some(refused(FAILURE, &message(error))),
            Some(error) => Some(refused(self.status, &message(error))),
            None if is_success => None,
            None => Some(refused(self.status, &message(&self.body))),
        };
        match failed {
            Some(failure) => Outcome {
                lines: Vec::new(),
                end: Err(failure),
            },
            None => answered(op, &self.body),
        }
    }
}

impl fmt::Debug for Answer {
    /// Hides the answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Answer");
        let shown = shown.field("id", &self.id).field("status", &self.status);
        shown.finish_non_exhaustive()
    }
}

/// Returns a text value, or the JSON of any other value.
fn words(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

/// Extracts the message from an error body.
fn message(body: &str) -> String {
    #[derive(Deserialize)]
    struct Error {
        error: String,
    }
    let body = body.trim();
    let mut text = match serde_json::from_str::<Error>(body) {
        Ok(Error { error }) if !error.trim().is_empty() => error,
        Ok(_) | Err(_) if body.len() <= ERROR_MAX => sentence(body),
        Ok(_) | Err(_) => body[..body.floor_char_boundary(MESSAGE_MAX)].to_owned(),
    };
    text.truncate(text.floor_char_boundary(MESSAGE_MAX));
    if text.is_empty() {
        "an error without a reason".clone_into(&mut text);
    }
    text
}

/// Returns the failure for an error status, as the native worker reports that of an engine.
fn refused(status: u16, message: &str) -> Failure {
    let unavailable = |message: String| Failure {
        error: JobError::new(ErrorCode::EngineUnavailable, message),
        is_retryable: true,
    };
    let code = match status {
        429 | 503 => return unavailable(format!("the engine is busy: {message}")),
        502 | 504 => return unavailable(format!("the engine cannot be reached: {message}")),
        300..400 => {
            return unavailable(format!(
                "the engine cannot be reached: HTTP {status}: something other than an engine \
                 answers there"
            ));
        }
        404 => ErrorCode::UnknownModel,
        _ => ErrorCode::EngineRefused,
    };
    Failure {
        error: JobError {
            engine_status: Some(status),
            ..JobError::new(code, message)
        },
        is_retryable: may_succeed_later(status, message),
    }
}

#[derive(Deserialize)]
struct LineHead<'a> {
    #[serde(default)]
    done: bool,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

/// Splits the body of a successful response into native lines.
fn answered(op: Op, body: &str) -> Outcome {
    let body = body.trim();
    let is_whole = head(body).is_some();
    let mut lines = Vec::new();
    let end = if is_whole {
        // Line feeds stand only between the tokens of JSON.
        let line = body.replace(['\n', '\r'], " ");
        push_line(op, &line, &mut lines).and_then(at_end)
    } else {
        let mut each = body.lines().filter(|line| !line.trim().is_empty());
        let mut size = 0;
        loop {
            let Some(line) = each.next() else {
                break at_end(false);
            };
            size += line.len() + limits::LINE_COST;
            if size > limits::LOG_MAX {
                break Err(too_long("the engine's answer is too long"));
            }
            match push_line(op, line, &mut lines) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        }
    };
    let is_begun = !lines.is_empty();
    let end = end.map_err(|failure| Failure {
        is_retryable: failure.is_retryable && !is_begun,
        ..failure
    });
    Outcome { lines, end }
}

/// Adds one line; returns whether it is the last of the answer.
fn push_line(op: Op, line: &str, lines: &mut Vec<Bytes>) -> Result<bool, Failure> {
    if line.len() > limits::LINE_MAX {
        return Err(too_long(
            "the engine's answer has a line of more than 8 MiB, which cannot be forwarded; ask for \
             less at once",
        ));
    }
    let head = head(line).ok_or_else(|| broken("a line of its answer is not Ollama's"))?;
    if let Some(error) = head.error {
        return Err(failed(&message(&words(error))));
    }
    lines.push(Bytes::copy_from_slice(line.as_bytes()));
    Ok(head.done || matches!(op, Op::Embed))
}

/// Parses the fields of a line that decide; `None` if it is not a JSON object.
fn head(line: &str) -> Option<LineHead<'_>> {
    // The check for `{` is needed because serde also reads a list as a struct.
    let is_object = line.starts_with('{');
    is_object.then(|| serde_json::from_str(line).ok()).flatten()
}

/// The end of an answer that stops here: an engine that merely stops has failed.
fn at_end(is_done: bool) -> Result<(), Failure> {
    if is_done {
        Ok(())
    } else {
        Err(broken("it ended its answer without an end marker"))
    }
}

fn broken(problem: &str) -> Failure {
    failed(&format!("the engine broke off: {problem}"))
}

fn failed(message: &str) -> Failure {
    Failure {
        error: JobError::new(ErrorCode::EngineFailed, message),
        is_retryable: true,
    }
}

fn too_long(message: &str) -> Failure {
    Failure {
        error: JobError::new(ErrorCode::TooLarge, message),
        is_retryable: false,
    }
}
