use std::sync::{Arc, OnceLock};

use proto::status::{ServerMessage, Status};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::fields::Fields;

/// One status and its bytes on the wire, made once and shared by every socket.
#[derive(Debug)]
pub struct Snapshot {
    status: Status,
    json: Utf8Bytes,
    /// Made when somebody first wants them: an overlay alone never does.
    all: OnceLock<Fields>,
    calm: OnceLock<Fields>,
}

impl Snapshot {
    fn new(status: Status) -> Self {
        let message = ServerMessage::Status {
            data: status.clone(),
        };
        // A status is text, numbers and lists of them: writing it as JSON cannot fail.
        let json = serde_json::to_string(&message).unwrap_or_default().into();
        Self {
            status,
            json,
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
}

impl StatusHub {
    /// A hub that shows `first` until it is updated.
    #[must_use]
    pub fn new(first: Status) -> Self {
        let (latest, _) = watch::channel(Arc::new(Snapshot::new(first)));
        Self { latest }
    }

    /// Changes the status. `seq` rises by one if, and only if, anything became different;
    /// else nobody is woken.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.latest.send_if_modified(|latest| {
            let seq = latest.status.seq;
            let mut next = latest.status.clone();
            change(&mut next);
            next.seq = seq;
            if next == latest.status {
                return false;
            }
            next.seq = seq + 1;
            *latest = Arc::new(Snapshot::new(next));
            true
        });
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
