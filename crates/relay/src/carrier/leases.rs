//! The leases that one connection holds, and the state of each.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proto::{
    LeaseToken, Priority, limits,
    worker::{Frame, Running},
};

use super::socket::CloseReason;

/// State of a lease that the connection holds.
#[derive(Debug, Default)]
struct OpenLease {
    /// Received parts of a line that is not complete yet.
    partial: BytesMut,
    /// Number of the last line that the queue accepted.
    accepted: u64,
    /// Number of the last line that the worker was told is on disk.
    told: u64,
    /// Whether its end is being written.
    is_ending: bool,
    /// Whether the job is urgent and takes no slot, up to a limit of such jobs.
    is_urgent: bool,
}

/// State of a lease that a worker's message names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// The connection holds it.
    Held,
    /// Its end is being written.
    Ending,
    /// The connection does not hold it.
    Gone,
}

/// A lease with lines that the worker was not told are on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnconfirmedLease {
    pub(super) token: LeaseToken,
    pub(super) told: u64,
    pub(super) accepted: u64,
}

/// Maximum size of incomplete lines per connection, in bytes. Workers send lines one after the
/// other.
const PARTIAL_MAX: usize = 2 * limits::LINE_MAX;

/// All leases of one connection.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<LeaseToken, OpenLease>);

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the jobs that the worker still runs. A job whose end was reported frees its slot at
    /// once.
    pub(super) fn running(&self) -> Running {
        let running = self.0.values().filter(|open| !open.is_ending);
        running.map(|open| open.is_urgent).collect()
    }

    pub(super) fn tokens(&self) -> Vec<LeaseToken> {
        self.0.keys().copied().collect()
    }

    /// Adds a lease; lines up to `stored` are already on disk.
    pub(super) fn open(&mut self, token: LeaseToken, stored: u64, priority: Priority) {
        let open = OpenLease {
            is_urgent: priority.is_urgent(),
            accepted: stored,
            told: stored,
            ..OpenLease::default()
        };
        self.0.insert(token, open);
    }

    pub(super) fn close(&mut self, token: LeaseToken) {
        self.0.remove(&token);
    }

    pub(super) fn state(&self, token: LeaseToken) -> LeaseState {
        match self.0.get(&token) {
            None => LeaseState::Gone,
            Some(open) if open.is_ending => LeaseState::Ending,
            Some(_) => LeaseState::Held,
        }
    }

    /// Marks the end as being written; `false` if there is no lease to end.
    pub(super) fn begin_end(&mut self, token: LeaseToken) -> bool {
        let open = self.0.get_mut(&token);
        open.is_some_and(|open| !std::mem::replace(&mut open.is_ending, true))
    }

    /// Adds a part of a line, and returns the line once it is complete. Lines of unknown leases are
    /// dropped, because their worker has already been notified.
    pub(super) fn assemble(&mut self, frame: &Frame) -> Result<Option<Bytes>, CloseReason> {
        let partial: usize = self.0.values().map(|open| open.partial.len()).sum();
        let Some(open) = self.0.get_mut(&frame.token) else {
            return Ok(None);
        };
        let part = &frame.payload.0;
        if open.partial.len() + part.len() > limits::LINE_MAX {
            return Err(CloseReason::Protocol("a line is too long"));
        }
        if open.partial.is_empty() && !frame.more {
            // The line is kept for long, and must not keep the read buffer in memory.
            return Ok(Some(Bytes::copy_from_slice(part)));
        }
        if partial + part.len() > PARTIAL_MAX {
            return Err(CloseReason::Protocol("too many incomplete lines"));
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

    pub(super) fn unconfirmed(&self) -> Vec<UnconfirmedLease> {
        let unconfirmed = self
            .0
            .iter()
            .filter(|(_, o)| o.told < o.accepted && !o.is_ending);
        unconfirmed
            .map(|(token, open)| UnconfirmedLease {
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
        assert_eq!(leases.state(TOKEN), LeaseState::Gone);
        assert!(!leases.begin_end(TOKEN));
        leases.open(TOKEN, 3, Priority::DEFAULT);
        leases.accepted(TOKEN, 5);
        let (told, accepted) = (3, 5);
        assert_eq!(
            leases.unconfirmed(),
            [UnconfirmedLease {
                token: TOKEN,
                told,
                accepted
            }]
        );
        assert_eq!(leases.state(TOKEN), LeaseState::Held);
        assert!(leases.begin_end(TOKEN));
        assert_eq!(leases.state(TOKEN), LeaseState::Ending);
        assert!(!leases.begin_end(TOKEN));
        assert_eq!(
            (leases.unconfirmed(), leases.running().slots(), leases.len()),
            (vec![], 0, 1),
            "its slot is free, and it is kept until its end is on disk"
        );
    }
}
