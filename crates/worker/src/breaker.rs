//! The circuit breaker: pauses leasing while the engine fails jobs.

use std::{collections::VecDeque, time::Duration};

use crate::Backoff;

/// Stops leasing when the engine fails repeatedly although it answers its probe.
///
/// It opens after 5 failures in a row, or when at least half of the last 20 jobs failed. It stays
/// open longer each time it opens again without a success in between.
#[derive(Debug)]
pub(crate) struct Breaker {
    recent: VecDeque<bool>,
    in_a_row: usize,
    open: bool,
    waits: Backoff,
}

impl Breaker {
    const IN_A_ROW: usize = 5;
    const WINDOW: usize = 20;

    pub(crate) const fn new((least, most): (Duration, Duration)) -> Self {
        Self {
            recent: VecDeque::new(),
            in_a_row: 0,
            open: false,
            waits: Backoff::new(least, most),
        }
    }

    /// Records a successful job.
    pub(crate) fn succeeded(&mut self) {
        self.note(true);
        self.in_a_row = 0;
        self.waits.reset();
    }

    /// Records a job that the engine failed. Returns `true` if the breaker opens.
    pub(crate) fn failed(&mut self) -> bool {
        self.note(false);
        self.in_a_row += 1;
        let failures = self.recent.iter().filter(|went_well| !**went_well).count();
        let often = self.recent.len() == Self::WINDOW && failures * 2 >= Self::WINDOW;
        if self.in_a_row >= Self::IN_A_ROW || often {
            self.open = true;
        }
        self.open
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// Returns how long to stay open this time.
    pub(crate) fn wait(&mut self, random: f64) -> Duration {
        self.waits.next(random)
    }

    /// Closes the breaker after a successful probe, but keeps the length of the last wait.
    pub(crate) fn close(&mut self) {
        self.open = false;
        self.in_a_row = 0;
        self.recent.clear();
    }

    fn note(&mut self, went_well: bool) {
        if self.recent.len() == Self::WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(went_well);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new((Duration::from_secs(15), Duration::from_secs(120)))
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let mut breaker = breaker();
        assert!((0..4).all(|_| !breaker.failed()));
        breaker.succeeded();
        assert!((0..4).all(|_| !breaker.failed()));
        assert!(breaker.failed());
        assert!(breaker.is_open());
    }

    #[test]
    fn half_of_the_last_twenty_open_it_although_never_five_in_a_row() {
        let mut breaker = breaker();
        for round in 0..10 {
            assert!(!breaker.is_open(), "round {round}");
            breaker.succeeded();
            breaker.failed();
        }
        assert!(breaker.is_open());
    }

    #[test]
    fn it_stays_open_longer_each_time_until_a_job_goes_well() {
        let mut breaker = breaker();
        let waits: Vec<_> = (0..4).map(|_| breaker.wait(1.0).as_secs()).collect();
        assert_eq!(waits, [30, 60, 120, 120]);
        breaker.close();
        assert!(!breaker.is_open());
        assert_eq!(breaker.wait(0.0).as_secs(), 15);
        breaker.succeeded();
        assert_eq!(breaker.wait(1.0).as_secs(), 30);
    }
}
