use proto::{ErrorCode, JobId, JobState};

/// Why the queue refused; named by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No such job, or it belongs to somebody else.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// Somebody else holds the job now; drop the work.
    #[error("the lease on job {0} is over; somebody else may hold it now")]
    StaleLease(JobId),
    /// The job can never change again.
    #[error("job {0} has already ended: it is {state}", state = format!("{:?}", .1).to_lowercase())]
    Ended(JobId, JobState),
    /// What was asked and answered is kept for a while only.
    #[error("prompt and answer of job {0} were erased; they are kept for a while only")]
    Erased(JobId),
    /// A chunk is missing before this one; send again from the number after `stored`.
    #[error("line {got} of job {job} came after line {stored}; send line {} next", stored + 1)]
    Gap {
        /// The job.
        job: JobId,
        /// The last line that was accepted.
        stored: u64,
        /// The line that was sent.
        got: u64,
    },
    /// A cap of the whole queue was reached; try again later.
    #[error("the queue is full: {0}")]
    Full(&'static str),
    /// The account reached its share; it must wait until some of its own jobs have gone.
    #[error("{0}")]
    AccountFull(&'static str),
    /// Nothing new can be kept; what is running goes on.
    #[error("the relay's disk is full; what is running goes on, and nothing new is taken")]
    DiskFull,
    /// An id or a name is taken already.
    #[error("{0} exists already")]
    Exists(String),
    /// The requester's name for a request stands for another one already.
    #[error("the idempotency key was used for another request; use a new one for each request")]
    OtherRequest,
    /// The store itself failed; the caller may retry.
    #[error("the queue store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl QueueError {
    /// What every call on a closed store is told.
    #[must_use]
    pub fn closed() -> Self {
        Self::Store("the queue was closed; start the relay again".into())
    }

    /// The stable code a client is told.
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
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}
