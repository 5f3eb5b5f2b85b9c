use proto::status::{CarrierKind, Hop, LiveJob};

/// What the worker is doing, for the owner's eyes. Holds neither a prompt nor an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    /// The link to the relay.
    pub relay: Hop,
    /// The engine.
    pub engine: Hop,
    /// How the relay is reached, while it is.
    pub carrier: Option<CarrierKind>,
    /// The jobs that run now.
    pub jobs: Vec<LiveJob>,
    /// Whether the owner paused it.
    pub paused: bool,
}
