//! The lines of a job that the relay has not stored yet.

use std::collections::VecDeque;

use bytes::Bytes;

/// The lines of one job that the relay has not stored yet, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lines: VecDeque<Bytes>,
    bytes: usize,
    stored: u64,
    sent: u64,
}

impl Outbox {
    /// Adds the next line.
    pub(crate) fn push(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// Number of the last line, 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.stored + self.lines.len() as u64
    }

    /// Number of bytes that are not stored yet.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next unsent lines, about `max` bytes but at least one, with the number of the
    /// first.
    pub(crate) fn take(&mut self, max: usize) -> Option<(u64, Vec<Bytes>)> {
        let skip = usize::try_from(self.sent - self.stored).ok()?;
        let mut size = 0;
        let batch: Vec<Bytes> = self
            .lines
            .iter()
            .skip(skip)
            .take_while(|line| {
                let fits = size == 0 || size + line.len() <= max;
                size += line.len().max(1);
                fits
            })
            .cloned()
            .collect();
        if batch.is_empty() {
            return None;
        }
        let first = self.sent + 1;
        self.sent += batch.len() as u64;
        Some((first, batch))
    }

    /// Drops lines up to `n`, which the relay has stored.
    pub(crate) fn stored(&mut self, n: u64) {
        let n = n.min(self.last());
        while self.stored < n {
            self.stored += 1;
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
        self.sent = self.sent.max(self.stored);
    }

    /// Marks everything as unsent, for a new link.
    pub(crate) const fn rewind(&mut self) {
        self.sent = self.stored;
    }

    /// Whether the lines from `n + 1` on are still available.
    pub(crate) const fn can_continue_from(&self, n: u64) -> bool {
        n >= self.stored
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(n: u64) -> Bytes {
        Bytes::from(n.to_string())
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Take(usize),
        Stored(u64),
        Rewind,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Push),
            (1..40_usize).prop_map(Step::Take),
            (0..60_u64).prop_map(Step::Stored),
            Just(Step::Rewind),
        ]
    }

    proptest! {
        #[test]
        fn every_line_is_sent_in_order_with_its_own_number(steps in prop::collection::vec(step(), 0..120)) {
            let (mut outbox, mut pushed, mut relay_has, mut stored) = (Outbox::default(), 0, 0, 0);
            for step in steps {
                match step {
                    Step::Push => { pushed += 1; outbox.push(line(pushed)); }
                    Step::Take(max) => if let Some((first, batch)) = outbox.take(max) {
                        prop_assert!(first <= relay_has + 1, "a gap");
                        for (n, got) in (first..).zip(&batch) {
                            prop_assert_eq!(got, &line(n));
                            relay_has = relay_has.max(n);
                        }
                    }
                    Step::Stored(n) => { stored = stored.max(n.min(relay_has)); outbox.stored(stored); }
                    Step::Rewind => { outbox.rewind(); relay_has = stored; }
                }
                prop_assert_eq!(outbox.last(), pushed);
                let kept: usize = (stored + 1..=pushed).map(|n| line(n).len()).sum();
                prop_assert_eq!(outbox.bytes(), kept);
            }
        }
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from(vec![b'x'; 100]));
        outbox.push(line(1));
        outbox.push(line(2));
        assert_eq!(outbox.take(10).unwrap().1.len(), 1);
        let (first, batch) = outbox.take(10).unwrap();
        assert_eq!((first, batch.len()), (2, 2));
        assert!(outbox.take(10).is_none());
    }

    #[test]
    fn what_was_given_up_cannot_be_sent_again() {
        let mut outbox = Outbox::default();
        (1..=3).for_each(|n| outbox.push(line(n)));
        outbox.take(100);
        outbox.stored(2);
        assert!(outbox.can_continue_from(2) && !outbox.can_continue_from(1));
    }
}
