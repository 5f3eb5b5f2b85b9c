//! Hearth's own messages.

use bytes::Bytes;
use proto::{
    Account, EventId, JobId, ModelName, SubmitJob, WorkerId, WorkerReport, limits,
    worker::{
        DetailsAnswer, DetailsRequest, EndRequest, Frame, LeaseAnswer, NackRequest, PollAnswer,
        PollRequest, RelayMessage, WorkerMessage,
    },
};
use serde_json::from_slice;

/// A binary frame of the carrier; a parsed frame is written back unchanged.
pub(crate) fn frame(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(frame) = Frame::decode(&bytes) {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
}

/// JSON messages, over a WebSocket and in bodies of polls.
pub(crate) fn carrier(bytes: &[u8]) {
    if let Ok(message) = from_slice::<WorkerMessage>(bytes) {
        drop(serde_json::to_vec(&message));
    }
    if let Ok(message) = from_slice::<RelayMessage>(bytes) {
        drop(serde_json::to_vec(&message));
    }
    drop(from_slice::<PollRequest>(bytes));
    drop(from_slice::<PollAnswer>(bytes));
    drop(from_slice::<DetailsRequest>(bytes));
    drop(from_slice::<DetailsAnswer>(bytes));
    drop(from_slice::<LeaseAnswer>(bytes));
    drop(from_slice::<EndRequest>(bytes));
    drop(from_slice::<NackRequest>(bytes));
    if let Ok(report) = from_slice::<WorkerReport>(bytes) {
        assert!(report.models.len() <= limits::MODELS_MAX);
    }
    // The reports of several workers together.
    if let Ok(reports) = from_slice::<Vec<WorkerReport>>(bytes) {
        drop(dialect::ollama::tags(&reports));
        drop(dialect::openai::models(&reports));
        drop(dialect::anthropic::models(&reports));
    }
}

/// A submitted job: its body is kept byte for byte.
pub(crate) fn job(bytes: &[u8]) {
    let Ok(job) = from_slice::<SubmitJob>(bytes) else {
        return;
    };
    let op = job.op;
    if let Ok(head) = dialect::ollama::request_head(op, job.body.get().as_bytes()) {
        drop(head);
    }
}

/// Names and numbers in paths and headers; what is parsed is written back unchanged.
pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<JobId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(id) = text.parse::<EventId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(name) = text.parse::<ModelName>() {
        assert_eq!(name.as_str(), text);
        assert!(name.is_same(&name));
    }
    if let Ok(name) = text.parse::<Account>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<WorkerId>() {
        assert_eq!(name.as_str(), text);
    }
    let _ = dialect::relay_polling::token(text);
}
