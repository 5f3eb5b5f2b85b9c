use std::time::{Duration, Instant};

/// A token bucket: a burst, then a fixed rate per second. The clock is an argument.
#[derive(Debug)]
pub(crate) struct Bucket {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            per_second: f64::from(per_second),
            left: burst,
            at: now,
        }
    }

    /// The time until a token is available; zero if one is available now.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = self.burst.min(self.left + gone * self.per_second);
        self.at = self.at.max(now);
        Duration::from_secs_f64(((1.0 - self.left) / self.per_second).max(0.0))
    }

    /// Takes a token now, and returns the time until the next one.
    pub(crate) fn spend(&mut self, now: Instant) -> Duration {
        // Adds the tokens of the time since the last call first; they would be counted twice
        // otherwise.
        let _ = self.wait(now);
        self.take();
        self.wait(now)
    }

    /// Takes a token. Call it only after [`Bucket::wait`] returned zero.
    pub(crate) fn take(&mut self) {
        self.left = (self.left - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_each_time_gets_so_many_a_second_and_not_twice_as_many() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 20, start);
        let mut now = start;
        for _ in 0..20 {
            now += bucket.spend(now);
        }
        // The first ten are free; the eleventh to the twentieth, and the next one, wait 50 ms each.
        let taken = now - start;
        assert!((549..=551).contains(&taken.as_millis()), "{taken:?}");
    }

    #[test]
    fn a_burst_is_free_and_then_it_is_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2, start);
        for _ in 0..3 {
            assert_eq!(bucket.wait(start), Duration::ZERO);
            bucket.take();
        }
        assert_eq!(bucket.wait(start), Duration::from_millis(500));
        assert_eq!(
            bucket.wait(start + Duration::from_millis(500)),
            Duration::ZERO
        );
        bucket.take();
        let hour = start + Duration::from_secs(3600);
        for _ in 0..3 {
            assert_eq!(bucket.wait(hour), Duration::ZERO);
            bucket.take();
        }
        assert!(
            bucket.wait(hour) > Duration::ZERO,
            "an hour of rest saves up one burst, not more"
        );
    }
}
