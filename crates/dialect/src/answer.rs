//! The translation of an engine's answer into server-sent events, or into one JSON object.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, JobId, Timestamp};
use serde::Serialize;

/// The fields that are the same in every part of one answer.
#[derive(Debug, Clone)]
pub struct Named {
    /// The job that answers. Every id in the answer is derived from it and is therefore unique.
    pub job: JobId,
    /// Name of the model as the requester wrote it.
    pub model: String,
    /// Start time of the answer.
    pub created: Timestamp,
}

/// Translates native lines into the format of one dialect.
pub trait Answer: Send + Sized + 'static {
    /// Returns the events for one native line; empty if the line contains nothing for the
    /// requester.
    ///
    /// # Errors
    /// `engine_failed` if the line is not a native line.
    fn events(&mut self, line: &[u8]) -> Result<Bytes, ErrorDetail>;

    /// Whether the last native line was seen. A stream that ends without it has failed.
    fn is_finished(&self) -> bool;

    /// Returns the object for all lines of an answer.
    ///
    /// # Errors
    /// `engine_failed` if a line is not native or the last one is missing.
    fn whole(self, lines: &[Bytes]) -> Result<Bytes, ErrorDetail>;

    /// Returns the event for a failure in the middle of a stream, on which every client of the
    /// dialect raises an error.
    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes;

    /// Returns a keep-alive: a comment with one line feed, the only form that every client ignores.
    /// Some clients take an empty line after it for an event.
    fn heartbeat(&mut self) -> Bytes {
        Bytes::from_static(b": ping\n")
    }
}

/// Writes an event without a name.
pub(crate) fn data<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    out.extend_from_slice(b"data: ");
    write(out, value);
    out.extend_from_slice(b"\n\n");
}

/// Writes an event with its name.
pub(crate) fn event<T: Serialize>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    data(out, value);
}

/// Appends a value as JSON.
pub(crate) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    // Serializing our own plain structures into memory cannot fail; if it does, nothing is written.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
    }
}
