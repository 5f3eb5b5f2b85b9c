//! The leases one connection holds, and how far each has got.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proto::{
    LeaseToken, Priority, limits,
    worker::{Frame, Running},
};

use super::socket::Ended;

/// A lease this connection holds.
#[derive(Debug, Default)]
struct Open {
    /// The parts of a line that is not complete.
    partial: BytesMut,
    /// The last line that was accepted.
    accepted: u64,
    /// The last line the worker knows to be on disk.
    told: u64,
    /// Its end is being written.
    is_ending: bool,
    /// It takes no slot, as long as there are not too many such.
    is_urgent: bool,
}

/// How a lease stands with the connection that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is held.
    Held,
    /// Its end is being written.
    Ending,
    /// It is not held here.
    Gone,
}

/// A lease with lines the worker does not know to be on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) token: LeaseToken,
    pub(super) told: u64,
    pub(super) accepted: u64,
}

/// Most bytes of lines that are not complete: a worker sends one after the other.
const PARTIAL_MAX: usize = 2 * limits::LINE_MAX;

/// All leases of one connection.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<LeaseToken, Open>);

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many a worker has not ended: what it says of an end frees its slot.
    pub(super) fn running(&self) -> Running {
        let running = self.0.values().filter(|open| !open.is_ending);
        running.map(|open| open.is_urgent).collect()
    }

    pub(super) fn tokens(&self) -> Vec<LeaseToken> {
        self.0.keys().copied().collect()
    }

    /// A lease is held from now on; lines up to `stored` are on disk from before.
    pub(super) fn open(&mut self, token: LeaseToken, stored: u64, priority: Priority) {
        let open = Open {
            is_urgent: priority.is_urgent(),
            accepted: stored,
            told: stored,
            ..Open::default()
        };
        self.0.insert(token, open);
    }

    pub(super) fn close(&mut self, token: LeaseToken) {
        self.0.remove(&token);
    }

    pub(super) fn standing(&self, token: LeaseToken) -> Standing {
        match self.0.get(&token) {
            None => Standing::Gone,
            Some(open) if open.is_ending => Standing::Ending,
            Some(_) => Standing::Held,
        }
    }

    /// The end is being written from now on; `false` if there is nothing to end.
    pub(super) fn begin_end(&mut self, token: LeaseToken) -> bool {
        let open = self.0.get_mut(&token);
        open.is_some_and(|open| !std::mem::replace(&mut open.is_ending, true))
    }

    /// The whole line once its last part is there. Lines of leases that are over are dropped:
    /// the worker was told already.
    pub(super) fn assemble(&mut self, frame: &Frame) -> Result<Option<Bytes>, Ended> {
        let partial: usize = self.0.values().map(|open| open.partial.len()).sum();
        let Some(open) = self.0.get_mut(&frame.token) else {
            return Ok(None);
        };
        let part = &frame.payload.0;
        if open.partial.len() + part.len() > limits::LINE_MAX {
            return Err(Ended::Protocol("a line is too long"));
        }
        if open.partial.is_empty() && !frame.more {
            // It is kept for long, and the buffer it was read into is not.
            return Ok(Some(Bytes::copy_from_slice(part)));
        }
        if partial + part.len() > PARTIAL_MAX {
            return Err(Ended::Protocol("too many lines are not complete"));
        }
        open.partial.extend_from_slice(part);
        Ok((!frame.more).then(|| std::mem::take(&mut open.partial).freeze()))
    }

    pub(super) fn accepted(&mut self, token: LeaseToken, n: u64) {
        if let Some(open) = self.0.get_mut(&token) {
            open.accepted = open.accepted.max(n);
        }
    }

    pub(super) fn told(&mut self, token: LeaseToken, n: u64) {
        if let Some(open) = self.0.get_mut(&token) {
            open.told = n;
        }
    }

    pub(super) fn behind(&self) -> Vec<Behind> {
        let behind = self
            .0
            .iter()
            .filter(|(_, o)| o.told < o.accepted && !o.is_ending);
        behind
            .map(|(token, open)| Behind {
                token: *token,
                told: open.told,
                accepted: open.accepted,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proto::JobId;

    use super::*;

    const TOKEN: LeaseToken = LeaseToken {
        job: JobId([1; 16]),
        attempt: 1,
    };

    #[test]
    fn a_line_over_the_limit_breaks_the_protocol_before_it_is_kept() {
        let mut leases = Leases::default();
        leases.open(TOKEN, 0, Priority::DEFAULT);
        let line = Bytes::from(vec![b'x'; limits::LINE_MAX + 1]);
        let (mut whole, mut broken) = (0, 0);
        for frame in Frame::line(TOKEN, 1, &line) {
            match leases.assemble(&frame) {
                Ok(line) => whole += usize::from(line.is_some()),
                Err(_) => broken += 1,
            }
        }
        assert_eq!((whole, broken), (0, 1));
    }

    #[test]
    fn a_line_keeps_nothing_alive_of_the_bytes_it_came_in() {
        let mut leases = Leases::default();
        leases.open(TOKEN, 0, Priority::DEFAULT);
        let line = Bytes::from_static(b"{}");
        let frame = Frame::line(TOKEN, 1, &line).next().unwrap();
        let came = frame.encode();
        let frame = Frame::decode(&came).unwrap();
        let line = leases.assemble(&frame).unwrap().unwrap();
        drop(frame);
        assert!(came.is_unique(), "as long as {line:?} is kept");
    }

    #[test]
    fn the_lines_that_are_not_complete_have_a_bound_together() {
        let mut leases = Leases::default();
        let token = |n: u8| LeaseToken {
            job: JobId([n; 16]),
            attempt: 1,
        };
        let line = Bytes::from(vec![b'x'; limits::LINE_MAX]);
        // All parts but the last.
        let begin = |leases: &mut Leases, n: u8| {
            leases.open(token(n), 0, Priority::DEFAULT);
            let mut frames = Frame::line(token(n), 1, &line).filter(|frame| frame.more);
            frames.try_for_each(|frame| leases.assemble(&frame).map(drop))
        };
        assert_eq!(begin(&mut leases, 1), Ok(()));
        assert_eq!(begin(&mut leases, 2), Ok(()));
        assert!(begin(&mut leases, 3).is_err(), "more than two lines");

        leases.close(token(3));
        leases.close(token(1));
        assert_eq!(
            begin(&mut leases, 4),
            Ok(()),
            "what is closed takes nothing"
        );
        let frames = Frame::line(token(2), 1, &line);
        let last = frames.last().unwrap();
        assert_eq!(leases.assemble(&last).unwrap(), Some(line.clone()));
        assert_eq!(begin(&mut leases, 5), Ok(()), "what is complete neither");
    }

    #[test]
    fn a_lease_is_ended_once_and_then_holds_no_more() {
        let mut leases = Leases::default();
        assert_eq!(leases.standing(TOKEN), Standing::Gone);
        assert!(!leases.begin_end(TOKEN));
        leases.open(TOKEN, 3, Priority::DEFAULT);
        leases.accepted(TOKEN, 5);
        let (told, accepted) = (3, 5);
        assert_eq!(
            leases.behind(),
            [Behind {
                token: TOKEN,
                told,
                accepted
            }]
        );
        assert_eq!(leases.standing(TOKEN), Standing::Held);
        assert!(leases.begin_end(TOKEN));
        assert_eq!(leases.standing(TOKEN), Standing::Ending);
        assert!(!leases.begin_end(TOKEN));
        assert_eq!(
            (leases.behind(), leases.running().slots(), leases.len()),
            (vec![], 0, 1),
            "its slot is free, and it is kept until its end is on disk"
        );
    }
}
