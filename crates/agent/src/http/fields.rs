//! The fields that founding overlays read, with ours beside them.

use proto::{
    Timestamp,
    status::{Phase, Status},
};
use serde::Serialize;

/// The nine fields that are polled for.
#[derive(Serialize)]
pub(crate) struct Polled<'a> {
    #[serde(flatten)]
    status: &'a Status,
    tts_playing: bool,
    last_tts: &'a str,
}

impl<'a> Polled<'a> {
    pub(crate) fn new(status: &'a Status) -> Self {
        Self {
            status,
            tts_playing: status.is_speaking,
            last_tts: &status.text,
        }
    }
}

/// The same, and the five that only events have. Every event is whole: the first one as well.
#[derive(Serialize)]
pub(crate) struct Streamed<'a> {
    #[serde(flatten)]
    polled: Polled<'a>,
    /// There is something to read beside the mood.
    show_content: bool,
    /// Somebody is heard, and there is nothing to read yet.
    show_just_orb: bool,
    /// Always: founding pages hide themselves for good when it is not.
    overlay_enabled: bool,
    /// The overlay should stay until the owner has acted.
    critical: bool,
    /// When this was first told, in seconds.
    timestamp: f64,
}

impl<'a> Streamed<'a> {
    pub(crate) fn new(status: &'a Status, now: Timestamp) -> Self {
        let show_content = status.is_speaking || !status.jobs.is_empty();
        let is_heard = status.is_listening || status.wake_word_detected;
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds since 1970 have 41 bits"
        )]
        let millis = now.0 as f64;
        Self {
            polled: Polled::new(status),
            show_content,
            show_just_orb: is_heard && !show_content,
            overlay_enabled: true,
            critical: status.status == Phase::Error,
            timestamp: millis / 1000.0,
        }
    }
}
