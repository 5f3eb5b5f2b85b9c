//! The state of the built-in engine, for display.

use std::time::Instant;

/// State of the engine, for display. Subscribe to it with [`crate::Builtin::activity`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// State of the model.
    pub phase: Phase,
    /// Number of prompt tokens processed since the engine was opened.
    pub read: u64,
    /// Number of tokens generated since the engine was opened.
    pub written: u64,
    /// Time at which the model is unloaded unless another request arrives; `None` for never, and
    /// while it is working.
    pub unload_at: Option<Instant>,
}

/// State of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// On disk only.
    #[default]
    Unloaded,
    /// Being loaded.
    Loading,
    /// In memory and idle.
    Ready,
    /// Generating an answer.
    Working,
}

impl Phase {
    /// Whether the model is in memory.
    #[must_use]
    pub const fn is_loaded(self) -> bool {
        matches!(self, Self::Ready | Self::Working)
    }
}
