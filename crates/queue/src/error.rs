//! The error type of the queue.

use proto::{ErrorCode, JobId, JobState};

/// Reasons why the queue refused a call, named by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The job does not exist, or belongs to another account.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// Another lease holds the job now; the worker must drop its work.
    #[error("the lease on job {0} has ended; another worker may hold the job now")]
    StaleLease(JobId),
    /// The job has ended and can never change again.
    #[error("job {0} has already ended: it is {state}", state = format!("{:?}", .1).to_lowercase())]
    Ended(JobId, JobState),
    /// The request and the answer were erased after their retention time.
    #[error(
        "the prompt and answer of job {0} were erased after their retention time; to run it again, \
         submit it as a new job, with a new idempotency key if it has one"
    )]
    Erased(JobId),
    /// Lines are missing before the one that was sent; the worker must send again from `stored +
    /// 1`.
    #[error("line {got} of job {job} does not follow line {stored}; send line {} next", stored + 1)]
    Gap {
        /// The job.
        job: JobId,
        /// Number of the last accepted line.
        stored: u64,
        /// Number of the line that was sent.
        got: u64,
    },
    /// A limit of the whole queue is reached; retry later.
    #[error("the queue is full: {0}")]
    Full(&'static str),
    /// The account has reached its limit; it must wait until some of its own jobs are gone.
    #[error("{0}")]
    AccountFull(&'static str),
    /// The disk is full: new jobs are refused, running jobs continue.
    #[error(
        "the relay's disk is full; running jobs continue, new ones are refused; try again later"
    )]
    DiskFull,
    /// The id or the name is already taken.
    #[error("{0} already exists")]
    Exists(String),
    /// The idempotency key was already used for another request.
    #[error("the idempotency key was used for another request; use a new one for each request")]
    OtherRequest,
    /// The store failed while it wrote: only its next start knows whether the change was saved.
    #[error("the queue store failed while it wrote")]
    Unconfirmed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store itself failed; nothing was changed, and the caller may retry.
    #[error("the queue store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl QueueError {
    /// Returns the error of every call on a closed store.
    #[must_use]
    pub fn closed() -> Self {
        Self::Store("the queue was closed; start the relay again".into())
    }

    /// Returns the error of a call whose store ended before it told the result.
    #[must_use]
    pub fn unconfirmed() -> Self {
        Self::Unconfirmed("the queue ended before it told the result".into())
    }

    /// Whether the store failed, rather than refused the call.
    #[must_use]
    pub const fn is_of_store(&self) -> bool {
        matches!(self, Self::Unconfirmed(_) | Self::Store(_))
    }

    /// Whether a whole answer only came too late: its lease or its job has ended meanwhile, or the
    /// lines before it were undone. Not for a worker that sends lines: after [`Self::Gap`] it must
    /// send again.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        matches!(
            self,
            Self::StaleLease(_) | Self::Ended(..) | Self::Gap { .. }
        )
    }

    /// The stable error code that is sent to clients.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownJob(_) => ErrorCode::UnknownJob,
            Self::StaleLease(_) => ErrorCode::StaleLease,
            Self::Ended(..) => ErrorCode::JobEnded,
            Self::Erased(_) => ErrorCode::Erased,
            Self::Gap { .. } => ErrorCode::ChunkGap,
            Self::Full(_) => ErrorCode::QueueFull,
            Self::AccountFull(_) => ErrorCode::AccountFull,
            Self::DiskFull => ErrorCode::DiskFull,
            Self::Exists(_) => ErrorCode::BadRequest,
            Self::OtherRequest => ErrorCode::IdempotencyConflict,
            Self::Unconfirmed(_) => ErrorCode::OutcomeUnknown,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}
