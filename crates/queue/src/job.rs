//! The types of jobs, leases and log pages.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use proto::{
    Account, Body, Chunk, Dialect, End, ErrorCode, EventId, JobError, JobId, JobState, LeaseToken,
    ModelName, Op, Priority, Timestamp, WorkerId,
};

use crate::{ModelPatterns, QueueError, Serve};

/// A job to be queued. The relay has validated all fields.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Identifier, chosen at random by the relay.
    pub id: JobId,
    /// Account that owns the job.
    pub account: Account,
    /// Name of the submitting key; shown to the worker's owner.
    pub who: String,
    /// Operation.
    pub op: Op,
    /// Model.
    pub model: ModelName,
    /// Priority.
    pub priority: Priority,
    /// Request for the engine, byte for byte. Always UTF-8 JSON.
    pub body: Body,
    /// Wire format that the requester uses.
    pub dialect: Dialect,
    /// Time after which the answer is no longer wanted.
    pub deadline: Option<Timestamp>,
    /// Whether the requester waits on an open connection. After a restart of the relay such a job
    /// is cancelled if its requester does not come back in time.
    pub attended: bool,
    /// The only worker that may lease it, if the requester chose one.
    pub worker: Option<WorkerId>,
}

/// A job as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The job as submitted. Its body is empty once erased.
    pub new: NewJob,
    /// Current state.
    pub state: JobState,
    /// Number of times it has been leased.
    pub attempt: u32,
    /// Time of acceptance.
    pub created_at: Timestamp,
    /// Time of the end.
    pub finished_at: Option<Timestamp>,
    /// Reason of a failure.
    pub error: Option<JobError>,
    /// Whether prompt and answer were erased.
    pub is_erased: bool,
}

impl Job {
    /// Outcome of the job, if it has ended.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self.state {
            JobState::Queued | JobState::Leased => None,
            JobState::Completed => Some(End::Completed),
            JobState::Failed => Some(End::Failed {
                error: self.error.clone().unwrap_or_else(|| {
                    JobError::new(ErrorCode::Internal, "the reason was not recorded")
                }),
            }),
            JobState::Cancelled => Some(End::Cancelled),
        }
    }

    /// Checks whether the lease that ended this job may repeat the same end. A lease that was
    /// overtaken by the requester's cancellation may, too.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`] for another lease or another end.
    pub fn accepts_again(&self, token: LeaseToken, end: &End) -> Result<(), QueueError> {
        let same = self
            .end()
            .is_some_and(|had| had == *end || had == End::Cancelled);
        if same && self.attempt == token.attempt {
            Ok(())
        } else {
            Err(QueueError::StaleLease(token.job))
        }
    }
}

/// A lease of one job by one worker.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Credential that must accompany every call about this lease.
    pub token: LeaseToken,
    /// Time at which the lease expires unless it is extended.
    pub until: Timestamp,
    /// The job.
    pub job: NewJob,
}

/// A worker's request for jobs.
#[derive(Debug, Clone)]
pub struct LeaseQuery {
    /// The worker.
    pub worker: WorkerId,
    /// Accounts whose jobs it may lease.
    pub serve: Serve,
    /// Models that it can run.
    pub models: Models,
    /// Models that its key allows.
    pub allowed_models: ModelPatterns,
    /// Models, by canonical name, whose jobs are left to other workers, unless a job names this
    /// worker.
    pub excluded_models: BTreeSet<String>,
    /// Whether it may lease jobs that change the models of its engine.
    pub accepts_model_changes: bool,
    /// Maximum size of a request, in bytes: jobs with a longer one stay in the queue.
    pub request_max: usize,
}

/// The models that a worker can run.
#[derive(Debug, Clone)]
pub enum Models {
    /// Any model: the worker did not say (workers of older systems).
    Any,
    /// Any model, except these jobs.
    AnyBut(Arc<HashSet<JobId>>),
    /// Any model, but only queries: the worker understands nothing else.
    AnyForQueries,
    /// These models, in the worker's own order.
    Only(Vec<ModelName>),
    /// These models, but only urgent jobs, which need no slot ([`proto::Priority::URGENT`]).
    OnlyUrgent(Vec<ModelName>),
}

/// State of a leased job, as returned when its lease is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// The lease is valid; continue.
    Active,
    /// The requester cancelled the job: stop, and give it back.
    Cancelled,
}

/// The accounts whose jobs a caller may see.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// One account.
    Account(&'a Account),
    /// All accounts (admin keys).
    Anyone,
}

impl<'a> From<&'a Account> for Owner<'a> {
    fn from(account: &'a Account) -> Self {
        Self::Account(account)
    }
}

impl Owner<'_> {
    /// Whether jobs of `account` may be seen.
    #[must_use]
    pub fn owns(&self, account: &Account) -> bool {
        match self {
            Self::Account(own) => *own == account,
            Self::Anyone => true,
        }
    }
}

/// Progress of the log of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogHead {
    /// Current attempt, 0 before the first lease, and its last line, 0 before the first line.
    pub last: EventId,
    /// Whether no lease holds the job any more. Another attempt, if there is one, starts the log
    /// again.
    pub released: bool,
    /// Outcome of the job, once it is on disk.
    pub end: Option<End>,
}

impl LogHead {
    /// Whether the job waits for a worker: nothing more can come before the next lease.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.end.is_none() && (self.last.attempt == 0 || self.released)
    }
}

/// Consecutive lines of a log.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    /// Attempt that the lines belong to.
    pub attempt: u32,
    /// Whether the caller asked for an older attempt, so that these lines replace what it has.
    pub restarted: bool,
    /// The lines.
    pub chunks: Vec<Chunk>,
    /// Outcome of the job; set only if `chunks` reaches the last line.
    pub end: Option<End>,
}

/// Numbers of waiting and running jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Number of waiting jobs.
    pub queued: usize,
    /// Number of leased jobs.
    pub leased: usize,
    /// Size in bytes of the bodies of waiting jobs.
    pub queued_bytes: usize,
    /// Number of waiting jobs by priority; index 0 counts urgent jobs.
    pub by_priority: [usize; 11],
}
