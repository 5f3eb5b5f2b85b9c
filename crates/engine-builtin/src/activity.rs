use std::time::Instant;

/// What the engine is doing, for whoever shows it. Follow it with [`crate::Builtin::activity`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// What it does with the model.
    pub phase: Phase,
    /// Prompt tokens read since the engine was opened.
    pub read: u64,
    /// Tokens written since the engine was opened.
    pub written: u64,
    /// When the model leaves memory unless it is asked again; `None` for never, and while it works.
    pub unload_at: Option<Instant>,
}

/// Where the model is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// On disk only.
    #[default]
    Unloaded,
    /// On its way into memory.
    Loading,
    /// In memory, with nothing to do.
    Ready,
    /// Answering.
    Working,
}

impl Phase {
    /// Whether the model is in memory.
    #[must_use]
    pub const fn is_loaded(self) -> bool {
        matches!(self, Self::Ready | Self::Working)
    }
}
