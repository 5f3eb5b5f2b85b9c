//! The contract over plain HTTP: the messages of the WebSocket as request and response bodies.

use serde::{Deserialize, Serialize};

use super::{LeaseHead, Retry};
use crate::{Detail, End, ErrorCode, LeaseToken, WorkerId, WorkerReport};

/// `POST /api/worker/v1/poll`: leases jobs and receives cancellations on the HTTP carriers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PollRequest {
    /// Name of the worker.
    pub worker: WorkerId,
    /// Version of Hearth on the worker's side.
    pub version: String,
    /// Sent with the first poll and after each change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<WorkerReport>,
    /// Number of further jobs the worker would start now; 0 only asks for cancellations.
    pub free: u32,
    /// Number of urgent jobs, which take no slot, it would start in addition.
    #[serde(default)]
    pub urgent: u32,
    /// Leases it holds; the poll renews each of them.
    #[serde(default)]
    pub held: Vec<LeaseToken>,
    /// Maximum time the relay may hold the request, in milliseconds; 0 for a plain poll.
    pub wait_ms: u64,
}

/// `POST /api/worker/v1/details`: details that the WebSocket carries as
/// [`super::WorkerMessage::Detail`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DetailsRequest {
    /// Name of the worker.
    pub worker: WorkerId,
    /// Its report, if that cannot wait for the next poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<WorkerReport>,
    /// The details.
    pub details: Vec<Detail>,
}

/// Answer to a [`DetailsRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailsAnswer {
    /// Whether the relay does not know this worker: send the report with the next poll, then these
    /// details again.
    pub report_wanted: bool,
}

/// Answer to a poll.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PollAnswer {
    /// New jobs, each with its body as text (a request body is always UTF-8 JSON).
    #[serde(default)]
    pub leases: Vec<PolledLease>,
    /// Held leases whose requester has cancelled.
    #[serde(default)]
    pub cancelled: Vec<LeaseToken>,
    /// Held leases that no longer belong to this worker.
    #[serde(default)]
    pub gone: Vec<LeaseToken>,
    /// Whether the relay does not know this worker (it restarted): send the report with the next
    /// poll.
    #[serde(default)]
    pub report_wanted: bool,
}

/// A job leased over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolledLease {
    /// The lease.
    #[serde(flatten)]
    pub head: LeaseHead,
    /// Request for the engine.
    pub body: String,
}

/// Answer to `POST /api/worker/v1/jobs/{id}/{attempt}/lines?first=N` (NDJSON body), `…/extend` and
/// `…/end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// Number of the last stored line.
    pub stored: u64,
    /// Whether the requester has cancelled: stop, and give the job back.
    pub cancelled: bool,
}

/// Body of `POST /api/worker/v1/jobs/{id}/{attempt}/end`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndRequest {
    /// Number of lines that were sent.
    pub lines: u64,
    /// Outcome of the job.
    pub end: End,
}

/// Body of `POST /api/worker/v1/jobs/{id}/{attempt}/nack`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NackRequest {
    /// Treatment of the job.
    pub retry: Retry,
    /// Error code.
    pub code: ErrorCode,
    /// Error message for humans.
    pub message: String,
    /// HTTP status of the engine, if the engine refused the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_status: Option<u16>,
}
