//! The implementation of [`queue::Queue`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use proto::{Account, End, JobError, JobId, LeaseToken, Timestamp, worker::Retry};
use queue::{
    Appended, Extended, Job, JobLog, KeyRecord, Keys, Lease, LeaseQuery, Minute, Models, NewJob,
    Observer, Overview, Owner, Queue, QueueCounts, QueueError, QueuePosition, Serve, end_too_long,
    machine::Record,
};
use tokio::sync::watch;

use super::SqliteQueue;
use crate::{error::NotWritten, reader::FollowedLog};

#[async_trait]
impl Queue for SqliteQueue {
    async fn enqueue(&self, now: Timestamp, job: NewJob) -> Result<(), QueueError> {
        self.check_room(&job)?;
        self.try_ask(move |group| group.enqueue(now, &job).map(drop))
            .await
    }

    async fn lease_many(
        &self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Lease>, QueueError> {
        // Many workers check each new job; only those that may lease it reach the writer.
        if !self.shared.live.lock().machine.may_lend(now, query) {
            return self.check_open().map(|()| Vec::new());
        }
        let query = query.clone();
        self.ask(move |group| group.lease_many(now, &query, length, max))
            .await
    }

    async fn extend(
        &self,
        now: Timestamp,
        token: LeaseToken,
        length: Duration,
    ) -> Result<Extended, QueueError> {
        self.check_open()?;
        let (extended, news) = {
            let mut live = self.shared.live.lock();
            (live.extend(now, token, length), live.news())
        };
        if news {
            self.arrivals.send_modify(|count| *count += 1);
        }
        self.over(extended).await
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
            self.check_open()?;
            let (appended, unstored) = {
                let mut live = self.shared.live.lock();
                let appended = live.append(now, token, first, lines.clone());
                (appended, live.has_unstored())
            };
            if unstored {
                self.shared.inbox.lines();
            }
            match self.over(appended).await? {
                Appended::Stored(n) => return Ok(n),
                Appended::TooLong(longest) => {
                    // Ending another job makes room once; if that is not enough, this job must end.
                    let lease = if tried { token } else { longest };
                    end_too_long(self, now, lease).await?;
                    tried = true;
                }
            }
        }
    }

    async fn stored(&self, token: LeaseToken) -> Result<u64, QueueError> {
        self.check_open()?;
        let log = self.shared.live.lock().held_log(token);
        Ok(self.over(log).await?.stored())
    }

    async fn complete(
        &self,
        now: Timestamp,
        token: LeaseToken,
        lines: u64,
        end: End,
    ) -> Result<(), QueueError> {
        self.ask(move |group| group.complete(now, token, lines, &end))
            .await
    }

    async fn nack(
        &self,
        now: Timestamp,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<(), QueueError> {
        self.ask(move |group| group.nack(now, token, retry, why.clone()))
            .await
    }

    async fn cancel(&self, now: Timestamp, owner: Owner<'_>, id: JobId) -> Result<(), QueueError> {
        let owner: Option<Account> = match owner {
            Owner::Account(account) => Some(account.clone()),
            Owner::Anyone => None,
        };
        self.ask(move |group| group.cancel(now, owner.as_ref(), id))
            .await
    }

    async fn cancelled(&self, token: LeaseToken) {
        let lease_holder = self.shared.live.lock().lease_holder(token);
        if let Some(mut lease_holder) = lease_holder {
            // An error means that the job, and with it the lease, is gone.
            let _ = lease_holder
                .wait_for(|lease_holder| lease_holder.stops(token.attempt))
                .await;
        }
    }

    async fn get(&self, owner: Owner<'_>, id: JobId) -> Result<Option<Job>, QueueError> {
        self.check_open()?;
        let seq = self.unfinished(id);
        let job = self.reader.job(id, seq).await?;
        Ok(job.filter(|job| owner.owns(&job.new.account)))
    }

    async fn account(&self, id: JobId) -> Result<Option<Account>, QueueError> {
        self.check_open()?;
        let account = |record: &Record| record.job.new.account.clone();
        let live = self.shared.live.lock().machine.get(id).map(account);
        match live {
            Some(account) => Ok(Some(account)),
            None => Ok(self.reader.ended(id).await?.as_ref().map(account)),
        }
    }

    async fn list(&self, owner: Owner<'_>, limit: usize) -> Result<Vec<Job>, QueueError> {
        self.check_open()?;
        self.lists.list(owner, limit).await
    }

    async fn attended(&self) -> Result<Vec<Job>, QueueError> {
        self.check_open()?;
        let live = self.shared.live.lock();
        let unfinished = live
            .machine
            .records()
            .filter(|record| !record.job.state.is_final());
        let mut attended: Vec<_> = unfinished
            .filter(|record| record.job.new.attended)
            .collect();
        attended.sort_by_key(|record| record.seq);
        Ok(attended
            .into_iter()
            .map(|record| record.job.clone())
            .collect())
    }

    async fn log(
        &self,
        owner: Owner<'_>,
        id: JobId,
    ) -> Result<Option<Arc<dyn JobLog>>, QueueError> {
        self.check_open()?;
        let live = self.shared.live.lock().log(owner, id);
        if let Some(live) = live {
            let reader = self.reader.clone();
            return Ok(Some(Arc::new(FollowedLog::new(id, live, reader))));
        }
        let log = self.reader.log(owner, id).await?;
        Ok(log.map(|log| Arc::new(log) as Arc<dyn JobLog>))
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared.live.lock().observed_by(observer);
    }

    fn fetched(&self, now: Timestamp, id: JobId) {
        self.shared.fetched.note(now, id);
        self.shared.inbox.notes();
    }

    async fn reap(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        let (next, erase) = self.ask(move |group| group.reap(now)).await?;
        let clock = self.shared.live.lock().machine.now();
        // In a separate group, so that the decisions stand even if there is no space to erase.
        let erase = match erase.filter(|at| *at <= clock) {
            Some(_) => self.ask(|group| group.erase()).await?,
            None => erase,
        };
        Ok([next, erase].into_iter().flatten().min())
    }

    async fn failure(&self) -> QueueError {
        let mut failure = self.shared.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        match failed.ok().and_then(|failed| failed.clone()) {
            Some(failed) => failed.into(),
            None => QueueError::closed(),
        }
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
        self.shared.live.lock().position(now, id, serve, models)
    }

    fn waiting(&self, query: &LeaseQuery, most: usize) -> usize {
        self.shared.live.lock().machine.waiting(query, most)
    }

    fn moves(&self) -> watch::Receiver<u64> {
        self.shared.live.lock().moves()
    }

    fn overview(&self) -> Overview {
        self.shared.live.lock().overview()
    }

    fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        self.shared.live.lock().minutes(now)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.live.lock().changes()
    }

    fn counts(&self) -> QueueCounts {
        self.shared.live.lock().machine.counts()
    }

    fn longest(&self) -> usize {
        self.shared.live.lock().machine.longest()
    }

    async fn close(&self) -> Result<(), QueueError> {
        let Some(writer) = self.take_writer() else {
            return Ok(());
        };
        let joined = tokio::task::spawn_blocking(move || writer.join()).await;
        match joined {
            Ok(Ok(closed)) => Ok(closed?),
            Ok(Err(_)) | Err(_) => Err(NotWritten::broke_down().into()),
        }
    }
}

#[async_trait]
impl Keys for SqliteQueue {
    async fn create_key(&self, key: KeyRecord) -> Result<(), QueueError> {
        self.keys.create_key(key).await
    }

    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, QueueError> {
        self.keys.find_key(id).await
    }

    async fn list_keys(&self) -> Result<Vec<KeyRecord>, QueueError> {
        self.keys.list_keys().await
    }

    async fn revoke_key(&self, now: Timestamp, id_or_name: &str) -> Result<bool, QueueError> {
        self.keys.revoke_key(now, id_or_name).await
    }

    async fn note_key_used(&self, now: Timestamp, id: &str) -> Result<(), QueueError> {
        self.keys.note_key_used(now, id).await
    }
}
