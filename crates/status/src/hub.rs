use std::sync::{Arc, OnceLock};

use proto::status::{Command, ServerMessage, Status};
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{
    Answer,
    fields::Fields,
    publishers::{Claim, Errand, merge, pass_on},
};

/// One status and its bytes on the wire, made once and shared by every socket.
#[derive(Debug)]
pub struct Snapshot {
    status: Status,
    json: Utf8Bytes,
    /// What the agent says, and what other programs say beside it.
    base: Status,
    claims: Vec<Claim>,
    /// Made when somebody first wants them: an overlay alone never does.
    all: OnceLock<Fields>,
    calm: OnceLock<Fields>,
}

impl Snapshot {
    fn new(base: Status, claims: Vec<Claim>) -> Self {
        let status = merge(&base, &claims);
        let message = ServerMessage::Status {
            data: status.clone(),
        };
        // A status is text, numbers and lists of them: writing it as JSON cannot fail.
        let json = serde_json::to_string(&message).unwrap_or_default().into();
        Self {
            status,
            json,
            base,
            claims,
            all: OnceLock::new(),
            calm: OnceLock::new(),
        }
    }

    /// The status itself.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The whole `{"type":"status",…}` message.
    #[must_use]
    pub fn json(&self) -> Utf8Bytes {
        self.json.clone()
    }

    /// Its fields, with the figures of each job or without.
    pub(crate) fn fields(&self, with_progress: bool) -> &Fields {
        let all = || self.all.get_or_init(|| Fields::new(&self.status));
        if with_progress {
            all()
        } else {
            self.calm.get_or_init(|| all().without_progress())
        }
    }
}

/// Where the agent's status is kept and followed. Cloning it is cheap; all clones are one hub.
#[derive(Debug, Clone)]
pub struct StatusHub {
    latest: watch::Sender<Arc<Snapshot>>,
    voice: watch::Sender<Voice>,
}

/// What a voice assistant on this machine is doing, as it publishes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Voice {
    /// It records a command.
    pub is_listening: bool,
    /// It speaks.
    pub is_speaking: bool,
}

impl StatusHub {
    /// A hub that shows `first` until it is updated.
    #[must_use]
    pub fn new(first: Status) -> Self {
        let (latest, _) = watch::channel(Arc::new(Snapshot::new(first, Vec::new())));
        let voice = watch::Sender::default();
        Self { latest, voice }
    }

    /// Changes the status. `seq` rises by one if, and only if, anything became different;
    /// else nobody is woken.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.latest.send_if_modified(|latest| {
            let mut base = latest.base.clone();
            change(&mut base);
            replace(latest, base, latest.claims.clone())
        });
    }

    /// Changes what other programs publish.
    pub(crate) fn change_claims(&self, change: impl FnOnce(&mut Vec<Claim>)) {
        self.latest.send_if_modified(|latest| {
            let mut claims = latest.claims.clone();
            change(&mut claims);
            let is_new = replace(latest, latest.base.clone(), claims);
            // Within the change: of two at once the later one must have the last word.
            let voice = Voice {
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

    /// Rings when what publishers show became different: their voice, their words, who they are.
    #[must_use]
    pub fn voice(&self) -> watch::Receiver<Voice> {
        self.voice.subscribe()
    }

    /// Has a command of the voice (`stop_tts`, `set_volume`) carried out by the publisher it
    /// concerns, who answers; with nobody there the answer is `nothing_to_do`.
    pub fn pass_on(&self, command: Command, answer: oneshot::Sender<Answer>) {
        let latest = self.latest();
        pass_on(&latest.claims, Errand { command, answer });
    }

    /// The status now.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        self.latest.borrow().clone()
    }

    /// Follows the status; whoever is slow sees only the latest.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.latest.subscribe()
    }
}

/// Puts a new snapshot there, and says whether it shows anything new.
fn replace(latest: &mut Arc<Snapshot>, mut base: Status, claims: Vec<Claim>) -> bool {
    let seq = latest.status.seq;
    base.seq = seq;
    let is_new = merge(&base, &claims) != latest.status;
    base.seq += u64::from(is_new);
    *latest = Arc::new(Snapshot::new(base, claims));
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
