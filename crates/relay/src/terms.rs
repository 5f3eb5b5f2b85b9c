//! How much a relay's queue takes, and how long it keeps what ended, as options of `hearth relay`.

use std::time::Duration;

use proto::limits;
use queue::{FETCHED_KEPT, RESULT_KEPT, Terms, WAITS};

const MIB: usize = 1024 * 1024;
/// No count or size is larger.
const COUNT_MAX: usize = 1_000_000;

/// A limit, for an option without which nobody would be served.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let count = text.parse().ok();
    count
        .filter(|count| (1..=COUNT_MAX).contains(count))
        .ok_or_else(|| format!("give a number from 1 to {COUNT_MAX}"))
}

/// The caps of the queue, and how long it keeps what ended. Whoever reaches a cap is told to come
/// again: with 429 if it is the account's own share, with 503 if it is everybody's.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct TermsArgs {
    /// Most jobs that wait in all.
    #[arg(
        long,
        env = "HEARTH_QUEUED_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_MAX,
        value_name = "COUNT"
    )]
    pub queued_max: usize,
    /// Most MiB of their requests.
    #[arg(
        long,
        env = "HEARTH_QUEUED_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_BYTES_MAX / MIB,
        value_name = "MIB"
    )]
    pub queued_mib_max: usize,
    /// Most jobs of one account that wait.
    #[arg(
        long,
        env = "HEARTH_ACCOUNT_QUEUED_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_PER_ACCOUNT_MAX,
        value_name = "COUNT"
    )]
    pub account_queued_max: usize,
    /// Most MiB of their requests.
    #[arg(
        long,
        env = "HEARTH_ACCOUNT_QUEUED_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::QUEUED_BYTES_PER_ACCOUNT_MAX / MIB,
        value_name = "MIB"
    )]
    pub account_queued_mib_max: usize,
    /// Most MiB that are kept of one account: requests and answers of all its jobs until they are
    /// erased.
    #[arg(
        long,
        env = "HEARTH_ACCOUNT_KEPT_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = (limits::KEPT_PER_ACCOUNT_MAX / MIB as u64) as usize,
        value_name = "MIB"
    )]
    pub account_kept_mib_max: usize,
    /// Most MiB of one answer; a job whose answer grows longer fails.
    #[arg(
        long,
        env = "HEARTH_ANSWER_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::LOG_MAX / MIB,
        value_name = "MIB"
    )]
    pub answer_mib_max: usize,
    /// Most MiB of all answers that are being written; beyond them the job with the longest
    /// fails.
    #[arg(
        long,
        env = "HEARTH_ANSWERS_MIB_MAX",
        value_parser = at_least_one,
        default_value_t = limits::LOGS_MAX / MIB,
        value_name = "MIB"
    )]
    pub answers_mib_max: usize,
    /// Seconds for which a job that names no deadline waits for an agent; then it fails.
    #[arg(
        long,
        env = "HEARTH_KEEP_WAITING",
        default_value_t = WAITS.as_secs(),
        value_name = "SECONDS"
    )]
    pub keep_waiting: u64,
    /// Seconds for which an ended job is kept, with its prompt and its answer.
    #[arg(
        long,
        env = "HEARTH_KEEP",
        default_value_t = RESULT_KEPT.as_secs(),
        value_name = "SECONDS"
    )]
    pub keep: u64,
    /// Seconds for which prompt and answer are kept once the answer was fetched.
    #[arg(
        long,
        env = "HEARTH_KEEP_FETCHED",
        default_value_t = FETCHED_KEPT.as_secs(),
        value_name = "SECONDS"
    )]
    pub keep_fetched: u64,
}

impl TermsArgs {
    /// What they mean to the queue.
    #[must_use]
    pub const fn terms(self) -> Terms {
        Terms {
            jobs_max: self.queued_max,
            bytes_max: self.queued_mib_max.saturating_mul(MIB),
            account_jobs_max: self.account_queued_max,
            account_bytes_max: self.account_queued_mib_max.saturating_mul(MIB),
            account_kept_max: (self.account_kept_mib_max as u64).saturating_mul(MIB as u64),
            log_max: self.answer_mib_max.saturating_mul(MIB),
            logs_max: self.answers_mib_max.saturating_mul(MIB),
            waits: Duration::from_secs(self.keep_waiting),
            kept: Duration::from_secs(self.keep),
            fetched_kept: Duration::from_secs(self.keep_fetched),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
