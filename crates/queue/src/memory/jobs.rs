//! The job queue of the store in memory.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use proto::{
    Account, End, JobError, JobId, LeaseToken, Timestamp, limits::BODY_MAX, worker::Retry,
};
use tokio::sync::watch;

use super::{MemoryQueue, without_body};
use crate::{
    Appended, Extended, Job, JobLog, Lease, LeaseQuery, Minute, Models, NewJob, Observer, Overview,
    Owner, Queue, QueueCounts, QueueError, QueueLimits, QueuePosition, Serve, end_too_long,
};

#[async_trait]
impl Queue for MemoryQueue {
    async fn enqueue(&self, now: Timestamp, job: NewJob) -> Result<(), QueueError> {
        self.change(|inner| inner.enqueue(now, &job).map(drop))
    }

    async fn lease_many(
        &self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Lease>, QueueError> {
        self.change(|inner| {
            let (mut leases, mut bytes) = (Vec::new(), 0);
            while leases.len() < max && bytes < BODY_MAX {
                let (steps, token) = inner.live.machine.lease(now, query, length);
                let lease = token.zip(steps.last()).and_then(|(token, step)| {
                    let body = inner.bodies.get(&token.job).cloned().unwrap_or_default();
                    step.lease(body)
                });
                if let Some(lease) = &lease {
                    inner.live.lent(now, lease.token, &query.worker);
                }
                inner.store(steps);
                let Some(lease) = lease else { break };
                bytes += lease.job.body.0.len();
                leases.push(lease);
            }
            Ok(leases)
        })
    }

    async fn extend(
        &self,
        now: Timestamp,
        token: LeaseToken,
        length: Duration,
    ) -> Result<Extended, QueueError> {
        self.change(|inner| {
            inner
                .live
                .extend(now, token, length)
                .map_err(|error| inner.over(error))
        })
    }

    async fn append(
        &self,
        now: Timestamp,
        token: LeaseToken,
        first: u64,
        lines: Vec<Bytes>,
    ) -> Result<u64, QueueError> {
        let mut tried = false;
        loop {
            let appended = {
                let mut inner = self.open()?;
                let appended = inner.live.append(now, token, first, lines.clone());
                appended.map_err(|error| inner.over(error))?
            };
            let Appended::TooLong(longest) = appended else {
                break;
            };
            // Ending another job makes room once; if that is not enough, this job must end.
            let lease = if tried { token } else { longest };
            end_too_long(self, now, lease).await?;
            tried = true;
        }
        let mut inner = self.open()?;
        for (record, log) in inner.live.take_unstored() {
            log.store(record.job.attempt, log.count());
        }
        Ok(inner.live.held_log(token)?.stored())
    }

    async fn stored(&self, token: LeaseToken) -> Result<u64, QueueError> {
        let mut inner = self.open()?;
        let log = inner
            .live
            .held_log(token)
            .map_err(|error| inner.over(error))?;
        Ok(log.stored())
    }

    async fn complete(
        &self,
        now: Timestamp,
        token: LeaseToken,
        lines: u64,
        end: End,
    ) -> Result<(), QueueError> {
        self.change(|inner| {
            if let Some((_, ended, _)) = inner.finished.get(&token.job) {
                return ended.accepts_again(token, &end);
            }
            let have = inner
                .live
                .log(Owner::Anyone, token.job)
                .map_or(0, |log| log.count());
            let step = inner.live.machine.complete(now, token, have, lines, end)?;
            inner.store(step);
            Ok(())
        })
    }

    async fn nack(
        &self,
        now: Timestamp,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<(), QueueError> {
        self.change(|inner| {
            let step = inner.live.machine.nack(now, token, retry, why);
            let step = step.map_err(|error| inner.over(error))?;
            inner.store([step]);
            Ok(())
        })
    }

    async fn cancel(&self, now: Timestamp, owner: Owner<'_>, id: JobId) -> Result<(), QueueError> {
        self.change(|inner| {
            if let Some((_, ended, _)) = inner.finished.get(&id) {
                return Err(if owner.owns(&ended.new.account) {
                    QueueError::Ended(id, ended.state)
                } else {
                    QueueError::UnknownJob(id)
                });
            }
            let step = inner.live.machine.cancel(now, owner, id)?;
            inner.store(step);
            Ok(())
        })
    }

    async fn cancelled(&self, token: LeaseToken) {
        let lease_holder = self.inner().live.lease_holder(token);
        if let Some(mut lease_holder) = lease_holder {
            // An error means that the job, and with it the lease, is gone.
            let _ = lease_holder
                .wait_for(|lease_holder| lease_holder.stops(token.attempt))
                .await;
        }
    }

    async fn get(&self, owner: Owner<'_>, id: JobId) -> Result<Option<Job>, QueueError> {
        let inner = self.open()?;
        let job = match (inner.live.machine.get(id), inner.finished.get(&id)) {
            (Some(record), _) => {
                let mut job = record.job.clone();
                job.new.body = inner.bodies.get(&id).cloned().unwrap_or_default();
                job
            }
            (None, Some((_, job, _))) => job.clone(),
            (None, None) => return Ok(None),
        };
        Ok(Some(job).filter(|job| owner.owns(&job.new.account)))
    }

    async fn account(&self, id: JobId) -> Result<Option<Account>, QueueError> {
        let inner = self.open()?;
        let live = inner.live.machine.get(id).map(|record| &record.job);
        let ended = inner.finished.get(&id).map(|(_, job, _)| job);
        Ok(live.or(ended).map(|job| job.new.account.clone()))
    }

    async fn list(&self, owner: Owner<'_>, limit: usize) -> Result<Vec<Job>, QueueError> {
        let inner = self.open()?;
        let jobs = inner.jobs().into_iter().rev().map(|(_, job)| job);
        let owned = jobs.filter(|job| owner.owns(&job.new.account));
        Ok(owned.take(limit).map(without_body).collect())
    }

    async fn attended(&self) -> Result<Vec<Job>, QueueError> {
        let inner = self.open()?;
        let jobs = inner.jobs().into_iter().map(|(_, job)| job);
        let attended = jobs.filter(|job| job.new.attended && !job.state.is_final());
        Ok(attended.map(without_body).collect())
    }

    async fn log(
        &self,
        owner: Owner<'_>,
        id: JobId,
    ) -> Result<Option<Arc<dyn JobLog>>, QueueError> {
        let mut inner = self.open()?;
        let log = match inner.finished.get(&id) {
            Some((_, job, _)) if job.is_erased && owner.owns(&job.new.account) => {
                return Err(QueueError::Erased(id));
            }
            Some((_, job, log)) => Some(log.clone()).filter(|_| owner.owns(&job.new.account)),
            None => inner.live.log(owner, id),
        };
        Ok(log.map(|log| log as Arc<dyn JobLog>))
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.inner().live.observed_by(observer);
    }

    fn fetched(&self, now: Timestamp, id: JobId) {
        let mut inner = self.inner();
        let ended = inner.finished.get(&id);
        if ended.is_some_and(|(_, job, _)| QueueLimits::is_erased_early(job)) {
            inner.fetched.entry(id).or_insert(now);
        }
    }

    async fn reap(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        self.change(|inner| {
            let steps = inner.live.machine.reap(now);
            inner.store(steps);
            let erase = inner.erase();
            let next = [inner.live.machine.next_reap(), erase];
            Ok(next.into_iter().flatten().min())
        })
    }

    fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    fn position(
        &self,
        now: Timestamp,
        id: JobId,
        serve: &Serve,
        models: &Models,
    ) -> Option<QueuePosition> {
        self.inner().live.position(now, id, serve, models)
    }

    fn waiting(&self, query: &LeaseQuery, most: usize) -> usize {
        self.inner().live.machine.waiting(query, most)
    }

    fn moves(&self) -> watch::Receiver<u64> {
        self.inner().live.moves()
    }

    fn overview(&self) -> Overview {
        self.inner().live.overview()
    }

    fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        self.inner().live.minutes(now)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner().live.changes()
    }

    fn counts(&self) -> QueueCounts {
        self.inner().live.machine.counts()
    }

    fn longest(&self) -> usize {
        self.inner().live.machine.longest()
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.inner().closed = true;
        Ok(())
    }
}
