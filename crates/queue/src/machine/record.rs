//! The record of a job, its lease, and a step: one decision about one job.

use std::time::Duration;

use proto::{Body, End, JobId, JobState, LeaseToken, Timestamp};

use crate::{Job, Lease, NewJob, QueueError};

/// A job as the machine knows it and a store persists it. The body is stored separately.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Sequence number, which rises with each accepted job and gives its age.
    pub seq: u64,
    /// The job, with an empty body.
    pub job: Job,
    /// Size of the body in bytes.
    pub bytes: usize,
    /// Number of attempts that count against the limit.
    pub tries: u32,
    /// Time before which the job is not leased.
    pub not_before: Option<Timestamp>,
    /// The lease; `Some` exactly while the job is leased.
    pub loan: Option<Loan>,
    /// Whether the requester cancelled it while it was leased.
    pub cancelled: bool,
}

/// The end of a lease, and the length of each renewal.
#[derive(Debug, Clone, PartialEq)]
pub struct Loan {
    /// Time at which the lease expires unless it is renewed.
    pub until: Timestamp,
    /// Original length of the lease.
    pub length: Duration,
}

/// One decision about one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The record before; `None` for a new job.
    pub before: Option<Record>,
    /// The record after, which must be persisted.
    pub after: Record,
}

impl Step {
    /// Identifier of the job.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.after.job.new.id
    }

    /// Returns the lease for the worker, if this step leased the job.
    #[must_use]
    pub fn lease(&self, body: Body) -> Option<Lease> {
        let loan = self.after.loan.as_ref()?;
        Some(Lease {
            token: self.after.token(),
            until: loan.until,
            job: NewJob {
                body,
                ..self.after.job.new.clone()
            },
        })
    }

    /// Whether this step leased the job.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        let attempt = self.before.as_ref().map_or(0, |before| before.job.attempt);
        self.after.job.attempt > attempt
    }
}

impl Record {
    pub(super) fn new(seq: u64, now: Timestamp, new: &NewJob) -> Self {
        Self {
            seq,
            bytes: new.body.0.len(),
            job: Job {
                // Not `..new.clone()`: that would copy the body.
                new: NewJob {
                    id: new.id,
                    account: new.account.clone(),
                    who: new.who.clone(),
                    op: new.op,
                    model: new.model.clone(),
                    priority: new.priority,
                    body: Body::default(),
                    dialect: new.dialect,
                    deadline: new.deadline,
                    attended: new.attended,
                    worker: new.worker.clone(),
                },
                state: JobState::Queued,
                attempt: 0,
                created_at: now,
                finished_at: None,
                error: None,
                is_erased: false,
            },
            tries: 0,
            not_before: None,
            loan: None,
            cancelled: false,
        }
    }

    /// Credential of the current lease.
    #[must_use]
    pub const fn token(&self) -> LeaseToken {
        LeaseToken {
            job: self.job.new.id,
            attempt: self.job.attempt,
        }
    }

    /// Outcome of the job, if it has ended.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.job.end()
    }

    /// Checks whether the holder of the last lease may repeat this end.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`] for another lease or another end.
    pub fn accepts_again(&self, token: LeaseToken, end: &End) -> Result<(), QueueError> {
        self.job.accepts_again(token, end)
    }

    pub(super) fn queued_again(mut self) -> Self {
        self.job.state = JobState::Queued;
        self.loan = None;
        self
    }

    pub(super) fn ended(mut self, now: Timestamp, end: End) -> Self {
        (self.job.state, self.job.error) = match end {
            End::Completed => (JobState::Completed, None),
            End::Failed { error } => (JobState::Failed, Some(error)),
            End::Cancelled => (JobState::Cancelled, None),
        };
        self.job.finished_at = Some(now);
        self.loan = None;
        self.not_before = None;
        self
    }
}
