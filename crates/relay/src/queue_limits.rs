//! Limits and retention times of the queue, as options of `hearth relay`.

use std::time::Duration;

use clap::value_parser;
use proto::limits;
use queue::{DEFAULT_QUEUE_TIMEOUT, FETCHED_RETENTION, QueueLimits, RESULT_RETENTION};

const MIB: usize = 1024 * 1024;
/// Largest count or size that an option accepts.
const COUNT_MAX: usize = 1_000_000;

/// Parses a limit that must not be zero.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let count = text.parse().ok();
    count
        .filter(|count| (1..=COUNT_MAX).contains(count))
        .ok_or_else(|| format!("give a number from 1 to {COUNT_MAX}"))
}

/// Limits and retention times of the queue. A job over a limit is refused: with 429 if the limit is
/// the account's, with 503 if it is shared by all.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct QueueLimitArgs {
    /// Maximum number of queued jobs.
    #[arg(
        long,
        env = "HEARTH_QUEUED_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_MAX,
        value_name = "COUNT"
    )]
    pub queued_max: usize,
    /// Maximum size of the requests of queued jobs, in MiB.
    #[arg(
        long,
        env = "HEARTH_QUEUED_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_BYTES_MAX / MIB,
        value_name = "MIB"
    )]
    pub queued_mib_max: usize,
    /// Maximum number of queued jobs of one account.
    #[arg(
        long,
        env = "HEARTH_ACCOUNT_QUEUED_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_PER_ACCOUNT_MAX,
        value_name = "COUNT"
    )]
    pub account_queued_max: usize,
    /// Maximum size of the requests of one account's queued jobs, in MiB.
    #[arg(
        long,
        env = "HEARTH_ACCOUNT_QUEUED_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_BYTES_PER_ACCOUNT_MAX / MIB,
        value_name = "MIB"
    )]
    pub account_queued_mib_max: usize,
    /// Maximum size of all stored requests and answers of one account, until they are erased, and
    /// of idempotency keys that are kept longer, in MiB.
    #[arg(
        long,
        env = "HEARTH_ACCOUNT_KEPT_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = (limits::KEPT_PER_ACCOUNT_MAX / MIB as u64) as usize,
        value_name = "MIB"
    )]
    pub account_kept_mib_max: usize,
    /// Maximum size of one answer, in MiB; a job with a longer answer fails.
    #[arg(
        long,
        env = "HEARTH_ANSWER_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::LOG_MAX / MIB,
        value_name = "MIB"
    )]
    pub answer_mib_max: usize,
    /// Maximum size of all answers that are being written, in MiB; above it the job with the
    /// longest answer fails.
    #[arg(
        long,
        env = "HEARTH_ANSWERS_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::LOGS_MAX / MIB,
        value_name = "MIB"
    )]
    pub answers_mib_max: usize,
    /// Number of attempts of a job before it fails. An attempt counts if its agent is lost or its
    /// engine fails; one that an agent gives back because it pauses or stops does not.
    #[arg(
        long,
        env = "HEARTH_ATTEMPTS",
        value_parser = value_parser!(u32).range(1..=100),
        default_value_t = limits::ATTEMPTS_MAX,
        value_name = "COUNT"
    )]
    pub attempts: u32,
    /// Seconds that a job without a deadline waits for an agent before it fails; twice as many if
    /// an agent took it and did not finish it.
    #[arg(
        long,
        env = "HEARTH_KEEP_WAITING",
        value_parser = value_parser!(u64).range(1..),
        default_value_t = DEFAULT_QUEUE_TIMEOUT.as_secs(),
        value_name = "SECONDS"
    )]
    pub keep_waiting: u64,
    /// Seconds for which a finished job is kept, with its prompt and answer.
    #[arg(
        long,
        env = "HEARTH_KEEP",
        default_value_t = RESULT_RETENTION.as_secs(),
        value_name = "SECONDS"
    )]
    pub keep: u64,
    /// Seconds for which prompt and answer are kept after the answer was fetched.
    #[arg(
        long,
        env = "HEARTH_KEEP_FETCHED",
        default_value_t = FETCHED_RETENTION.as_secs(),
        value_name = "SECONDS"
    )]
    pub keep_fetched: u64,
}

impl QueueLimitArgs {
    /// Converts the options to the queue's limits.
    #[must_use]
    pub const fn limits(self) -> QueueLimits {
        QueueLimits {
            jobs_max: self.queued_max,
            bytes_max: self.queued_mib_max.saturating_mul(MIB),
            account_jobs_max: self.account_queued_max,
            account_bytes_max: self.account_queued_mib_max.saturating_mul(MIB),
            account_kept_max: (self.account_kept_mib_max as u64).saturating_mul(MIB as u64),
            log_max: self.answer_mib_max.saturating_mul(MIB),
            logs_max: self.answers_mib_max.saturating_mul(MIB),
            attempts_max: self.attempts,
            waits: Duration::from_secs(self.keep_waiting),
            kept: Duration::from_secs(self.keep),
            fetched_kept: Duration::from_secs(self.keep_fetched),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_limit_that_would_serve_nobody_or_has_no_end_is_refused() {
        assert_eq!(at_least_one("1"), Ok(1));
        assert_eq!(at_least_one("1000000"), Ok(COUNT_MAX));
        for wrong in ["0", "1000001", "18446744073709551615", "-1", "many", ""] {
            let said = at_least_one(wrong).unwrap_err();
            assert_eq!(said, "give a number from 1 to 1000000", "{wrong}");
        }
    }

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        limits: QueueLimitArgs,
    }

    #[test]
    fn a_job_is_tried_as_often_as_the_option_says_and_at_least_once() {
        let tries = |count: &str| {
            let program = Program::try_parse_from(["relay", "--attempts", count]);
            program.map(|program| program.limits.limits().attempts_max)
        };
        assert_eq!(tries("1").unwrap(), 1);
        assert_eq!(tries("100").unwrap(), 100);
        assert!(tries("0").is_err() && tries("101").is_err());
    }

    #[test]
    fn jobs_wait_for_as_long_as_the_option_says_and_never_for_no_time() {
        let waits = |seconds: &str| {
            let option = format!("--keep-waiting={seconds}");
            let program = Program::try_parse_from(["relay", &option]);
            program.map(|program| program.limits.limits().waits)
        };
        for seconds in [1, 3_600, u64::MAX] {
            let waits = waits(&seconds.to_string());
            assert_eq!(waits.unwrap(), Duration::from_secs(seconds));
        }
        // Every job without a deadline would fail before it could be leased.
        assert!(waits("0").is_err());
        let usual = Program::try_parse_from(["relay"]).unwrap().limits;
        assert_eq!(usual.limits(), QueueLimits::default());
    }
}
