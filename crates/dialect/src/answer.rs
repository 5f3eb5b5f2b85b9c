//! One answer on its way to a requester who reads server-sent events, or one JSON object.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, JobId, Timestamp};
use serde::Serialize;

/// What stays the same in every part of one answer.
#[derive(Debug, Clone)]
pub struct Named {
    /// The job that answers; every id in the answer is made from it, so none comes twice.
    pub job: JobId,
    /// As the requester wrote it.
    pub model: String,
    /// When the answer began.
    pub created: Timestamp,
}

/// Native lines as one dialect writes them.
pub trait Answer: Send + Sized + 'static {
    /// The events for one native line; none if it says nothing.
    ///
    /// # Errors
    /// `engine_failed` for a line that is not a native one.
    fn events(&mut self, line: &[u8]) -> Result<Bytes, ErrorDetail>;

    /// Whether the last native line was seen; a stream that ends without it has failed.
    fn is_finished(&self) -> bool;

    /// The one object for all lines of an answer.
    ///
    /// # Errors
    /// `engine_failed` if a line is not native or the last one is missing.
    fn whole(self, lines: &[Bytes]) -> Result<Bytes, ErrorDetail>;

    /// A failure in the middle of a stream, as what every client of the dialect raises on.
    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes;

    /// A sign of life. A comment with one line feed is the only one that every client survives:
    /// an empty line after it would be taken for an event by some.
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

/// Appends JSON.
pub(crate) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    // Writing our own plain structures into memory cannot fail; nothing is left of one that did.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
    }
}
