//! The state of a worker, for display.

use proto::status::{CarrierKind, Hop, LiveJob};

/// State of the worker, for the owner. Contains no prompt and no answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    /// The link to the relay.
    pub relay: Hop,
    /// Whether the relay refused the key. Retrying does not help; the owner must act.
    pub is_refused: bool,
    /// The engine.
    pub engine: Hop,
    /// Carrier of the connection to the relay, while there is one.
    pub carrier: Option<CarrierKind>,
    /// The running jobs.
    pub jobs: Vec<LiveJob>,
    /// Whether the owner has paused it.
    pub paused: bool,
    /// Numbers of ended jobs.
    pub totals: Totals,
}

/// Numbers of jobs since the start of the worker whose end is known to the relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs completed.
    pub completed: u64,
    /// Jobs that the engine refused for good or failed.
    pub failed: u64,
    /// Jobs cancelled by the requester or the owner.
    pub cancelled: u64,
    /// Jobs given back to be retried, and jobs whose lease was lost.
    pub given_back: u64,
    /// Lines of their answers.
    pub tokens: u64,
}
