//! Pace of what a worker sends that no lease pays for: reports, renewals, polls, and messages about
//! leases that it does not hold.
//!
//! Lines and ends of leased jobs are not counted, so the pace slows no worker that works. What
//! comes faster is read later; nothing is lost, and no connection is closed for it.

use std::time::Duration;

use proto::Timestamp;
use tokio::time::{Instant, sleep};

use crate::{
    Relay, RelaySettings,
    auth::Caller,
    rate::{RateLimit, RateState},
};

/// Number of polls that a lease pays for: the one that brought it, one while the job runs, and one
/// that brings its cancellation.
const POLLS_OF_LEASE: usize = 3;

/// Returns the limit on what no lease pays for.
pub(crate) fn unpaid_limit(settings: &RelaySettings) -> Option<RateLimit> {
    RateLimit::new(1, settings.unpaid_every, settings.unpaid_burst)
}

/// Pace of one WebSocket.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Option<RateLimit>,
    began: Instant,
    state: RateState,
    /// Number of models that the worker may describe for free, because its report names them.
    details: usize,
}

impl Pace {
    pub(super) fn new(settings: &RelaySettings) -> Self {
        Self {
            limit: unpaid_limit(settings),
            began: Instant::now(),
            state: RateState::default(),
            details: 0,
        }
    }

    /// Lets the worker describe each model of a report once.
    pub(super) const fn expect_details(&mut self, models: usize) {
        self.details = models;
    }

    /// Counts the description of a model, and waits until it may be processed. Lines and ends of
    /// jobs are behind those of a report, so these are free.
    pub(super) async fn wait_for_detail(&mut self) {
        match self.details.checked_sub(1) {
            Some(left) => self.details = left,
            None => self.wait().await,
        }
    }

    /// Counts one message, and waits until it may be processed.
    pub(super) async fn wait(&mut self) {
        let Some(limit) = self.limit else { return };
        let now = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        pause(limit.reserve(&mut self.state, Timestamp(now))).await;
    }
}

impl Relay {
    /// Counts one request of a polling worker, and waits until it may be processed: at most the
    /// time that a whole burst takes. The workers of one key share a pace.
    pub(super) async fn pace(&self, caller: &Caller) {
        let wait = self.rate_limits.pace_worker(caller.key_id(), self.now());
        // The wait does not hold up a shutdown.
        let _ = self.drain.run_until_cancelled(pause(wait)).await;
    }

    /// Pays for the polls of a worker with what they brought.
    pub(super) fn pay_polls(&self, caller: &Caller, leases: usize) {
        let polls = u32::try_from(leases.saturating_mul(POLLS_OF_LEASE)).unwrap_or(u32::MAX);
        self.rate_limits.pay_worker(caller.key_id(), polls);
    }

    /// Delays the refusal of a message about a lease: only a lease that is held pays for it.
    pub(super) async fn paced<T, E>(
        &self,
        caller: &Caller,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let answer = answer.await;
        if answer.is_err() {
            self.pace(caller).await;
        }
        answer
    }
}

async fn pause(wait: Duration) {
    // A timer takes a millisecond at least.
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_of_500_messages_100_a_second_are_read() {
        let mut pace = Pace::new(&RelaySettings::default());
        let began = Instant::now();
        for _ in 0..500 {
            pace.wait().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..500 {
            pace.wait().await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        sleep(Duration::from_secs(60)).await;
        let rested = Instant::now();
        for _ in 0..500 {
            pace.wait().await;
        }
        assert_eq!(rested.elapsed(), Duration::ZERO, "the burst is free again");
        pace.expect_details(4_096);
        for _ in 0..4_096 {
            pace.wait_for_detail().await;
        }
        assert_eq!(rested.elapsed(), Duration::ZERO);
        pace.wait_for_detail().await;
        assert!(
            rested.elapsed() > Duration::ZERO,
            "one more than it has models"
        );
    }
}
