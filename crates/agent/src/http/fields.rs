//! The JSON fields that overlays of the original protocol read, with Hearth's own.

use proto::{
    Timestamp,
    status::{Phase, Status},
};
use serde::Serialize;

/// The nine fields of the polled status.
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

/// The polled fields, and five that only events have. Every event has all fields.
#[derive(Serialize)]
pub(crate) struct Streamed<'a> {
    #[serde(flatten)]
    polled: Polled<'a>,
    /// There is text to show besides the phase.
    show_content: bool,
    /// Speech is being recorded or played, and there is no text yet.
    show_just_orb: bool,
    /// Always true: pages of the original protocol hide themselves for good otherwise.
    overlay_enabled: bool,
    /// The overlay should stay until the owner has acted.
    critical: bool,
    /// Time of the first event with this status, in seconds.
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
