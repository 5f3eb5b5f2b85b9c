use std::time::Duration;

use proto::{Body, End, JobId, JobState, LeaseToken, Timestamp};

use crate::{Job, Lease, NewJob, QueueError};

/// A job as the machine knows it and a store persists it; the body is kept elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Rises with each accepted job: its age.
    pub seq: u64,
    /// The job, with an empty body.
    pub job: Job,
    /// How long the body is.
    pub bytes: usize,
    /// How many attempts count against the limit.
    pub tries: u32,
    /// Not lent before this.
    pub not_before: Option<Timestamp>,
    /// The loan, exactly while the job is leased.
    pub loan: Option<Loan>,
    /// The requester withdrew it while it was leased.
    pub cancelled: bool,
}

/// Until when a job is lent, and for how long each renewal is.
#[derive(Debug, Clone, PartialEq)]
pub struct Loan {
    /// The lease ends here unless it is renewed.
    pub until: Timestamp,
    /// What it was lent for.
    pub length: Duration,
}

/// One decision about one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `None` for a job that is new.
    pub before: Option<Record>,
    /// What must be on disk.
    pub after: Record,
}

impl Step {
    /// The job.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.after.job.new.id
    }

    /// What the worker gets, if the job was lent.
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

    /// The job went to a worker in this step.
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
                // Not `..new.clone()`: that would take the body along.
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

    /// What the present holder must show.
    #[must_use]
    pub const fn token(&self) -> LeaseToken {
        LeaseToken {
            job: self.job.new.id,
            attempt: self.job.attempt,
        }
    }

    /// How the job ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.job.end()
    }

    /// Whether the holder of the last lease may send this end once more.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`] if it is another lease or another end.
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
