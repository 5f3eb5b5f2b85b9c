//! Requests that arrive in parts.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use proto::{
    Body, LeaseToken, limits,
    worker::{Frame, FrameKind, LeaseHead},
};

use crate::JobTable;

/// Leases whose request has not arrived completely.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    leases: HashMap<LeaseToken, (LeaseHead, BytesMut)>,
}

impl Arriving {
    pub(crate) fn begin(&mut self, head: LeaseHead) -> Result<(), &'static str> {
        if head.body_len > limits::BODY_MAX {
            return Err("a request exceeds the maximum size");
        }
        if self.leases.len() >= limits::HELD_MAX {
            return Err("too many requests arrive at once");
        }
        self.leases.insert(head.token, (head, BytesMut::new()));
        Ok(())
    }

    /// Adds one part; returns the lease and its request once that is complete.
    pub(crate) fn add(&mut self, frame: Frame) -> Result<Option<(LeaseHead, Body)>, &'static str> {
        if frame.kind != FrameKind::Body {
            return Err("only a worker sends lines");
        }
        let Some((head, body)) = self.leases.get_mut(&frame.token) else {
            // A remaining part of a request that was cancelled meanwhile.
            return Ok(None);
        };
        let part: Bytes = frame.payload.0;
        let end = body.len() + part.len();
        if frame.n != body.len() as u64
            || end > head.body_len
            || frame.more == (end == head.body_len)
        {
            return Err("the parts of a request are inconsistent");
        }
        if frame.more {
            body.extend_from_slice(&part);
            return Ok(None);
        }
        let Some((head, mut body)) = self.leases.remove(&frame.token) else {
            return Ok(None);
        };
        if body.is_empty() {
            return Ok(Some((head, Body(part))));
        }
        body.extend_from_slice(&part);
        Ok(Some((head, Body(body.freeze()))))
    }

    /// Forgets a lease that was cancelled before its request was complete.
    pub(super) fn forget(&mut self, token: LeaseToken) -> Option<LeaseHead> {
        self.leases.remove(&token).map(|(head, _)| head)
    }

    /// Gives back the incomplete leases over the next link, because this one is gone.
    pub(super) fn give_back(self, table: &JobTable) {
        for (head, _) in self.leases.into_values() {
            table.lease_without_body(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::{JobId, ModelName, Op};

    use super::*;

    const TOKEN: LeaseToken = LeaseToken {
        job: JobId([7; 16]),
        attempt: 1,
    };

    fn head(body_len: usize) -> LeaseHead {
        LeaseHead {
            token: TOKEN,
            op: Op::Chat,
            model: ModelName::new("m").unwrap(),
            who: "me".into(),
            deadline: None,
            remaining_ms: None,
            body_len,
        }
    }

    #[test]
    fn a_request_in_parts_arrives_whole_whatever_its_length() {
        for len in [0, 1, Frame::PAYLOAD_MAX, Frame::PAYLOAD_MAX * 2 + 1] {
            let sent = Bytes::from(vec![b'x'; len]);
            let mut arriving = Arriving::default();
            arriving.begin(head(len)).unwrap();
            let whole: Vec<_> = Frame::body(TOKEN, &sent)
                .filter_map(|part| arriving.add(part).unwrap())
                .collect();
            assert_eq!(whole.len(), 1, "{len}");
            assert_eq!(whole[0].1.0, sent, "{len}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_a_violation_and_not_a_request() {
        let part = |n, more, payload: &'static [u8]| Frame {
            kind: FrameKind::Body,
            token: TOKEN,
            n,
            more,
            payload: Body::from(payload),
        };
        for wrong in [
            part(1, true, b"ab"),
            part(0, false, b"ab"),
            part(0, true, b"abc"),
            part(0, false, b"abcd"),
        ] {
            let mut arriving = Arriving::default();
            arriving.begin(head(3)).unwrap();
            assert!(arriving.add(wrong.clone()).is_err(), "{wrong:?}");
        }
        assert!(
            Arriving::default()
                .begin(head(limits::BODY_MAX + 1))
                .is_err()
        );
    }

    #[test]
    fn the_rest_of_a_withdrawn_request_is_ignored() {
        let mut arriving = Arriving::default();
        arriving.begin(head(3)).unwrap();
        assert_eq!(arriving.forget(TOKEN), Some(head(3)));
        let rest = Frame::body(TOKEN, &Bytes::from_static(b"abc"))
            .next()
            .unwrap();
        assert_eq!(arriving.add(rest), Ok(None));
    }
}
