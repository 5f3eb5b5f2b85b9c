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
        let Some(open) = self.0.get_mut(&frame.token) else {
            return Ok(None);
        };
        let part = &frame.payload.0;
        if open.partial.len() + part.len() > limits::LINE_MAX {
            return Err(Ended::Protocol("a line is too long"));
        }
        if open.partial.is_empty() && !frame.more {
            return Ok(Some(part.clone()));
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
