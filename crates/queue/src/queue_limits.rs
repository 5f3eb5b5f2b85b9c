//! The limits and retention times of a queue.

use std::time::Duration;

use proto::{Dialect, JobState, limits};

use crate::{DEFAULT_QUEUE_TIMEOUT, FETCHED_RETENTION, Job, RESULT_RETENTION};

/// Limits of a queue, and its retention times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Maximum number of waiting jobs.
    pub jobs_max: usize,
    /// Maximum size of their requests, in bytes.
    pub bytes_max: usize,
    /// Maximum number of waiting jobs of one account.
    pub account_jobs_max: usize,
    /// Maximum size of the requests of one account's waiting jobs, in bytes.
    pub account_bytes_max: usize,
    /// Maximum size kept for one account, in bytes: requests and answers of all its jobs, including
    /// ended ones until they are erased, and idempotency keys of erased ones.
    pub account_kept_max: u64,
    /// Maximum size of one answer, in bytes; a job whose answer exceeds it fails.
    pub log_max: usize,
    /// Maximum size of all answers that are being written, in bytes; above it the job with the
    /// longest one fails.
    pub logs_max: usize,
    /// Maximum number of attempts of a job before it fails.
    pub attempts_max: u32,
    /// Maximum waiting time of a job without a deadline, from its acceptance; doubled once a
    /// worker leased it.
    pub waits: Duration,
    /// Retention time of an ended job with its prompt and answer.
    pub kept: Duration,
    /// Retention time of prompt and answer after the answer was fetched.
    pub fetched_kept: Duration,
}

impl QueueLimits {
    /// Whether prompt and answer are erased early once the answer was fetched. False for failed
    /// jobs, which may be retried, and for queries, whose clients may read them again at any time.
    #[must_use]
    pub fn is_erased_early(job: &Job) -> bool {
        job.state == JobState::Completed && job.new.dialect != Dialect::Queries
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            jobs_max: limits::QUEUED_MAX,
            bytes_max: limits::QUEUED_BYTES_MAX,
            account_jobs_max: limits::QUEUED_PER_ACCOUNT_MAX,
            account_bytes_max: limits::QUEUED_BYTES_PER_ACCOUNT_MAX,
            account_kept_max: limits::KEPT_PER_ACCOUNT_MAX,
            log_max: limits::LOG_MAX,
            logs_max: limits::LOGS_MAX,
            attempts_max: limits::ATTEMPTS_MAX,
            waits: DEFAULT_QUEUE_TIMEOUT,
            kept: RESULT_RETENTION,
            fetched_kept: FETCHED_RETENTION,
        }
    }
}
