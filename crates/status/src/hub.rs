use std::sync::{Arc, OnceLock};

use proto::status::{Command, ServerMessage, Status};
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{
    Answer,
    fields::Fields,
    fit::fit,
    publishers::{Claim, PublisherCommand, merge, pass_on},
};

/// One status and its encodings, made once and shared by all sockets.
#[derive(Debug, Clone)]
pub struct Snapshot {
    status: Status,
    /// The agent's own status, without the publishers' fields.
    base: Status,
    claims: Vec<Claim>,
    /// Each encoding is made when it is first needed: few hubs have readers of every kind.
    json: OnceLock<Utf8Bytes>,
    all: OnceLock<Fields>,
    calm: OnceLock<Fields>,
}

impl Snapshot {
    fn new(status: Status, base: Status, claims: Vec<Claim>) -> Self {
        Self {
            status,
            base,
            claims,
            json: OnceLock::new(),
            all: OnceLock::new(),
            calm: OnceLock::new(),
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The whole `{"type":"status",…}` message.
    #[must_use]
    pub fn json(&self) -> Utf8Bytes {
        let json = self.json.get_or_init(|| {
            let data = self.status.clone();
            // A status is strings, numbers and lists, so serializing cannot fail.
            let text = serde_json::to_string(&ServerMessage::Status { data });
            text.unwrap_or_default().into()
        });
        json.clone()
    }

    /// The top-level fields, with or without the progress figures of each job.
    pub(crate) fn fields(&self, with_progress: bool) -> &Fields {
        let all = || self.all.get_or_init(|| Fields::new(&self.status));
        if with_progress {
            all()
        } else {
            self.calm.get_or_init(|| all().without_progress())
        }
    }
}

/// Holds the agent's status for its followers. Cloning is cheap; all clones are one hub.
#[derive(Debug, Clone)]
pub struct StatusHub {
    latest: watch::Sender<Arc<Snapshot>>,
    voice: watch::Sender<VoiceActivity>,
}

/// The activity of a voice assistant on this machine, as it publishes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VoiceActivity {
    /// Whether it records a command.
    pub is_listening: bool,
    /// Whether it speaks.
    pub is_speaking: bool,
}

impl StatusHub {
    /// A hub that shows `first` until it is updated.
    #[must_use]
    pub fn new(first: Status) -> Self {
        let snapshot = Snapshot::new(first.clone(), first, Vec::new());
        let (latest, _) = watch::channel(Arc::new(snapshot));
        let voice = watch::Sender::default();
        Self { latest, voice }
    }

    /// Changes the status. If nothing differs afterwards, `seq` stays and no follower is woken;
    /// else `seq` rises by one.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.latest.send_if_modified(|latest| {
            let mut base = latest.base.clone();
            change(&mut base);
            replace(latest, base, latest.claims.clone())
        });
    }

    /// Changes the publishers' fields; `change` returns whether anything differs.
    pub(crate) fn change_claims(&self, change: impl FnOnce(&mut Vec<Claim>) -> bool) {
        self.latest.send_if_modified(|latest| {
            let mut claims = latest.claims.clone();
            if !change(&mut claims) {
                return false;
            }
            let is_new = replace(latest, latest.base.clone(), claims);
            // Inside the change, so that the voice of the later of two concurrent changes wins.
            let voice = VoiceActivity {
                is_listening: latest.status.is_listening,
                is_speaking: latest.status.is_speaking,
            };
            self.voice.send_if_modified(|last| {
                *last = voice;
                is_new
            });
            is_new
        });
    }

    /// Receives the voice whenever any publisher's visible fields change.
    #[must_use]
    pub fn voice(&self) -> watch::Receiver<VoiceActivity> {
        self.voice.subscribe()
    }

    /// Sends a voice command (`stop_tts`, `set_volume`) to the publisher it concerns, which
    /// answers. Without one the answer is `nothing_to_do`.
    pub fn pass_on(&self, command: Command, answer: oneshot::Sender<Answer>) {
        let latest = self.latest();
        pass_on(&latest.claims, PublisherCommand { command, answer });
    }

    /// The current status.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        self.latest.borrow().clone()
    }

    /// Receives the status at each change; a slow reader sees only the latest.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.latest.subscribe()
    }
}

/// Replaces the snapshot, and returns whether anything visible changed.
fn replace(latest: &mut Arc<Snapshot>, mut base: Status, claims: Vec<Claim>) -> bool {
    base.seq = latest.status.seq;
    let mut status = merge(&base, &claims);
    fit(&mut status);
    let is_new = status != latest.status;
    if is_new {
        status.seq += 1;
        *latest = Arc::new(Snapshot::new(status, base, claims));
    } else {
        // Encodings that exist already stay valid.
        let latest = Arc::make_mut(latest);
        (latest.base, latest.claims) = (base, claims);
    }
    is_new
}

impl Default for StatusHub {
    fn default() -> Self {
        Self::new(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use proto::status::Phase;

    use super::*;

    #[test]
    fn only_a_real_change_raises_seq_and_wakes_a_reader() {
        let hub = StatusHub::default();
        let mut reader = hub.subscribe();
        hub.update(|status| status.status = Phase::Ready);
        assert!(reader.has_changed().unwrap());
        assert_eq!(reader.borrow_and_update().status().seq, 1);

        hub.update(|status| status.status = Phase::Ready);
        hub.update(|status| status.seq = 99);
        assert!(!reader.has_changed().unwrap());
        assert_eq!(hub.latest().status().seq, 1);
    }

    #[test]
    fn what_nobody_asks_for_is_not_written_and_what_is_not_new_is_not_made_again() {
        let hub = StatusHub::default();
        hub.update(|status| status.text = "ready".into());
        let first = hub.latest();
        assert!(first.json.get().is_none() && first.all.get().is_none());
        let written = first.json();
        drop(first);
        hub.update(|status| status.text = "ready".into());
        assert_eq!(hub.latest().json().as_ptr(), written.as_ptr());
    }

    #[test]
    fn a_snapshot_is_encoded_once_for_all() {
        let hub = StatusHub::default();
        hub.update(|status| status.text = "ready".into());
        let (one, two) = (hub.latest().json(), hub.latest().json());
        assert_eq!(one.as_ptr(), two.as_ptr());
        let message = serde_json::from_str::<ServerMessage>(&one).unwrap();
        let data = hub.latest().status().clone();
        assert_eq!(message, ServerMessage::Status { data });
    }
}
