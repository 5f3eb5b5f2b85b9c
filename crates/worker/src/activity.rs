use proto::status::{CarrierKind, Hop, LiveJob};

/// What the worker is doing, for the owner's eyes. Holds neither a prompt nor an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    /// The link to the relay.
    pub relay: Hop,
    /// Whether the relay refused the key: trying again helps nobody, only its owner can.
    pub is_refused: bool,
    /// The engine.
    pub engine: Hop,
    /// How the relay is reached, while it is.
    pub carrier: Option<CarrierKind>,
    /// The jobs that run now.
    pub jobs: Vec<LiveJob>,
    /// Whether the owner paused it.
    pub paused: bool,
    /// What became of the jobs before.
    pub totals: Totals,
}

/// What became of the jobs that the relay knows to have ended here, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answered to the end.
    pub completed: u64,
    /// Refused by the engine for good, or broken off by it.
    pub failed: u64,
    /// Withdrawn by the requester or the owner.
    pub cancelled: u64,
    /// Given back for another time or another worker, or lent to another meanwhile.
    pub given_back: u64,
    /// Lines of their answers.
    pub tokens: u64,
}
