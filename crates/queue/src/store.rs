//! The traits of a store.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use proto::{Account, End, EventId, JobError, JobId, LeaseToken, Timestamp, worker::Retry};
use tokio::sync::watch;

use crate::{
    Batches, Extended, Job, Keys, Lease, LeaseQuery, LogHead, LogPage, Minute, Models, NewJob,
    Observer, Overview, Owner, Queries, QueueCounts, QueueError, QueuePosition, Serve, Sessions,
    Submissions, Users, Webhooks,
};

/// The log of one job, readable while it grows. Cheap to clone; any number of readers.
#[async_trait]
pub trait JobLog: fmt::Debug + Send + Sync {
    /// Subscribes to the head of the log, which changes whenever there is more to read.
    fn head(&self) -> watch::Receiver<LogHead>;

    /// Returns the lines after `after`: at least one if there is one, at most about `max_bytes`.
    async fn read(&self, after: EventId, max_bytes: usize) -> Result<LogPage, QueueError>;
}

/// A queue of jobs with leases, fencing and one append-only log per job.
///
/// An `async` method that changes a job is durable when it returns `Ok`, as far as the store has a
/// disk, except `extend` (renewals are kept in memory) and `append` (which returns how far the log
/// is on disk); `fetched` follows with a later commit. Time is an argument. It never goes back
/// within one store: an earlier `now` counts as the latest one seen.
///
/// Every method that returns a `Result` fails with [`QueueError::Store`] if the store cannot be
/// read or written, and with [`QueueError::Unconfirmed`] if it is not known whether it was written;
/// its `# Errors` section lists the other reasons.
#[async_trait]
pub trait Queue: fmt::Debug + Send + Sync {
    /// Accepts a job. Whether there is room for it is decided before its id is looked up.
    ///
    /// # Errors
    /// [`QueueError::Full`], [`QueueError::AccountFull`], [`QueueError::DiskFull`],
    /// [`QueueError::Exists`].
    async fn enqueue(&self, now: Timestamp, job: NewJob) -> Result<(), QueueError>;

    /// Leases the best waiting job, if there is one. Its `attempt` rises by one.
    async fn lease(
        &self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
    ) -> Result<Option<Lease>, QueueError> {
        let mut leases = self.lease_many(now, query, length, 1).await?;
        Ok(leases.pop())
    }

    /// Leases the best waiting jobs, best first: at most `max`, and none after the one with which
    /// their requests exceed [`proto::limits::BODY_MAX`] in total. They are leased in one decision,
    /// so that many cost no more disk time than one.
    async fn lease_many(
        &self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Lease>, QueueError>;

    /// Renews a lease for `length` from now. Returns whether the requester still wants the job.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    async fn extend(
        &self,
        now: Timestamp,
        token: LeaseToken,
        length: Duration,
    ) -> Result<Extended, QueueError>;

    /// Appends lines numbered from `first` and renews the lease. Readers see the lines at once;
    /// lines accepted before are skipped. Returns the number of the last line that is *on disk*;
    /// the others follow with a later commit, see [`Queue::stored`].
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

    /// Returns the number of the last line of this lease's attempt that is on disk.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    async fn stored(&self, token: LeaseToken) -> Result<u64, QueueError>;

    /// Ends a job. Its `lines` lines and its end are on disk before this returns and before any
    /// reader sees the end. A repeat of the same end by the same lease returns `Ok`. If the
    /// requester has cancelled, the job ends as cancelled, which also returns `Ok`. Accepted lines
    /// beyond `lines` stay, because readers may have seen them.
    ///
    /// # Errors
    /// [`QueueError::Gap`] if lines are missing, [`QueueError::StaleLease`],
    /// [`QueueError::UnknownJob`].
    async fn complete(
        &self,
        now: Timestamp,
        token: LeaseToken,
        lines: u64,
        end: End,
    ) -> Result<(), QueueError>;

    /// Gives a job back. `Retry::Now` queues it again without counting the attempt against its
    /// limit (the attempt number still rises); `AfterMs` counts it; `Never`, or the last permitted
    /// attempt, fails the job with `why`. A cancelled job ends as cancelled.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    async fn nack(
        &self,
        now: Timestamp,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<(), QueueError>;

    /// Cancels a job. A queued job ends at once. For a leased one the cancellation is stored and
    /// the worker learns of it by `extend`, `append` or [`Queue::cancelled`]; the job ends as
    /// cancelled when the worker gives it back or the lease expires.
    ///
    /// # Errors
    /// [`QueueError::UnknownJob`], also if the job belongs to another account;
    /// [`QueueError::Ended`].
    async fn cancel(&self, now: Timestamp, owner: Owner<'_>, id: JobId) -> Result<(), QueueError>;

    /// Waits until the requester has cancelled the job of this lease, or the lease is over.
    async fn cancelled(&self, token: LeaseToken);

    /// Returns the job, if it exists and belongs to `owner`.
    async fn get(&self, owner: Owner<'_>, id: JobId) -> Result<Option<Job>, QueueError>;

    /// Returns the account of a job, if it exists. Does not read the request, because this is
    /// called for every message of a worker about a job.
    async fn account(&self, id: JobId) -> Result<Option<Account>, QueueError>;

    /// Returns the owner's jobs, newest first, at most `limit`, without their bodies.
    async fn list(&self, owner: Owner<'_>, limit: usize) -> Result<Vec<Job>, QueueError>;

    /// Returns the unfinished jobs whose requester waited on an open connection, oldest first,
    /// without bodies. After a restart the relay cancels those whose requester does not come back.
    async fn attended(&self) -> Result<Vec<Job>, QueueError>;

    /// Returns the log of a job, if the job exists and belongs to `owner`.
    ///
    /// # Errors
    /// [`QueueError::Erased`].
    async fn log(&self, owner: Owner<'_>, id: JobId)
    -> Result<Option<Arc<dyn JobLog>>, QueueError>;

    /// Records that the requester has received the whole answer of a completed job, so that prompt
    /// and answer are erased [`crate::QueueLimits::fetched_kept`] later. Written with a later
    /// commit; if that is lost, they are kept as long as those of other jobs.
    fn fetched(&self, now: Timestamp, id: JobId);

    /// Applies everything that is due: queues jobs of expired leases again, or fails them after the
    /// last attempt; fails jobs whose deadline has passed, leased or not, and jobs without a
    /// deadline that waited for [`crate::QueueLimits::waits`]; ends cancelled jobs whose lease has
    /// expired; erases jobs that ended [`crate::QueueLimits::kept`] ago with request and log,
    /// request and log of fetched ones, and idempotency keys that outlived their job.
    ///
    /// Returns when it must be called again, if there is anything to wait for. While an ended job
    /// is kept, that is not later than the erasure of anything fetched after this call.
    async fn reap(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError>;

    /// Sets the observer of later changes.
    fn observe(&self, observer: Arc<dyn Observer>);

    /// Waits until the store can no longer be written, and returns the reason. The process must
    /// then exit; the next one reads what is really on disk.
    async fn failure(&self) -> QueueError {
        std::future::pending().await
    }

    /// Subscribes to a counter that changes whenever a job may have become available, or the next
    /// reap is due earlier.
    fn arrivals(&self) -> watch::Receiver<u64>;

    /// Returns the position of a waiting job among those for workers that serve these accounts and
    /// run these models; `None` if it does not wait.
    fn position(
        &self,
        now: Timestamp,
        id: JobId,
        serve: &Serve,
        models: &Models,
    ) -> Option<QueuePosition>;

    /// Returns the number of waiting jobs that match this query, counted up to `most`.
    fn waiting(&self, query: &LeaseQuery, most: usize) -> usize;

    /// Subscribes to a counter that changes whenever a job starts or stops waiting, so that queue
    /// positions may have changed.
    fn moves(&self) -> watch::Receiver<u64>;

    /// Returns the waiting and running jobs, with their holders and speeds.
    fn overview(&self) -> Overview;

    /// Returns what ended in the last hour of this process, by minute, oldest first.
    fn minutes(&self, now: Timestamp) -> Vec<Minute>;

    /// Subscribes to a counter that changes whenever the overview or the minutes may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Returns the numbers of waiting and running jobs.
    fn counts(&self) -> QueueCounts;

    /// Returns the size of the longest request of a waiting job, in bytes; 0 if none waits.
    fn longest(&self) -> usize;

    /// Writes what is pending and closes the store. Later calls fail.
    async fn close(&self) -> Result<(), QueueError>;
}

/// Everything the relay stores: the queue, and what is kept beside it. Several traits, because the
/// command line opens keys and users alone.
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
