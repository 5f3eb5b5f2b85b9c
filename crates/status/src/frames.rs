//! What each reader is shown of a status, written once for all who are shown the same.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use proto::status::v1::{Cause, HubMessage};
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};

use crate::Snapshot;

/// In which words a reader is shown the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// The whole of it, every time.
    Legacy,
    /// A snapshot and then deltas, with the figures of each job or without.
    V1 { with_progress: bool },
}

/// What a reader follows, and what it knows of it.
#[derive(Debug)]
pub(crate) struct View {
    shape: Shape,
    known: Known,
}

#[derive(Debug)]
enum Known {
    /// Nothing it could add to: it is to be sent the whole, and why.
    Nothing(Cause),
    All(Arc<Snapshot>),
}

impl View {
    /// Of a reader that knows nothing yet, or nothing any more.
    pub(crate) fn new(shape: Shape, cause: Cause) -> Self {
        let known = Known::Nothing(cause);
        Self { shape, known }
    }

    /// It took so long to read that it is sent the whole next.
    pub(crate) fn falls_behind(&mut self) {
        self.known = Known::Nothing(Cause::Behind);
    }
}

/// The frames that show one status. The hub's frames are not masked: the same bytes are for all.
pub(crate) struct Frames {
    latest: Arc<Snapshot>,
    /// `None`: there is nothing to show to those.
    made: HashMap<Key, Option<Bytes>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Whole(Shape, Option<Cause>),
    /// What changed since the status of this number.
    Changes {
        with_progress: bool,
        from: u64,
    },
}

impl Frames {
    pub(crate) fn of(latest: Arc<Snapshot>) -> Self {
        let made = HashMap::new();
        Self { latest, made }
    }

    /// The frame that this reader is to be sent now, if any; from here on it counts as sent.
    pub(crate) fn next(&mut self, view: &mut View) -> Option<Bytes> {
        let (latest, seq) = (&self.latest, self.latest.status().seq);
        let key = match (view.shape, &view.known) {
            (_, Known::All(known)) if known.status().seq >= seq => return None,
            (Shape::Legacy, _) => Key::Whole(Shape::Legacy, None),
            (shape @ Shape::V1 { .. }, Known::Nothing(cause)) => Key::Whole(shape, Some(*cause)),
            (Shape::V1 { with_progress }, Known::All(known)) => Key::Changes {
                with_progress,
                from: known.status().seq,
            },
        };
        let made = self.made.entry(key);
        let frame = made.or_insert_with(|| make(latest, view)).clone()?;
        view.known = Known::All(latest.clone());
        Some(frame)
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
        Known::All(known) => {
            let data = known.fields(with_progress).changes(fields);
            if data.is_empty() {
                return None;
            }
            let from = known.status().seq;
            HubMessage::Delta { from, seq, data }
        }
    };
    let json = serde_json::to_vec(&message).unwrap_or_default();
    Some(frame(json.into()))
}

fn frame(json: Bytes) -> Bytes {
    let frame = Frame::message(json, OpCode::Data(Data::Text), true);
    let mut bytes = Vec::with_capacity(frame.len());
    // Only a writer can refuse it, and memory does not.
    let _ = frame.format(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use proto::status::Phase;

    use super::*;
    use crate::StatusHub;

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
