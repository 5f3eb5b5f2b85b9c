use std::time::Duration;

use proto::{Dialect, JobState, limits};

use crate::{FETCHED_KEPT, Job, RESULT_KEPT, WAITS};

/// How much a queue takes, and how long it keeps what has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Most waiting jobs.
    pub jobs_max: usize,
    /// Most bytes of their requests.
    pub bytes_max: usize,
    /// Most waiting jobs of one account.
    pub account_jobs_max: usize,
    /// Most bytes of their requests.
    pub account_bytes_max: usize,
    /// Most bytes that are kept of one account: requests and answers of all its jobs, of those that
    /// ended too, until they are erased.
    pub account_kept_max: u64,
    /// Most bytes of one answer; a job whose answer grows over it fails.
    pub log_max: usize,
    /// Most bytes of all answers that are being written; beyond them the job with the longest
    /// fails.
    pub logs_max: usize,
    /// How long a job that names no deadline waits for a worker, from when it was accepted.
    pub waits: Duration,
    /// How long an ended job is kept, with its prompt and its answer.
    pub kept: Duration,
    /// How long prompt and answer are kept once the answer was fetched.
    pub fetched_kept: Duration,
}

impl Terms {
    /// Whether prompt and answer go early once the answer was fetched. Dead jobs may be tried
    /// again, and those who use queries look at them as they like.
    #[must_use]
    pub fn goes_early(job: &Job) -> bool {
        job.state == JobState::Completed && job.new.dialect != Dialect::Queries
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            jobs_max: limits::QUEUED_MAX,
            bytes_max: limits::QUEUED_BYTES_MAX,
            account_jobs_max: limits::QUEUED_PER_ACCOUNT_MAX,
            account_bytes_max: limits::QUEUED_BYTES_PER_ACCOUNT_MAX,
            account_kept_max: limits::KEPT_PER_ACCOUNT_MAX,
            log_max: limits::LOG_MAX,
            logs_max: limits::LOGS_MAX,
            waits: WAITS,
            kept: RESULT_KEPT,
            fetched_kept: FETCHED_KEPT,
        }
    }
}
