//! The contract over plain HTTP: what the WebSocket carries as messages, as bodies.

use serde::{Deserialize, Serialize};

use super::{LeaseHead, Retry};
use crate::{Detail, End, ErrorCode, LeaseToken, WorkerId, WorkerReport};

/// `POST /api/worker/v1/poll`: takes jobs and hears of cancellations on the HTTP carriers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PollRequest {
    /// The worker's name.
    pub worker: WorkerId,
    /// Hearth's version on the worker's side.
    pub version: String,
    /// Sent with the first poll and whenever it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<WorkerReport>,
    /// How many more jobs the worker would start now; 0 only listens for cancellations.
    pub free: u32,
    /// How many jobs that take no slot it would start besides.
    #[serde(default)]
    pub urgent: u32,
    /// Leases it holds; each is renewed by this.
    #[serde(default)]
    pub held: Vec<LeaseToken>,
    /// How long the relay may hold the request, in milliseconds; 0 for a plain poll.
    pub wait_ms: u64,
}

/// `POST /api/worker/v1/details`: what the WebSocket carries as [`super::WorkerMessage::Detail`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DetailsRequest {
    /// The worker's name.
    pub worker: WorkerId,
    /// What its engine offers, if that cannot wait for the next poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<WorkerReport>,
    /// What is told.
    pub details: Vec<Detail>,
}

/// The answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailsAnswer {
    /// The relay does not know this worker: send the report with the next poll, then these again.
    pub report_wanted: bool,
}

/// The answer to a poll.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PollAnswer {
    /// New jobs, each with its body as text (a request body is always UTF-8 JSON).
    #[serde(default)]
    pub leases: Vec<PolledLease>,
    /// Held jobs whose requester is gone.
    #[serde(default)]
    pub cancelled: Vec<LeaseToken>,
    /// Held leases that are not this worker's any more.
    #[serde(default)]
    pub gone: Vec<LeaseToken>,
    /// The relay does not know this worker (it restarted): send the report with the next poll.
    #[serde(default)]
    pub report_wanted: bool,
}

/// A job handed out over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolledLease {
    /// The lease.
    #[serde(flatten)]
    pub head: LeaseHead,
    /// The request for the engine.
    pub body: String,
}

/// The answer to `POST /api/worker/v1/jobs/{id}/{attempt}/lines?first=N` (NDJSON body),
/// `…/extend` and `…/end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// The last stored line.
    pub stored: u64,
    /// The requester is gone: stop, and give the job back.
    pub cancelled: bool,
}

/// Body of `POST /api/worker/v1/jobs/{id}/{attempt}/end`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndRequest {
    /// The number of lines that were sent.
    pub lines: u64,
    /// How it ended.
    pub end: End,
}

/// Body of `POST /api/worker/v1/jobs/{id}/{attempt}/nack`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NackRequest {
    /// What shall happen to it.
    pub retry: Retry,
    /// Why.
    pub code: ErrorCode,
    /// The same for a person.
    pub message: String,
    /// The engine's own HTTP status, if it was the engine that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_status: Option<u16>,
}
