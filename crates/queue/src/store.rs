use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use proto::{
    Account, Body, Chunk, Dialect, End, ErrorCode, EventId, JobError, JobId, JobState, LeaseToken,
    ModelName, Op, Priority, Timestamp, WorkerId, worker::Retry,
};
use tokio::sync::watch;

use crate::{
    Batches, Keys, Minute, ModelPatterns, Observer, Overview, Place, Queries, QueueError, Serve,
    Sessions, Submissions, Users, Webhooks,
};

/// A job to be queued. Everything in it was validated by the relay.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Chosen at random by the relay.
    pub id: JobId,
    /// Whose it is.
    pub account: Account,
    /// The name of the key that asked, for the worker's owner.
    pub who: String,
    /// What is asked.
    pub op: Op,
    /// Of which model.
    pub model: ModelName,
    /// Urgency.
    pub priority: Priority,
    /// The request for the engine, byte for byte; always UTF-8 JSON.
    pub body: Body,
    /// Which wire format the requester spoke.
    pub dialect: Dialect,
    /// When nobody wants the answer any more.
    pub deadline: Option<Timestamp>,
    /// The requester waits on an open connection: after a restart of the relay the job is
    /// cancelled if nobody comes back for it in time.
    pub attended: bool,
    /// The only worker that may have it, if the requester chose one.
    pub worker: Option<WorkerId>,
}

/// A job as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What was asked. Its body is empty once it was erased.
    pub new: NewJob,
    /// Where it is in its life.
    pub state: JobState,
    /// How often it has been leased.
    pub attempt: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Its prompt and its answer were erased.
    pub is_erased: bool,
}

impl Job {
    /// How the job ended, if it has.
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

    /// Whether the lease that ended this job may send the same end once more. One that was
    /// overtaken by the requester's cancellation may too.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`] if it is another lease or another end.
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

/// A loan of one job to one worker.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Must be shown with everything that concerns the lease.
    pub token: LeaseToken,
    /// The loan ends here unless it is extended.
    pub until: Timestamp,
    /// The job.
    pub job: NewJob,
}

/// Who asks for work, and for which.
#[derive(Debug, Clone)]
pub struct LeaseQuery {
    /// The worker.
    pub worker: WorkerId,
    /// Whose jobs it may have.
    pub serve: Serve,
    /// Which models it can run.
    pub models: Models,
    /// And which of all models it may.
    pub within: ModelPatterns,
    /// Of these, by their canonical names, others are to have the jobs that are not for this
    /// worker alone.
    pub left: BTreeSet<String>,
    /// Whether it may have jobs that change which models its engine has.
    pub changes: bool,
}

/// Which models a worker can run.
#[derive(Debug, Clone)]
pub enum Models {
    /// It did not say; taken to run any (workers of older systems).
    Any,
    /// The same, but these jobs are not for it.
    AnyBut(Arc<HashSet<JobId>>),
    /// The same, but only what was asked as a query: it can say nothing else.
    AnyForQueries,
    /// These, in the worker's own order.
    Only(Vec<ModelName>),
    /// The same, but of their jobs only those that wait for no slot ([`proto::Priority::URGENT`]).
    OnlyUrgent(Vec<ModelName>),
}

/// What became of a job that was looked at with its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased {
    /// Go on.
    Held,
    /// The requester withdrew it: stop, and give it back.
    Cancelled,
}

/// Whose jobs a caller may see.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// Those of one account.
    Account(&'a Account),
    /// Everybody's (admin keys).
    Anyone,
}

impl<'a> From<&'a Account> for Owner<'a> {
    fn from(account: &'a Account) -> Self {
        Self::Account(account)
    }
}

impl Owner<'_> {
    /// Whether a job of `account` may be seen.
    #[must_use]
    pub fn owns(&self, account: &Account) -> bool {
        match self {
            Self::Account(own) => *own == account,
            Self::Anyone => true,
        }
    }
}

/// How far a job's log has got.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogHead {
    /// The current attempt, 0 before the first lease, and its last line, 0 before the first line.
    pub last: EventId,
    /// Nobody holds the job any more: another attempt will begin the log anew, if one comes.
    pub released: bool,
    /// How the job ended, once that is on disk.
    pub end: Option<End>,
}

impl LogHead {
    /// Whether the job waits for a worker: what comes next comes with the next lease.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.end.is_none() && (self.last.attempt == 0 || self.released)
    }
}

/// Some lines of a log.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    /// The attempt the lines belong to.
    pub attempt: u32,
    /// The caller asked for an older attempt: these lines replace what it has.
    pub restarted: bool,
    /// Consecutive lines.
    pub chunks: Vec<Chunk>,
    /// How the job ended; set only when `chunks` reaches the last line.
    pub end: Option<End>,
}

/// One job's log, readable while it grows. Cheap to clone; any number may read.
#[async_trait]
pub trait JobLog: fmt::Debug + Send + Sync {
    /// Changes whenever there is more to read.
    fn head(&self) -> watch::Receiver<LogHead>;

    /// The lines after `after`, at least one if there is one, about `max_bytes` at most.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn read(&self, after: EventId, max_bytes: usize) -> Result<LogPage, QueueError>;
}

/// How much is waiting and running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that are leased.
    pub leased: usize,
    /// Bytes of waiting request bodies.
    pub queued_bytes: usize,
    /// Jobs that wait, by priority.
    pub by_priority: [usize; 11],
}

/// A durable queue of jobs with leases, fencing and one append-only log per job.
///
/// Every method that answers `Ok` has put on disk what it acknowledges, except `append`, whose
/// answer says how far the log is on disk. Time is an argument and never goes backwards inside
/// one implementation: an earlier `now` counts as the latest one seen.
#[async_trait]
pub trait Queue: fmt::Debug + Send + Sync {
    /// Accepts a job.
    ///
    /// # Errors
    /// [`QueueError::Full`], [`QueueError::Exists`], [`QueueError::Store`].
    async fn enqueue(&self, now: Timestamp, job: NewJob) -> Result<(), QueueError>;

    /// Lends the best waiting job, if there is one; its `attempt` rises by one.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn lease(
        &self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
    ) -> Result<Option<Lease>, QueueError> {
        let mut leases = self.lease_many(now, query, length, 1).await?;
        Ok(leases.pop())
    }

    /// Lends the best waiting jobs, best first, at most `max` and none beyond the one that makes
    /// their requests [`proto::limits::BODY_MAX`] long together. They are lent in one decision,
    /// so that many cost no more time on the disk than one.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn lease_many(
        &self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Lease>, QueueError>;

    /// Renews a lease for `length` from now, and tells whether the requester still wants it.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    async fn extend(
        &self,
        now: Timestamp,
        token: LeaseToken,
        length: Duration,
    ) -> Result<Leased, QueueError>;

    /// Adds lines numbered from `first`, which readers see at once; renews the lease. Lines that
    /// were accepted before are skipped. Answers with the last line that is *on disk*; the rest
    /// follows within a group, see [`Queue::stored`].
    ///
    /// # Errors
    /// [`QueueError::Gap`], [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    async fn append(
        &self,
        now: Timestamp,
        token: LeaseToken,
        first: u64,
        lines: Vec<Bytes>,
    ) -> Result<u64, QueueError>;

    /// The last line of this lease's attempt that is on disk.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    async fn stored(&self, token: LeaseToken) -> Result<u64, QueueError>;

    /// Ends a job for good: its `lines` lines and its end are on disk before this answers, and
    /// before any reader sees the end. A repeat of the same end by the same lease is `Ok`. If
    /// the requester cancelled meanwhile, the job ends as cancelled, and that is `Ok` too. Lines
    /// beyond `lines` that were accepted stay: readers have seen them.
    ///
    /// # Errors
    /// [`QueueError::Gap`] if lines are missing, [`QueueError::StaleLease`],
    /// [`QueueError::UnknownJob`], [`QueueError::Store`].
    async fn complete(
        &self,
        now: Timestamp,
        token: LeaseToken,
        lines: u64,
        end: End,
    ) -> Result<(), QueueError>;

    /// Gives a job back. `Retry::Now` queues it again without counting the attempt against its
    /// limit (the number itself still rises); `AfterMs` counts; `Never`, or the last permitted
    /// attempt, fails it with `why`. A job whose requester cancelled ends as cancelled.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`], [`QueueError::Store`].
    async fn nack(
        &self,
        now: Timestamp,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<(), QueueError>;

    /// Withdraws a job. A queued job ends at once; for a leased one the requester's wish is on
    /// disk and the worker is told by `extend`, `append` or [`Queue::cancelled`]; it ends as
    /// cancelled when the worker gives it back or the lease ends.
    ///
    /// # Errors
    /// [`QueueError::UnknownJob`] (also if it is not the owner's), [`QueueError::Ended`].
    async fn cancel(&self, now: Timestamp, owner: Owner<'_>, id: JobId) -> Result<(), QueueError>;

    /// Resolves once the requester of this lease's job has withdrawn it, or the lease is over.
    async fn cancelled(&self, token: LeaseToken);

    /// The job, if it exists and is the owner's.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn get(&self, owner: Owner<'_>, id: JobId) -> Result<Option<Job>, QueueError>;

    /// Whose the job is, if it exists. Its request is not read: this is asked with each thing a
    /// worker says of a job.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn account(&self, id: JobId) -> Result<Option<Account>, QueueError>;

    /// The newest jobs of the owner, newest first, at most `limit`, without their bodies.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn list(&self, owner: Owner<'_>, limit: usize) -> Result<Vec<Job>, QueueError>;

    /// The unfinished jobs whose requester waited on an open connection, oldest first, without
    /// their bodies: after a restart the relay cancels those nobody comes back for.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn attended(&self) -> Result<Vec<Job>, QueueError>;

    /// The job's log, if the job exists and is the owner's.
    ///
    /// # Errors
    /// [`QueueError::Erased`], [`QueueError::Store`].
    async fn log(&self, owner: Owner<'_>, id: JobId)
    -> Result<Option<Arc<dyn JobLog>>, QueueError>;

    /// The requester has the whole answer of a completed job: its prompt and its answer are erased
    /// [`crate::Terms::fetched_kept`] after that. On disk with the next group; if that is lost,
    /// they are kept as long as those of other jobs.
    fn fetched(&self, now: Timestamp, id: JobId);

    /// Queues again what expired leases held (or fails it after the last attempt), fails what
    /// passed its deadline, whoever holds it, and what has none and waited for [`crate::Terms::waits`],
    /// ends what was cancelled under an expired lease, and
    /// erases what ended [`crate::Terms::kept`] ago, with its request and its log, and request and
    /// log of what was fetched.
    /// Answers when it wants to be called again, if there is anything to wait for: while an ended
    /// job is kept, before what is fetched after this call is to be erased.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn reap(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError>;

    /// This one hears what becomes of jobs from now on.
    fn observe(&self, observer: Arc<dyn Observer>);

    /// Resolves when the store can be written no more, with the reason: the process must end, and
    /// the next one look at what is really on disk.
    async fn failure(&self) -> QueueError {
        std::future::pending().await
    }

    /// Changes whenever a job may have become available or the time of the next reap moved up.
    fn arrivals(&self) -> watch::Receiver<u64>;

    /// Where a waiting job stands among those that workers which serve these accounts and run
    /// these models will be lent; `None` if it does not wait.
    fn place(&self, now: Timestamp, id: JobId, serve: &Serve, models: &Models) -> Option<Place>;

    /// How many jobs wait that this query would be lent, counted up to `most`.
    fn waiting(&self, query: &LeaseQuery, most: usize) -> usize;

    /// Changes whenever a job began or ceased to wait, so that places may be others.
    fn moves(&self) -> watch::Receiver<u64>;

    /// What waits, what runs, who holds it and how fast it is answered.
    fn overview(&self) -> Overview;

    /// What ended in the last hour of this process, minute by minute, oldest first.
    fn minutes(&self, now: Timestamp) -> Vec<Minute>;

    /// Changes whenever the overview or the minutes may be others.
    fn changes(&self) -> watch::Receiver<u64>;

    /// How much is waiting and running now.
    fn counts(&self) -> QueueCounts;

    /// Writes out what is pending and closes the store; later calls fail.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn close(&self) -> Result<(), QueueError>;
}

/// What the relay opens: a queue, and what is kept beside it.
pub trait Store:
    Queue + Keys + Queries + Submissions + Users + Sessions + Webhooks + Batches
{
}

impl<T: Queue + Keys + Queries + Submissions + Users + Sessions + Webhooks + Batches> Store for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_waits_until_a_worker_begins_and_again_when_it_is_lost_but_not_after_the_end() {
        let waits = |attempt, released, end| {
            let last = EventId { attempt, n: 3 };
            LogHead {
                last,
                released,
                end,
            }
            .waits()
        };
        assert!(waits(0, false, None), "nobody has begun");
        assert!(!waits(1, false, None));
        assert!(waits(1, true, None), "its worker was lost");
        assert!(!waits(0, false, Some(End::Cancelled)));
        assert!(!waits(1, true, Some(End::Completed)));
    }
}
