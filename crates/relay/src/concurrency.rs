//! The limit on concurrent requests, and what each of them holds of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use proto::{ErrorCode, Timestamp};

use crate::{Relay, error::ApiError};

/// Limit on concurrent requests, not counting those that wait for a worker.
///
/// A burst may use all of it. If a burst lasts longer than [`BURST`], requests arrive faster than
/// they are processed, and each admitted one would wait for all before it. Then only a part of the
/// limit is admitted, which keeps the latency low.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    inside: AtomicUsize,
    most: usize,
    /// Time when a request last found few others; milliseconds since 1970.
    calm_at: AtomicI64,
}

/// Time for which the whole limit may be used before only a part is admitted.
const BURST: Duration = Duration::from_millis(100);
/// Divisor of the limit under sustained load.
const SUSTAINED_DIVISOR: usize = 4;
/// Divisor of the limit: with at most this part in use, the load counts as low.
const CALM_DIVISOR: usize = 8;
/// Time after which a request that was given up may be sent again.
const AGAIN: Duration = Duration::from_secs(5);

impl ConcurrencyLimit {
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            inside: AtomicUsize::new(0),
            most,
            calm_at: AtomicI64::new(0),
        }
    }

    /// Whether a request is admitted at `now`, with `inside` others in progress.
    fn admits(&self, inside: usize, now: Timestamp) -> bool {
        let calm_at = Timestamp(self.calm_at.load(Ordering::Relaxed));
        // After the clock was set back, the length of the burst is unknown.
        if inside <= self.most / CALM_DIVISOR || now < calm_at {
            self.calm_at.store(now.0, Ordering::Relaxed);
        } else if now.since(calm_at) > BURST {
            return inside < self.most.div_ceil(SUSTAINED_DIVISOR);
        }
        inside < self.most
    }
}

/// Effect of sending a request again that was given up. [`Repeat::Doubles`] unless its handler notes
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The only one: the request has no effect, or giving it up cancels what it began.
    Only,
    /// The request may still take effect, and a repeat finds what it made, or that it is done.
    Finds,
    /// The request may still take effect, and a repeat does it once more.
    Doubles,
}

/// A request's slot in the limit; released at the latest when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct WorkPermit(Arc<WorkSlot>);

#[derive(Debug)]
struct WorkSlot {
    limiter: Arc<ConcurrencyLimit>,
    is_inside: AtomicBool,
    /// Start of the current work; milliseconds since 1970.
    began: AtomicI64,
    /// What a repeat would do if the request is given up now.
    if_repeated: Mutex<Repeat>,
    is_given_up: AtomicBool,
}

impl WorkPermit {
    pub(crate) fn new(limiter: &Arc<ConcurrencyLimit>) -> Self {
        Self(Arc::new(WorkSlot {
            limiter: limiter.clone(),
            is_inside: AtomicBool::new(false),
            began: AtomicI64::new(0),
            if_repeated: Mutex::new(Repeat::Doubles),
            is_given_up: AtomicBool::new(false),
        }))
    }

    /// Takes the slot; `false` if the limit is reached.
    pub(crate) fn try_start(&self, now: Timestamp) -> bool {
        if self.0.is_inside.swap(true, Ordering::Relaxed) {
            return true;
        }
        self.0.began.store(now.0, Ordering::Relaxed);
        let limiter = &self.0.limiter;
        if limiter.admits(limiter.inside.fetch_add(1, Ordering::Relaxed), now) {
            return true;
        }
        self.pause();
        false
    }

    /// Returns how long it may still hold the slot; all of `patience` while it does not hold it.
    pub(crate) fn time_left(&self, now: Timestamp, patience: Duration) -> Duration {
        if !self.0.is_inside.load(Ordering::Relaxed) {
            return patience;
        }
        let began = Timestamp(self.0.began.load(Ordering::Relaxed));
        patience.saturating_sub(now.since(began))
    }

    /// Notes what a repeat of the request does from now on if it is given up.
    pub(crate) fn if_repeated(&self, repeat: Repeat) {
        *self.0.if_repeated.lock() = repeat;
    }

    /// Releases the slot of a request whose work takes too long.
    pub(crate) fn give_up(&self) {
        self.0.is_given_up.store(true, Ordering::Relaxed);
        self.pause();
    }

    /// Whether the relay gave the request up; a client that disconnects does not.
    pub(crate) fn is_given_up(&self) -> bool {
        self.0.is_given_up.load(Ordering::Relaxed)
    }

    /// Releases the slot while the request waits.
    pub(crate) fn pause(&self) {
        if self.0.is_inside.swap(false, Ordering::Relaxed) {
            self.0.limiter.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for WorkSlot {
    fn drop(&mut self) {
        if *self.is_inside.get_mut() {
            self.limiter.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Relay {
    /// Returns the error for an overloaded relay, with a random `Retry-After` so that clients do
    /// not return together.
    pub(crate) fn busy(&self) -> ApiError {
        let seconds = self.world.random().map_or(3, |bytes| 1 + bytes[0] % 5);
        let message = "the relay is overloaded; try again in a moment";
        ApiError::new(ErrorCode::Busy, message).after(Duration::from_secs(seconds.into()))
    }

    /// Returns the error for a request that was given up: `busy` only where it has no effect.
    pub(crate) fn gave_up(&self, permit: &WorkPermit) -> ApiError {
        let unknown = |what: &str| {
            let gave_up = "the relay did not finish the request in time and gave it up; it may \
                           still take effect";
            ApiError::new(ErrorCode::OutcomeUnknown, format!("{gave_up}{what}"))
        };
        match *permit.0.if_repeated.lock() {
            Repeat::Only => self.busy(),
            Repeat::Finds => unknown("; send it again, which does nothing twice").after(AGAIN),
            Repeat::Doubles => unknown(", so check before you send it again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    #[test]
    fn there_is_room_for_so_many_and_again_when_they_rest_or_leave() {
        let limiter = Arc::new(ConcurrencyLimit::new(2));
        let work = || WorkPermit::new(&limiter);
        let (one, two, three) = (work(), work(), work());
        assert!(one.try_start(NOW) && two.try_start(NOW) && one.try_start(NOW));
        assert!(!three.try_start(NOW));
        one.pause();
        one.pause();
        assert!(three.try_start(NOW) && !one.try_start(NOW));
        drop((two.clone(), three));
        assert!(one.try_start(NOW));
        drop((one, two));
        assert_eq!(limiter.inside.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn work_that_began_late_has_all_its_time_and_waiting_takes_none() {
        let limiter = Arc::new(ConcurrencyLimit::new(2));
        let (one, patience) = (WorkPermit::new(&limiter), Duration::from_secs(30));
        let (second, later) = (Duration::from_secs(1), NOW + patience);
        let left = |now| one.time_left(now, patience);
        assert_eq!(left(later), patience, "its body is still to come");
        assert!(one.try_start(NOW));
        assert_eq!([left(NOW), left(NOW + second)], [patience, 29 * second]);
        assert_eq!([left(later), left(later + second)], [Duration::ZERO; 2]);
        one.pause();
        assert_eq!(left(later), patience);
        assert!(one.try_start(later));
        assert_eq!(left(later + second), 29 * second);
    }

    #[test]
    fn a_burst_may_fill_the_gate_and_of_a_load_that_stands_a_quarter_is_let_in() {
        let limiter = Arc::new(ConcurrencyLimit::new(64));
        let come = |count: usize, now: Timestamp| {
            let came = std::iter::repeat_with(|| WorkPermit::new(&limiter)).take(count);
            came.filter(|one| one.try_start(now)).collect::<Vec<_>>()
        };
        // The load was low before, for any length of time.
        for at in [NOW, NOW + Duration::from_hours(1)] {
            let mut inside = come(100, at);
            assert_eq!(inside.len(), 64, "a burst");
            let later = at + BURST;
            inside.truncate(40);
            inside.extend(come(100, later));
            assert_eq!(inside.len(), 64, "a burst may take so long");
            let standing = later + Duration::from_millis(1);
            inside.truncate(15);
            inside.extend(come(100, standing));
            assert_eq!(inside.len(), 16, "more come than are done");
            inside.truncate(9);
            inside.extend(come(100, standing + Duration::from_hours(1)));
            assert_eq!(inside.len(), 16, "it stands as long as it does not drain");
            inside.truncate(8);
            inside.extend(come(100, standing + Duration::from_hours(2)));
            assert_eq!(inside.len(), 64, "it did");
        }
        // The system clock was set back.
        let _inside = come(40, NOW + Duration::from_hours(4));
        assert_eq!(come(100, NOW).len(), 24);
    }
}
