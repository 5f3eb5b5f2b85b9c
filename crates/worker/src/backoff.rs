//! Exponential backoff with full jitter.

use std::time::Duration;

/// Delays that grow with every failure. Each is drawn at random from its whole range (full jitter),
/// so that a thousand workers do not reconnect at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a backoff from `least` up to `most`.
    #[must_use]
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            failures: 0,
        }
    }

    /// Returns the delay after another failure; `random` is in `0.0..1.0`.
    pub fn next(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let ceiling = 2_u32
            .checked_pow(self.failures)
            .and_then(|factor| self.least.checked_mul(factor))
            .map_or(self.most, |ceiling| ceiling.min(self.most));
        let spread = ceiling.saturating_sub(self.least);
        self.least + spread.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Returns a delay like the first one, for something that is not a failure.
    #[must_use]
    pub fn once(&self, random: f64) -> Duration {
        Self::new(self.least, self.most).next(random)
    }

    /// Resets the delay after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(60);

    #[test]
    fn the_ceiling_doubles_up_to_the_longest_wait_and_falls_back_on_success() {
        let mut backoff = Backoff::new(LEAST, MOST);
        let waits: Vec<_> = (0..9).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next(1.0), Duration::from_secs(1));
    }

    #[test]
    fn chance_spreads_a_wait_over_its_whole_length() {
        let wait = |random| Backoff::new(LEAST, MOST).next(random).as_millis();
        assert_eq!([0.0, 0.5, 1.0].map(wait), [500, 750, 1_000]);
    }

    proptest! {
        #[test]
        fn every_wait_is_within_its_bounds(random in 0.0..1.0_f64, failures in 1..200_u32) {
            let mut backoff = Backoff::new(LEAST, MOST);
            for _ in 0..failures {
                let wait = backoff.next(random);
                prop_assert!((LEAST..=MOST).contains(&wait));
            }
        }
    }
}
