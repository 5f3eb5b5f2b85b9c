//! Computes the status from the agent's state. Nothing here waits or acts.

use proto::status::{Hop, HopState, LiveJob, Phase, Status};
use status::VoiceActivity;
use worker::Activity;

use crate::{Language, Preferences};

/// The state from which a status is computed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// The worker's activity.
    pub(crate) activity: Activity,
    /// The voice state that another program publishes.
    pub(crate) voice: VoiceActivity,
    /// The owner's preferences.
    pub(crate) preferences: Preferences,
    /// Whether a relay is set up.
    pub(crate) has_relay: bool,
    /// Whether the agent is stopping.
    pub(crate) stopping: bool,
    /// The owner's language.
    pub(crate) language: Language,
}

impl Known {
    /// The status to publish; the hub adds the fields of other programs.
    pub(crate) fn status(&self, before: &Status) -> Status {
        let phase = self.phase();
        let words = self.language.words();
        let lacks_relay = phase == Phase::RelayOffline && !self.has_relay;
        let text = if lacks_relay {
            words.no_relay
        } else {
            words.phase(phase)
        };
        Status {
            status: phase,
            text: text.to_owned(),
            is_listening: before.is_listening,
            is_speaking: before.is_speaking,
            wake_word_detected: before.wake_word_detected,
            overlay_visible: self.preferences.overlay_visible,
            monitoring: !self.preferences.paused,
            jobs: self.activity.jobs.iter().map(finite).collect(),
            relay: self.relay(),
            engine: self.activity.engine.clone(),
            carrier: self.activity.carrier,
            publishers: Vec::new(),
            seq: before.seq,
        }
    }

    fn relay(&self) -> Hop {
        if self.has_relay {
            return self.activity.relay.clone();
        }
        Hop {
            state: HopState::Down,
            name: "not configured".to_owned(),
            problem: "no relay is set up: start with --relay URL --key-file FILE, \
                      or set `relay` and `key-file` in hearth.toml"
                .to_owned(),
        }
    }

    /// The first problem, from the requester's end; else the activity.
    fn phase(&self) -> Phase {
        let Activity {
            relay,
            engine,
            jobs,
            ..
        } = &self.activity;
        let relay = if self.has_relay {
            &relay.state
        } else {
            &HopState::Down
        };
        match (relay, &engine.state) {
            _ if self.stopping => Phase::Stopping,
            _ if self.preferences.paused => Phase::Paused,
            (HopState::Down, _) if self.has_relay && self.activity.is_refused => Phase::Error,
            (HopState::Down, _) => Phase::RelayOffline,
            (_, HopState::Down) => Phase::EngineOffline,
            _ if self.voice.is_speaking => Phase::Speaking,
            _ if self.voice.is_listening => Phase::Listening,
            _ if !jobs.is_empty() => Phase::Working,
            (HopState::Up, HopState::Up) => Phase::Ready,
            (HopState::Unknown, HopState::Up) => Phase::Connecting,
            (HopState::Up | HopState::Unknown, HopState::Unknown) => Phase::Starting,
        }
    }
}

/// Replaces a speed that is not finite, which JSON cannot express.
fn finite(job: &LiveJob) -> LiveJob {
    let rate = job.tokens_per_second;
    LiveJob {
        tokens_per_second: if rate.is_finite() { rate } else { 0.0 },
        ..job.clone()
    }
}

#[cfg(test)]
mod tests {
    use proto::{JobId, ModelName, Op, Timestamp};

    use super::*;

    fn hop(state: HopState) -> Hop {
        Hop {
            state,
            name: "x".into(),
            problem: String::new(),
        }
    }

    fn job() -> LiveJob {
        LiveJob {
            id: JobId([1; 16]),
            who: "laptop".into(),
            model: ModelName::new("m:1b").unwrap(),
            op: Op::Chat,
            started_at: Timestamp(0),
            tokens: 3,
            tokens_per_second: f32::NAN,
        }
    }

    fn known(relay: HopState, engine: HopState, jobs: usize) -> Known {
        let activity = Activity {
            relay: hop(relay),
            engine: hop(engine),
            jobs: vec![job(); jobs],
            ..Activity::default()
        };
        Known {
            activity,
            has_relay: true,
            ..Known::default()
        }
    }

    #[test]
    fn the_phase_is_what_was_confirmed_and_names_the_broken_hop() {
        use HopState::{Down, Unknown, Up};
        for (relay, engine, jobs, phase) in [
            (Up, Up, 0, Phase::Ready),
            (Up, Up, 1, Phase::Working),
            (Unknown, Unknown, 0, Phase::Starting),
            (Unknown, Up, 0, Phase::Connecting),
            (Up, Unknown, 0, Phase::Starting),
            (Down, Up, 0, Phase::RelayOffline),
            (Down, Up, 1, Phase::RelayOffline),
            (Down, Down, 0, Phase::RelayOffline),
            (Down, Unknown, 0, Phase::RelayOffline),
            (Up, Down, 0, Phase::EngineOffline),
            (Unknown, Down, 0, Phase::EngineOffline),
            (Up, Down, 1, Phase::EngineOffline),
        ] {
            let known = known(relay.clone(), engine.clone(), jobs);
            assert_eq!(
                known.status(&Status::default()).status,
                phase,
                "{relay:?} {engine:?} {jobs}"
            );
        }
    }

    #[test]
    fn a_key_that_the_relay_refuses_needs_the_owner() {
        let mut known = known(HopState::Down, HopState::Up, 0);
        known.activity.is_refused = true;
        let status = known.status(&Status::default());
        assert_eq!(status.status, Phase::Error);
        assert_eq!(status.text, "Needs your attention");
        known.preferences.paused = true;
        assert_eq!(known.status(&status).status, Phase::Paused);
    }

    #[test]
    fn a_pause_is_shown_whatever_else_is_true_and_only_stopping_beats_it() {
        let mut known = known(HopState::Down, HopState::Up, 1);
        known.preferences.paused = true;
        let status = known.status(&Status::default());
        assert_eq!((status.status, status.monitoring), (Phase::Paused, false));
        assert_eq!(status.jobs.len(), 1, "running jobs stay visible");
        known.stopping = true;
        assert_eq!(known.status(&status).status, Phase::Stopping);
    }

    #[test]
    fn without_a_relay_the_status_says_so() {
        let known = Known {
            has_relay: false,
            ..known(HopState::Unknown, HopState::Up, 0)
        };
        let status = known.status(&Status::default());
        assert_eq!(status.status, Phase::RelayOffline);
        assert_eq!(status.text, "No relay is set up");
        assert_eq!(status.relay.name, "not configured");
        assert!(status.relay.problem.contains("--relay"));
    }

    #[test]
    fn what_others_publish_is_kept_and_no_number_is_lost_in_json() {
        let before = Status {
            is_speaking: true,
            seq: 9,
            ..Status::default()
        };
        let status = known(HopState::Up, HopState::Up, 1).status(&before);
        assert!(status.is_speaking);
        assert_eq!(status.seq, 9);
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
