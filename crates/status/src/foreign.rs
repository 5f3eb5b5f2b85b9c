//! The status of an assistant of the original protocol: free text, and any field may be missing.

use proto::status::{Phase, ServerMessage, Status};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Message {
    Status { data: Assistant },
}

/// The fields that such an assistant knows. It knows nothing of a relay or an engine.
#[derive(Deserialize)]
#[serde(default)]
struct Assistant {
    status: String,
    text: String,
    is_listening: bool,
    is_speaking: bool,
    wake_word_detected: bool,
    overlay_visible: bool,
    monitoring: bool,
}

impl Default for Assistant {
    fn default() -> Self {
        Self {
            status: String::new(),
            text: String::new(),
            is_listening: false,
            is_speaking: false,
            wake_word_detected: false,
            overlay_visible: true,
            monitoring: true,
        }
    }
}

/// Parses a status message with free text; `None` if it is not a status.
pub(crate) fn read(text: &str) -> Option<ServerMessage> {
    let Message::Status { data } = serde_json::from_str(text).ok()?;
    Some(ServerMessage::Status { data: data.shown() })
}

/// Parses a bare status, as events and pages have it; `None` if it is not one. The original
/// assistant also sends a bare status when its overlay is shown or hidden; that says nothing of its
/// activity.
pub(crate) fn read_bare(text: &str) -> Option<ServerMessage> {
    let value: Value = serde_json::from_str(text).ok()?;
    let own = serde_json::from_value::<Status>(value.clone()).ok();
    if let Some(data) = own.filter(|_| value.get("seq").is_some()) {
        return Some(ServerMessage::Status { data });
    }
    value.get("status")?.as_str()?;
    let says = |flag| value.get(flag).is_some_and(Value::is_boolean);
    if !says("is_speaking") && !says("tts_playing") {
        return None;
    }
    let mut assistant = serde_json::from_value::<Assistant>(value.clone()).ok()?;
    // In its events the original assistant sets `is_listening` while it waits for its wake word.
    if value.get("timestamp").is_some() {
        assistant.is_listening = false;
    }
    let data = assistant.shown();
    Some(ServerMessage::Status { data })
}

impl Assistant {
    fn shown(self) -> Status {
        Status {
            status: self.phase(),
            text: if self.text.is_empty() {
                self.status
            } else {
                self.text
            },
            is_listening: self.is_listening,
            is_speaking: self.is_speaking,
            wake_word_detected: self.wake_word_detected,
            overlay_visible: self.overlay_visible,
            monitoring: self.monitoring,
            ..Status::default()
        }
    }

    /// Derives the phase, from the flags first: they do not depend on the language.
    fn phase(&self) -> Phase {
        let words = self.status.to_lowercase();
        let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
        if !self.monitoring || says(&["monitoring stopped"]) {
            Phase::Paused
        } else if self.is_speaking || says(&["mówię", "speaking"]) {
            Phase::Speaking
        } else if self.is_listening || self.wake_word_detected || says(&["słucham", "listening"]) {
            Phase::Listening
        } else if says(&["offline", "connecting", "connection failed", "disconnected"]) {
            Phase::Connecting
        } else if says(&["error"]) {
            Phase::Error
        } else if says(&["przetwarzam", "myślę", "processing"]) {
            Phase::Working
        } else if says(&["ready", "connected"]) {
            Phase::Ready
        } else {
            // The text says nothing about the phase.
            Phase::Starting
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::status::HopState;

    use super::*;

    fn shown(data: &str) -> Status {
        let text = format!(r#"{{"type":"status","data":{data}}}"#);
        let Some(ServerMessage::Status { data }) = read(&text) else {
            panic!("no status: {text}")
        };
        data
    }

    #[test]
    fn the_words_of_the_founding_assistant_are_understood() {
        for (words, phase) in [
            ("Starting...", Phase::Starting),
            ("Ready", Phase::Ready),
            ("Ready - Briefing skipped", Phase::Ready),
            ("Connected", Phase::Ready),
            ("Disconnected", Phase::Connecting),
            ("Connection Failed", Phase::Connecting),
            ("Offline Mode", Phase::Connecting),
            ("Listening...", Phase::Listening),
            ("słucham", Phase::Listening),
            ("Przetwarzam zapytanie...", Phase::Working),
            ("myślę", Phase::Working),
            ("Mówię...", Phase::Speaking),
            ("Monitoring Stopped", Phase::Paused),
            ("Error", Phase::Error),
            ("Overlay Shown", Phase::Starting),
            ("", Phase::Starting),
        ] {
            assert_eq!(
                shown(&format!(r#"{{"status":{words:?}}}"#)).status,
                phase,
                "{words}"
            );
        }
    }

    #[test]
    fn flags_beat_words_and_every_field_may_be_missing() {
        let speaking = shown(r#"{"status":"Ready","text":"dzień dobry","is_speaking":true}"#);
        assert_eq!(speaking.status, Phase::Speaking);
        assert_eq!(speaking.text, "dzień dobry");
        let paused = shown(r#"{"status":"Ready","monitoring":false}"#);
        assert_eq!((paused.status, &*paused.text), (Phase::Paused, "Ready"));
        assert!(shown("{}").monitoring);
    }

    #[test]
    fn it_does_not_answer_for_relay_or_engine() {
        let up = r#"{"state":"up","name":"x"}"#;
        let status = shown(&format!(
            r#"{{"status":"Ready","relay":{up},"engine":{up},"jobs":[7]}}"#
        ));
        assert_eq!(status.relay.state, HopState::Unknown);
        assert_eq!(status.engine.state, HopState::Unknown);
        assert!(status.jobs.is_empty());
    }

    #[test]
    fn bare_statuses_of_events_and_pages_are_read_and_signs_of_life_are_none() {
        let bare = |text: &str| match read_bare(text) {
            Some(ServerMessage::Status { data }) => Some(data),
            _ => None,
        };
        let page = bare(r#"{"status":"słucham","is_listening":true,"tts_playing":false}"#).unwrap();
        assert_eq!((page.status, page.is_listening), (Phase::Listening, true));
        // In an event `is_listening` has the opposite meaning.
        let event = r#"{"status":"Ready","is_speaking":false,"is_listening":true,"timestamp":1.5}"#;
        let event = bare(event).unwrap();
        assert_eq!((event.status, event.is_listening), (Phase::Ready, false));
        let own = Status {
            seq: 7,
            status: Phase::EngineOffline,
            ..Status::default()
        };
        assert_eq!(bare(&serde_json::to_string(&own).unwrap()), Some(own));
        for text in [
            r#"{"heartbeat":true}"#,
            r#"{"status":"Overlay Shown","overlay_visible":true,"show_overlay":true}"#,
            r#"{"status":"Overlay Hidden","overlay_visible":false,"hide_overlay":true}"#,
            r#"{"action":"status_update","status":{"x":1}}"#,
            "7",
            "",
        ] {
            assert_eq!(bare(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_status_is_none() {
        for text in [
            "",
            "{",
            "7",
            r#"{"heartbeat":true}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"status"}"#,
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
