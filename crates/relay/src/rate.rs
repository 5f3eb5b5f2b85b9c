//! Rate limits, backoff after failures, and a bounded map of recent keys. Times are arguments.

use std::{collections::HashMap, hash::Hash, mem, time::Duration};

use proto::Timestamp;

/// A rate limit: a burst, then one per `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// Microseconds per request.
    every: i64,
    burst: i64,
}

/// State of the rate limiter (GCRA): the theoretical arrival time in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RateState(i64);

impl RateLimit {
    /// Creates a limit of `count` per `within`; `None` for a count of 0, which means no limit.
    pub(crate) fn new(count: u32, within: Duration, burst: u32) -> Option<Self> {
        let within = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
        (count > 0).then(|| Self {
            every: (within / i64::from(count)).max(1),
            burst: i64::from(burst.max(1)),
        })
    }

    /// Takes one, or returns the time until one is available.
    pub(crate) fn take(self, state: &mut RateState, now: Timestamp) -> Result<(), Duration> {
        let now = now.0.saturating_mul(1000);
        let spent = state.0.max(now);
        // Limit of the arrival time. A value from a clock that was ahead is cut to it.
        let full = now.saturating_add(self.every.saturating_mul(self.burst));
        let spent = spent.min(full);
        let next = spent.saturating_add(self.every);
        if next > full {
            let wait = u64::try_from(next - full).unwrap_or(0);
            return Err(Duration::from_micros(wait));
        }
        *state = RateState(next);
        Ok(())
    }

    /// Takes one in any case, and returns how long the caller must wait for it: at most the time
    /// that a whole burst takes.
    pub(crate) fn reserve(self, state: &mut RateState, now: Timestamp) -> Duration {
        let now = now.0.saturating_mul(1000);
        let burst = self.every.saturating_mul(self.burst);
        let most = now.saturating_add(burst.saturating_mul(2));
        let next = state.0.max(now).saturating_add(self.every).min(most);
        *state = RateState(next);
        let wait = next.saturating_sub(now).saturating_sub(burst);
        Duration::from_micros(u64::try_from(wait).unwrap_or(0))
    }

    /// Gives back what was taken `count` times. No more can be taken at once than a burst.
    pub(crate) fn give_back(self, state: &mut RateState, count: u32) {
        let back = self.every.saturating_mul(i64::from(count));
        *state = RateState(state.0.saturating_sub(back));
    }
}

/// First wait after too many failures; it doubles each time.
pub(crate) const FIRST_WAIT: Duration = Duration::from_secs(15);
/// Longest wait.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// Time without a wait after which the waits start at the first again.
const FORGIVEN: Duration = Duration::from_secs(10 * 60);

/// Failures of one client, and the wait that follows from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    state: RateState,
    waits: u32,
    until: Timestamp,
}

impl Failures {
    /// Counts a failure, or returns how long to wait before the next try is accepted. Tries during
    /// a wait do not extend it.
    pub(crate) fn attempt(&mut self, limit: RateLimit, now: Timestamp) -> Result<(), Duration> {
        let left = self.until.since(now);
        if !left.is_zero() {
            return Err(left.min(LONGEST_WAIT));
        }
        if now.since(self.until) >= FORGIVEN {
            self.waits = 0;
        }
        limit.take(&mut self.state, now).map_err(|_| {
            let wait = FIRST_WAIT * 2_u32.saturating_pow(self.waits.min(8));
            let wait = wait.min(LONGEST_WAIT);
            self.waits += 1;
            self.until = now + wait;
            wait
        })
    }

    /// Checks whether a try is accepted now, without counting a failure.
    pub(crate) fn check(&mut self, limit: RateLimit, now: Timestamp) -> Result<(), Duration> {
        let state = self.state;
        self.attempt(limit, now)?;
        self.state = state;
        Ok(())
    }
}

/// A bounded map of recently used keys; old ones are dropped a generation at a time.
#[derive(Debug)]
pub(crate) struct RecentMap<K, V> {
    newer: HashMap<K, V>,
    older: HashMap<K, V>,
    most: usize,
}

impl<K: Hash + Eq, V: Default> RecentMap<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            newer: HashMap::new(),
            older: HashMap::new(),
            most,
        }
    }

    /// Returns the entry of a key. May evict the least recently used generation.
    pub(crate) fn entry(&mut self, key: K) -> &mut V {
        if !self.newer.contains_key(&key) && self.newer.len() >= self.most / 2 {
            self.older = mem::take(&mut self.newer);
        }
        let old = self.older.remove(&key);
        let entry = self.newer.entry(key);
        entry.or_insert_with(|| old.unwrap_or_default())
    }

    /// Whether there is an entry for this key.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.newer.contains_key(key) || self.older.contains_key(key)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const T0: Timestamp = Timestamp(1_700_000_000_000);

    fn limit(count: u32, burst: u32) -> RateLimit {
        RateLimit::new(count, SECOND, burst).unwrap()
    }

    #[test]
    fn whoever_comes_after_a_burst_waits_his_turn_and_nobody_longer_than_a_burst_lasts() {
        let limit = RateLimit::new(10, Duration::from_secs(1), 3).unwrap();
        let mut state = RateState::default();
        let mut waits = |at: i64, n: usize| -> Vec<u128> {
            let waits = (0..n).map(|_| limit.reserve(&mut state, Timestamp(at)));
            waits.map(|wait| wait.as_millis()).collect()
        };
        assert_eq!(waits(1_000_000, 8), [0, 0, 0, 100, 200, 300, 300, 300]);
        assert_eq!(waits(1_000_100, 2), [300, 300]);
        assert_eq!(waits(1_000_500, 2), [0, 100]);
        assert_eq!(waits(2_000_000, 4), [0, 0, 0, 100]);
        assert_eq!(waits(1_000, 1), [300], "a clock that went back");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_never_more_than_a_burst() {
        let limit = limit(10, 3);
        let mut state = RateState::default();
        let taken =
            |state: &mut RateState| (0..9).filter(|_| limit.take(state, T0).is_ok()).count();
        assert_eq!(taken(&mut state), 3);
        limit.give_back(&mut state, 2);
        assert_eq!(taken(&mut state), 2);
        limit.give_back(&mut state, u32::MAX);
        assert_eq!(taken(&mut state), 3);
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let (limit, mut state) = (limit(200, 1000), RateState::default());
        let allowed = |state: &mut RateState, now| {
            (0..5000).filter(|_| limit.take(state, now).is_ok()).count()
        };
        assert_eq!(allowed(&mut state, T0), 1000);
        assert_eq!(allowed(&mut state, T0 + SECOND), 200);
        assert_eq!(
            limit.take(&mut state, T0 + SECOND),
            Err(Duration::from_millis(5))
        );
        assert_eq!(allowed(&mut state, T0 + 60 * SECOND), 1000);
        assert_eq!(RateLimit::new(0, SECOND, 5), None);
    }

    #[test]
    fn who_fails_too_often_waits_and_each_time_twice_as_long() {
        let limit = RateLimit::new(5, MINUTE, 5).unwrap();
        let (mut one, mut now) = (Failures::default(), T0);
        for _ in 0..5 {
            assert_eq!(one.attempt(limit, now), Ok(()));
        }
        for seconds in [15, 30, 60, 120, 240, 300, 300] {
            let wait = Duration::from_secs(seconds);
            while one.attempt(limit, now).is_ok() {}
            assert_eq!(
                one.attempt(limit, now),
                Err(wait),
                "trying makes it no longer"
            );
            assert_eq!(one.attempt(limit, now + wait / 3), Err(wait - wait / 3));
            now = now + wait;
        }
        now = now + FORGIVEN;
        while one.attempt(limit, now).is_ok() {}
        assert_eq!(one.attempt(limit, now), Err(FIRST_WAIT), "forgiven");
    }

    #[test]
    fn failures_are_forgiven_ten_minutes_after_the_wait_and_not_before() {
        let limit = RateLimit::new(1, MINUTE, 1).unwrap();
        for (after, wait) in [(599, 30), (600, 15)] {
            let mut one = Failures::default();
            assert_eq!(one.attempt(limit, T0), Ok(()));
            assert_eq!(one.attempt(limit, T0), Err(FIRST_WAIT));
            let later = T0 + FIRST_WAIT + Duration::from_secs(after);
            assert_eq!(one.attempt(limit, later), Ok(()));
            let told = one.attempt(limit, later);
            assert_eq!(told, Err(Duration::from_secs(wait)), "after {after} s");
        }
    }

    #[test]
    fn who_asks_whether_he_may_has_lost_nothing_until_he_fails() {
        let limit = RateLimit::new(5, MINUTE, 5).unwrap();
        let mut one = Failures::default();
        for _ in 0..5 {
            for _ in 0..100 {
                assert_eq!(one.check(limit, T0), Ok(()));
            }
            assert_eq!(one.attempt(limit, T0), Ok(()));
        }
        assert_eq!(one.check(limit, T0), Err(FIRST_WAIT));
        assert_eq!(one.attempt(limit, T0 + SECOND), Err(14 * SECOND));
    }

    proptest! {
        /// No interval has more requests than the burst and the rate allow.
        #[test]
        fn no_stretch_of_time_has_more_than_its_share(
            count in 1_u32..500,
            burst in 1_u32..100,
            gaps in prop::collection::vec(0_u64..50, 1..300),
        ) {
            let (limit, mut state, mut now) = (limit(count, burst), RateState::default(), T0);
            let mut allowed = Vec::new();
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                match limit.take(&mut state, now) {
                    Ok(()) => allowed.push(now.0),
                    Err(wait) => {
                        // One is available after the returned wait.
                        let mut later = state;
                        let millis = wait.as_millis() as u64 + 1;
                        prop_assert!(limit.take(&mut later, now + Duration::from_millis(millis)).is_ok());
                    }
                }
            }
            for (n, first) in allowed.iter().enumerate() {
                for (m, last) in allowed.iter().enumerate().skip(n) {
                    // The interval per request is rounded down to whole microseconds.
                    let by_rate = (last - first) as f64 / 1000.0 * f64::from(count) * 1.001;
                    prop_assert!((m - n) as f64 <= f64::from(burst) + by_rate);
                }
            }
        }

        /// A client that keeps to the rate is never refused.
        #[test]
        fn who_keeps_to_the_rate_is_not_refused(count in 1_u32..1000, burst in 1_u32..10) {
            let (limit, mut state, mut now) = (limit(count, burst), RateState::default(), T0);
            for _ in 0..100 {
                prop_assert_eq!(limit.take(&mut state, now), Ok(()));
                now = now + Duration::from_millis(u64::from(1000_u32.div_ceil(count)));
            }
        }

        /// The map stays within its bound, and always has the latest key.
        #[test]
        fn only_so_many_are_remembered(keys in prop::collection::vec(0_u16..400, 1..600)) {
            let mut recent = RecentMap::<u16, u32>::new(64);
            for key in keys {
                *recent.entry(key) += 1;
                prop_assert!(recent.contains(&key) && recent.len() <= 64);
            }
        }
    }
}
