//! [`MemoryQueue`]: the store that keeps everything in memory.

mod batches;
mod jobs;
mod people;
mod queries;
mod sessions;
mod submissions;
mod webhooks;

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use proto::{Account, Body, JobId, Timestamp, limits::JOB_COST};
use tokio::sync::watch;

use self::submissions::Named;
use crate::{
    Job, LeaseHolder, Live, LiveLog, LogBytes, MemoryKeys, MemoryUsers, NewJob, Owner, Queue,
    QueueError, QueueLimits, Webhook,
    machine::{Machine, Step},
};

/// The rules behind a lock, without a disk: the reference model for other stores, and the test
/// double.
pub struct MemoryQueue {
    inner: Mutex<Inner>,
    arrivals: watch::Sender<u64>,
    endings: watch::Sender<u64>,
    keys: MemoryKeys,
    users: MemoryUsers,
}

#[derive(Default)]
struct Inner {
    live: Live,
    bodies: HashMap<JobId, Body>,
    finished: HashMap<JobId, (u64, Job, Arc<LiveLog>)>,
    fetched: HashMap<JobId, Timestamp>,
    /// Number of bytes that each job adds to the usage of its account.
    weights: HashMap<JobId, u64>,
    /// What each idempotency key of an account stands for.
    named: HashMap<(Account, String), Named>,
    /// The same of keys whose job is erased.
    past: HashMap<(Account, String), (Named, Timestamp)>,
    webhooks: HashMap<JobId, Webhook>,
    documents: batches::Documents,
    queries: queries::Table,
    opened: sessions::Opened,
    /// Whether a job has ended since waiters were last woken.
    has_ended: bool,
    closed: bool,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            arrivals: watch::Sender::new(0),
            endings: watch::Sender::new(0),
            keys: MemoryKeys::default(),
            users: MemoryUsers::default(),
        }
    }
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl MemoryQueue {
    /// Creates an empty store with these limits.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        let queue = Self::default();
        queue.inner().live = Live::new(Machine::new(limits));
        queue
    }

    /// Does what a durable store does when its process restarts: every job and line is kept, and
    /// live leases get [`proto::limits::RESTART_GRACE`]. Readers must reopen their logs.
    pub fn restart(&self, now: Timestamp) {
        let mut inner = self.inner();
        let mut records: Vec<_> = inner.live.machine.records().cloned().collect();
        records.sort_by_key(|record| record.seq);
        let lines = records.iter().map(|record| record.job.new.id).map(|id| {
            let log = inner.live.log(Owner::Anyone, id);
            (id, log.map(|log| log.lines()).unwrap_or_default())
        });
        let lines = lines.collect();
        let mut machine = Machine::restore(inner.live.machine.limits(), now, records);
        machine.copy_usage_from(&inner.live.machine);
        machine.number_after(
            inner
                .finished
                .values()
                .map(|(seq, ..)| *seq)
                .max()
                .unwrap_or(0),
        );
        inner.live = Live::restore(machine, lines);
        inner.closed = false;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn open(&self) -> Result<MutexGuard<'_, Inner>, QueueError> {
        let inner = self.inner();
        if inner.closed {
            Err(QueueError::closed())
        } else {
            Ok(inner)
        }
    }

    /// Applies a change and wakes waiters for arrivals.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Inner) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        let mut inner = self.open()?;
        let answer = change(&mut inner);
        if inner.live.news() {
            self.arrivals.send_modify(|count| *count += 1);
        }
        if std::mem::take(&mut inner.has_ended) {
            self.endings.send_modify(|count| *count += 1);
        }
        answer
    }
}

impl Inner {
    /// Settles steps at once: a store in memory has nothing to persist.
    fn store(&mut self, steps: impl IntoIterator<Item = Step>) {
        let steps: Vec<Step> = steps.into_iter().collect();
        for step in steps.iter().filter(|step| step.after.job.state.is_final()) {
            if let Some(log) = self.live.log(Owner::Anyone, step.id()) {
                self.weights
                    .entry(step.id())
                    .and_modify(|weight| *weight += log.bytes() as u64);
                let mut job = step.after.job.clone();
                job.new.body = self.bodies.remove(&step.id()).unwrap_or_default();
                let log = Arc::new(log.kept(&step.after.job));
                self.finished.insert(step.id(), (step.after.seq, job, log));
                self.has_ended = true;
            }
        }
        self.live.settle(&steps);
    }

    /// Maps the error for a job that is not live: a finished job has a stale lease.
    fn over(&self, error: QueueError) -> QueueError {
        if let QueueError::UnknownJob(id) = error
            && self.finished.contains_key(&id)
        {
            return QueueError::StaleLease(id);
        }
        error
    }

    fn enqueue(&mut self, now: Timestamp, job: &NewJob) -> Result<Job, QueueError> {
        self.live.machine.check_room(job)?;
        if self.finished.contains_key(&job.id) {
            return Err(QueueError::Exists(format!("job {}", job.id)));
        }
        let step = self.live.machine.enqueue(now, job)?;
        let weight = JOB_COST + job.body.0.len() as u64;
        self.weights.insert(job.id, weight);
        // Copied, because the body may be a slice of a larger buffer.
        let body = Bytes::copy_from_slice(&job.body.0);
        self.bodies.insert(job.id, body.into());
        let accepted = step.after.job.clone();
        self.store([step]);
        Ok(accepted)
    }

    /// Adds `bytes`, which may be negative, to the usage of an existing job.
    fn weigh(&mut self, account: &Account, id: JobId, bytes: i64) {
        if let Some(weight) = self.weights.get_mut(&id) {
            *weight = weight.saturating_add_signed(bytes);
            self.live.machine.weigh(account, bytes);
        }
    }

    /// Reduces the usage of a job to `left` bytes.
    fn lighten(&mut self, account: &Account, id: JobId, left: u64) {
        let weight = self.weights.get(&id).copied().unwrap_or_default();
        let less = i64::try_from(weight.saturating_sub(left)).unwrap_or(i64::MAX);
        self.weigh(account, id, -less);
        if left == 0 {
            self.weights.remove(&id);
        }
    }

    /// Erases jobs, prompts, answers and keys whose retention time is over; returns the next such
    /// time.
    fn erase(&mut self) -> Option<Timestamp> {
        let (now, limits) = (self.live.machine.now(), self.live.machine.limits());
        let expires = |job: &Job| job.finished_at.map(|at| at + limits.kept);
        let is_late = |job: &Job| expires(job).is_some_and(|at| at <= now);
        let late = self.finished.extract_if(|_, (_, job, _)| is_late(job));
        let late: Vec<_> = late.map(|(id, (_, job, _))| (id, job)).collect();
        for (id, job) in late {
            self.lighten(&job.new.account, id, 0);
        }
        let Self {
            finished, fetched, ..
        } = self;
        let mut emptied = Vec::new();
        fetched.retain(|id, at| {
            let Some((_, job, log)) = finished.get_mut(id) else {
                return false;
            };
            let is_over = *at + limits.fetched_kept <= now;
            if is_over {
                job.new.body = Body::default();
                job.is_erased = true;
                emptied.push((*id, job.new.account.clone()));
                let empty = LiveLog::new(
                    *id,
                    0,
                    Vec::new(),
                    LeaseHolder::default(),
                    LogBytes::default(),
                );
                *log = Arc::new(empty);
            }
            !is_over
        });
        for (id, account) in emptied {
            self.lighten(&account, id, JOB_COST);
        }
        let Self {
            finished, fetched, ..
        } = self;
        let next = fetched.values().map(|at| *at + limits.fetched_kept).min();
        let kept = finished.values().filter_map(|(_, job, _)| expires(job));
        let next = [kept.min(), next, Some(now + limits.fetched_kept)];
        let next = next.into_iter().flatten().min();
        let next = next.filter(|_| !finished.is_empty());
        self.live.set_erasing(next.is_some());
        [next, self.forget_names(now)].into_iter().flatten().min()
    }

    fn jobs(&self) -> Vec<(u64, &Job)> {
        let live = self
            .live
            .machine
            .records()
            .map(|record| (record.seq, &record.job));
        let finished = self.finished.values().map(|(seq, job, _)| (*seq, job));
        let mut jobs: Vec<_> = live.chain(finished).collect();
        jobs.sort_by_key(|(seq, _)| *seq);
        jobs
    }
}

fn without_body(job: &Job) -> Job {
    Job {
        new: NewJob {
            body: Body::default(),
            ..job.new.clone()
        },
        ..job.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryQueue;
    use crate::conformance::bounds;

    crate::conformance_suite!(async { Box::new(MemoryQueue::default()) });
    crate::bounds_suite!(async { Box::new(MemoryQueue::new(bounds::limits())) });
}
