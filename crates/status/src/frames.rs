//! The frames that show a status to readers, encoded once per kind of reader.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use proto::status::v1::{Cause, HubMessage};
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};

use crate::Snapshot;

/// The format in which a reader receives the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// The whole status, every time.
    Legacy,
    /// A snapshot and then deltas, with or without the progress figures of each job.
    V1 { with_progress: bool },
}

/// What a reader follows, and which status it has.
#[derive(Debug)]
pub(crate) struct View {
    shape: Shape,
    known: Known,
}

#[derive(Debug)]
enum Known {
    /// Nothing that a delta could apply to; the next message is a snapshot, for this reason.
    Nothing(Cause),
    All {
        /// Number of the status that was sent last.
        from: u64,
        /// The newest status that shows this reader nothing else.
        content: Arc<Snapshot>,
    },
}

impl View {
    /// The view of a reader that has no status yet, or needs a new snapshot.
    pub(crate) fn new(shape: Shape, cause: Cause) -> Self {
        let known = Known::Nothing(cause);
        Self { shape, known }
    }

    /// The reader is too slow for deltas: the next message is a snapshot.
    pub(crate) fn falls_behind(&mut self) {
        self.known = Known::Nothing(Cause::Behind);
    }
}

/// The encoded frames of one status. Frames of a server are not masked, so all readers share the
/// bytes.
pub(crate) struct Frames {
    latest: Arc<Snapshot>,
    /// `None`: nothing changed for these readers.
    made: HashMap<Key, Option<Bytes>>,
    /// The one that was sent last: nearly all readers are sent the same.
    last: Option<(Key, Option<Bytes>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Whole(Shape, Option<Cause>),
    /// The changes since the status with this number.
    Changes {
        with_progress: bool,
        from: u64,
    },
}

impl Frames {
    pub(crate) fn of(latest: Arc<Snapshot>) -> Self {
        let made = HashMap::new();
        let last = None;
        Self { latest, made, last }
    }

    /// The frame to send to this reader now, if any; `view` then counts it as sent.
    pub(crate) fn next(&mut self, view: &mut View) -> Option<Bytes> {
        let (latest, seq) = (&self.latest, self.latest.status().seq);
        let key = match (view.shape, &view.known) {
            (_, Known::All { content, .. }) if content.status().seq >= seq => return None,
            (Shape::Legacy, _) => Key::Whole(Shape::Legacy, None),
            (shape @ Shape::V1 { .. }, Known::Nothing(cause)) => Key::Whole(shape, Some(*cause)),
            (Shape::V1 { with_progress }, Known::All { from, .. }) => Key::Changes {
                with_progress,
                from: *from,
            },
        };
        let frame = match &self.last {
            Some((last, frame)) if *last == key => frame.clone(),
            Some(_) | None => {
                let made = self.made.entry(key);
                let frame = made.or_insert_with(|| make(latest, view)).clone();
                self.last = Some((key, frame.clone()));
                frame
            }
        };
        let content = latest.clone();
        match (&frame, &mut view.known) {
            // Nothing is sent, but an older status need not be kept.
            (None, Known::All { content: had, .. }) => *had = content,
            (None, Known::Nothing(_)) => {}
            (Some(_), known) => *known = Known::All { from: seq, content },
        }
        frame
    }
}

fn make(latest: &Snapshot, view: &View) -> Option<Bytes> {
    let Shape::V1 { with_progress } = view.shape else {
        return Some(frame(latest.json().into()));
    };
    let (fields, seq) = (latest.fields(with_progress), latest.status().seq);
    let message = match &view.known {
        Known::Nothing(cause) => HubMessage::Snapshot {
            seq,
            cause: *cause,
            data: fields.0.clone(),
        },
        Known::All { from, content } => {
            let data = content.fields(with_progress).changes(fields);
            if data.is_empty() {
                return None;
            }
            let from = *from;
            HubMessage::Delta { from, seq, data }
        }
    };
    let json = serde_json::to_vec(&message).unwrap_or_default();
    Some(frame(json.into()))
}

fn frame(json: Bytes) -> Bytes {
    let frame = Frame::message(json, OpCode::Data(Data::Text), true);
    let mut bytes = Vec::with_capacity(frame.len());
    // Only the writer could fail, and memory does not.
    let _ = frame.format(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use proto::status::Phase;

    use super::*;
    use crate::{StatusHub, fields::tests::working};

    const CALM: Shape = Shape::V1 {
        with_progress: false,
    };

    #[test]
    fn readers_that_know_the_same_are_sent_the_very_same_bytes() {
        let hub = StatusHub::default();
        for shape in [Shape::Legacy, CALM] {
            let mut views = [(); 2].map(|()| View::new(shape, Cause::First));
            for phase in [Phase::Ready, Phase::Working] {
                hub.update(|status| status.status = phase);
                let mut frames = Frames::of(hub.latest());
                let sent = views.each_mut().map(|view| frames.next(view).unwrap());
                assert_eq!(sent[0].as_ptr(), sent[1].as_ptr());
                assert_eq!(frames.made.len(), 1, "{shape:?}");
            }
        }
    }

    #[test]
    fn who_is_sent_no_progress_keeps_no_old_status_and_goes_on_from_the_last_one_it_was_sent() {
        let hub = StatusHub::default();
        let mut view = View::new(CALM, Cause::First);
        assert!(Frames::of(hub.latest()).next(&mut view).is_some());
        let first = hub.latest().status().seq;
        for tokens in 1..=3 {
            hub.update(|status| status.jobs = working(tokens).jobs);
            let is_sent = Frames::of(hub.latest()).next(&mut view).is_some();
            assert_eq!(is_sent, tokens == 1, "{tokens}");
        }
        let Known::All { from, content } = &view.known else {
            panic!("it has a status");
        };
        assert_eq!(*from, first + 1);
        assert!(Arc::ptr_eq(content, &hub.latest()));
        hub.update(|status| status.text = "new".into());
        let delta = Frames::of(hub.latest()).next(&mut view).unwrap();
        let delta = String::from_utf8_lossy(&delta[2..]).into_owned();
        assert!(
            delta.contains(&format!(r#""from":{}"#, first + 1)),
            "{delta}"
        );
    }

    #[test]
    fn nobody_is_sent_what_it_knows_or_what_is_older() {
        let hub = StatusHub::default();
        let mut old = Frames::of(hub.latest());
        hub.update(|status| status.text = "new".into());
        for shape in [Shape::Legacy, CALM] {
            let mut view = View::new(shape, Cause::First);
            let mut new = Frames::of(hub.latest());
            assert!(new.next(&mut view).is_some());
            assert_eq!(new.next(&mut view), None);
            assert_eq!(old.next(&mut view), None);
        }
    }
}
