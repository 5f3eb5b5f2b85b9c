//! A store that tests can block or make fail.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::{Account, Body, End, JobError, JobId, JobState, LeaseToken, Timestamp, worker::Retry};
use queue::{
    BatchRecord, Batches, Claim, DeliveryOutcome, DueWebhooks, Extended, Extras, FileRecord, Job,
    JobFilter, JobLog, JobPage, KeyRecord, Keys, Lease, LeaseQuery, LineResult, MemoryQueue,
    Minute, Models, NewJob, NewQuery, NewUser, Overview, Owner, Queries, Query, QueryId, QueryLog,
    Queue, QueueCounts, QueueError, QueuePosition, Renewal, Renewed, ResultFile, Serve, Session,
    SessionId, Sessions, Submissions, Submitted, User, UserChange, UserId, Users, Webhook,
    Webhooks,
};
use tokio::sync::{Semaphore, watch};

/// A call that goes wrong, by the name of its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Panics(&'static str),
    Fails(&'static str),
}

/// A store that tests can block: each lease and each end waits for a permit. Reads fail while
/// `is_blind` is set, and hang while `is_stuck` is set.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) inner: Arc<MemoryQueue>,
    pub(crate) lending: Semaphore,
    pub(crate) ending: Semaphore,
    /// Each erasure of a file waits for a permit; there are many at first.
    pub(crate) erasing: Semaphore,
    /// Submissions, queries and cancellations are written in order, each with the only permit.
    pub(crate) writing: Arc<Semaphore>,
    pub(crate) is_blind: AtomicBool,
    pub(crate) is_stuck: AtomicBool,
    /// Calls that go wrong, in this order: the next one of each named method that asks for it.
    pub(crate) faults: Mutex<VecDeque<Fault>>,
}

impl Gated {
    pub(crate) fn new(lending: usize, ending: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::default(),
            lending: Semaphore::new(lending),
            ending: Semaphore::new(ending),
            erasing: Semaphore::new(Semaphore::MAX_PERMITS),
            writing: Arc::new(Semaphore::new(1)),
            is_blind: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            faults: Mutex::default(),
        })
    }

    fn may_break(&self, at: &'static str) {
        assert!(!self.is_next(Fault::Panics(at)), "as planned");
    }

    fn is_next(&self, fault: Fault) -> bool {
        let mut faults = self.faults.lock();
        faults.pop_front_if(|next| *next == fault).is_some()
    }

    async fn look(&self) -> Result<(), QueueError> {
        if self.is_stuck.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.is_blind.load(Ordering::SeqCst) {
            Err(QueueError::closed())
        } else {
            Ok(())
        }
    }
}

impl Gated {
    /// Writes when it is this write's turn, also if the caller does not wait for it any more.
    async fn write<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let writing = self.writing.clone();
        let written = tokio::spawn(async move {
            let _turn = writing.acquire().await.unwrap();
            work.await
        });
        written.await.unwrap()
    }
}

async fn pass(gate: &Semaphore) {
    gate.acquire().await.unwrap().forget();
}

#[async_trait]
impl Queue for Gated {
    async fn lease_many(
        &self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Lease>, QueueError> {
        if self.inner.counts().queued > 0 {
            pass(&self.lending).await;
        }
        self.inner.lease_many(now, query, length, max).await
    }

    async fn complete(
        &self,
        now: Timestamp,
        token: LeaseToken,
        lines: u64,
        end: End,
    ) -> Result<(), QueueError> {
        pass(&self.ending).await;
        self.inner.complete(now, token, lines, end).await
    }

    async fn enqueue(&self, now: Timestamp, job: NewJob) -> Result<(), QueueError> {
        self.inner.enqueue(now, job).await
    }

    async fn extend(
        &self,
        now: Timestamp,
        token: LeaseToken,
        length: Duration,
    ) -> Result<Extended, QueueError> {
        self.inner.extend(now, token, length).await
    }

    async fn append(
        &self,
        now: Timestamp,
        token: LeaseToken,
        first: u64,
        lines: Vec<Bytes>,
    ) -> Result<u64, QueueError> {
        self.inner.append(now, token, first, lines).await
    }

    async fn stored(&self, token: LeaseToken) -> Result<u64, QueueError> {
        self.inner.stored(token).await
    }

    async fn nack(
        &self,
        now: Timestamp,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<(), QueueError> {
        self.inner.nack(now, token, retry, why).await
    }

    async fn cancel(&self, now: Timestamp, owner: Owner<'_>, id: JobId) -> Result<(), QueueError> {
        let _turn = self.writing.acquire().await.unwrap();
        if self.is_next(Fault::Fails("cancel")) {
            return Err(QueueError::closed());
        }
        self.may_break("cancel");
        self.inner.cancel(now, owner, id).await
    }

    async fn cancelled(&self, token: LeaseToken) {
        self.inner.cancelled(token).await;
    }

    async fn get(&self, owner: Owner<'_>, id: JobId) -> Result<Option<Job>, QueueError> {
        self.look().await?;
        self.inner.get(owner, id).await
    }

    async fn account(&self, id: JobId) -> Result<Option<Account>, QueueError> {
        self.inner.account(id).await
    }

    async fn list(&self, owner: Owner<'_>, limit: usize) -> Result<Vec<Job>, QueueError> {
        self.inner.list(owner, limit).await
    }

    async fn attended(&self) -> Result<Vec<Job>, QueueError> {
        self.inner.attended().await
    }

    async fn log(
        &self,
        owner: Owner<'_>,
        id: JobId,
    ) -> Result<Option<Arc<dyn JobLog>>, QueueError> {
        self.may_break("log");
        self.inner.log(owner, id).await
    }

    fn observe(&self, observer: Arc<dyn queue::Observer>) {
        self.inner.observe(observer);
    }

    fn fetched(&self, now: Timestamp, id: JobId) {
        self.inner.fetched(now, id);
    }

    async fn reap(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        self.inner.reap(now).await
    }

    fn arrivals(&self) -> watch::Receiver<u64> {
        self.inner.arrivals()
    }

    fn position(
        &self,
        now: Timestamp,
        id: JobId,
        serve: &Serve,
        models: &Models,
    ) -> Option<QueuePosition> {
        self.inner.position(now, id, serve, models)
    }

    fn waiting(&self, query: &LeaseQuery, most: usize) -> usize {
        self.inner.waiting(query, most)
    }

    fn moves(&self) -> watch::Receiver<u64> {
        self.inner.moves()
    }

    fn overview(&self) -> Overview {
        self.inner.overview()
    }

    fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        self.inner.minutes(now)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    fn counts(&self) -> QueueCounts {
        self.inner.counts()
    }

    fn longest(&self) -> usize {
        self.inner.longest()
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.inner.close().await
    }
}

#[async_trait]
impl Keys for Gated {
    async fn create_key(&self, key: KeyRecord) -> Result<(), QueueError> {
        self.inner.create_key(key).await
    }

    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, QueueError> {
        self.inner.find_key(id).await
    }

    async fn list_keys(&self) -> Result<Vec<KeyRecord>, QueueError> {
        self.inner.list_keys().await
    }

    async fn revoke_key(&self, now: Timestamp, id_or_name: &str) -> Result<bool, QueueError> {
        self.inner.revoke_key(now, id_or_name).await
    }

    async fn note_key_used(&self, now: Timestamp, id: &str) -> Result<(), QueueError> {
        self.inner.note_key_used(now, id).await
    }
}

#[async_trait]
impl Submissions for Gated {
    async fn submit(
        &self,
        now: Timestamp,
        job: NewJob,
        extras: Extras,
    ) -> Result<Submitted, QueueError> {
        let inner = self.inner.clone();
        self.write(async move { inner.submit(now, job, extras).await })
            .await
    }

    async fn submitted(
        &self,
        account: &Account,
        key: &str,
    ) -> Result<Option<(JobId, [u8; 32])>, QueueError> {
        self.inner.submitted(account, key).await
    }

    async fn search(&self, owner: Owner<'_>, filter: &JobFilter) -> Result<JobPage, QueueError> {
        self.inner.search(owner, filter).await
    }

    async fn count_dead(&self, at_most: usize) -> Result<usize, QueueError> {
        self.inner.count_dead(at_most).await
    }
}

#[async_trait]
impl Webhooks for Gated {
    async fn webhook(&self, id: JobId) -> Result<Option<Webhook>, QueueError> {
        self.look().await?;
        self.inner.webhook(id).await
    }

    async fn due_webhooks(
        &self,
        now: Timestamp,
        limit: usize,
        of_each: usize,
    ) -> Result<DueWebhooks, QueueError> {
        self.inner.due_webhooks(now, limit, of_each).await
    }

    async fn webhook_tried(&self, id: JobId, told: DeliveryOutcome) -> Result<(), QueueError> {
        self.inner.webhook_tried(id, told).await
    }

    fn endings(&self) -> watch::Receiver<u64> {
        self.inner.endings()
    }
}

#[async_trait]
impl Sessions for Gated {
    async fn open_session(&self, now: Timestamp, session: Session) -> Result<(), QueueError> {
        self.inner.open_session(now, session).await
    }

    async fn find_session(&self, id: SessionId) -> Result<Option<Session>, QueueError> {
        self.inner.find_session(id).await
    }

    async fn renew_session(&self, id: SessionId, renewal: Renewal) -> Result<Renewed, QueueError> {
        self.inner.renew_session(id, renewal).await
    }

    async fn end_session(&self, id: SessionId) -> Result<bool, QueueError> {
        self.inner.end_session(id).await
    }
}

#[async_trait]
impl Users for Gated {
    async fn create_user(&self, user: NewUser) -> Result<UserId, QueueError> {
        self.inner.create_user(user).await
    }

    async fn find_user(&self, id: UserId) -> Result<Option<User>, QueueError> {
        self.inner.find_user(id).await
    }

    async fn find_user_named(&self, name: &str) -> Result<Option<User>, QueueError> {
        self.inner.find_user_named(name).await
    }

    async fn list_users(&self) -> Result<Vec<User>, QueueError> {
        self.inner.list_users().await
    }

    async fn remove_user(&self, name: &str) -> Result<bool, QueueError> {
        self.inner.remove_user(name).await
    }

    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool, QueueError> {
        self.inner.change_user(name, change).await
    }

    async fn logged_in(&self, now: Timestamp, id: UserId) -> Result<(), QueueError> {
        self.inner.logged_in(now, id).await
    }

    async fn log_out_all(&self, token_key: [u8; 32]) -> Result<usize, QueueError> {
        self.inner.log_out_all(token_key).await
    }

    async fn token_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], QueueError> {
        self.inner.token_key(fresh).await
    }
}

#[async_trait]
impl Batches for Gated {
    async fn put_part(&self, id: &str, n: u32, part: Bytes) -> Result<(), QueueError> {
        self.inner.put_part(id, n, part).await
    }

    async fn put_file(&self, file: FileRecord) -> Result<(), QueueError> {
        self.inner.put_file(file).await
    }

    async fn file(&self, owner: Owner<'_>, id: &str) -> Result<Option<FileRecord>, QueueError> {
        self.inner.file(owner, id).await
    }

    async fn files(&self, owner: Owner<'_>) -> Result<Vec<FileRecord>, QueueError> {
        self.inner.files(owner).await
    }

    async fn part(&self, id: &str, n: u32) -> Result<Option<Bytes>, QueueError> {
        self.inner.part(id, n).await
    }

    async fn forget_file(&self, id: &str) -> Result<(), QueueError> {
        self.inner.forget_file(id).await
    }

    async fn erase_file(&self, id: &str) -> Result<(), QueueError> {
        pass(&self.erasing).await;
        self.inner.erase_file(id).await
    }

    async fn put_batch(&self, batch: BatchRecord) -> Result<(), QueueError> {
        self.inner.put_batch(batch).await
    }

    async fn batch(&self, owner: Owner<'_>, id: &str) -> Result<Option<BatchRecord>, QueueError> {
        self.inner.batch(owner, id).await
    }

    async fn batches(&self, owner: Owner<'_>) -> Result<Vec<BatchRecord>, QueueError> {
        self.inner.batches(owner).await
    }

    async fn put_result(&self, batch: &str, result: LineResult) -> Result<(), QueueError> {
        self.may_break("put_result");
        self.inner.put_result(batch, result).await
    }

    async fn results(&self, batch: &str) -> Result<Vec<(u32, ResultFile)>, QueueError> {
        self.inner.results(batch).await
    }

    async fn next_result(
        &self,
        batch: &str,
        after: u32,
        file: ResultFile,
    ) -> Result<Option<LineResult>, QueueError> {
        self.may_break("next_result");
        self.inner.next_result(batch, after, file).await
    }

    async fn expire_files(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        self.inner.expire_files(now).await
    }
}

#[async_trait]
impl Queries for Gated {
    async fn create_query(&self, now: Timestamp, new: NewQuery) -> Result<QueryId, QueueError> {
        let inner = self.inner.clone();
        self.write(async move { inner.create_query(now, new).await })
            .await
    }

    async fn find_query(&self, owner: Owner<'_>, id: QueryId) -> Result<Option<Query>, QueueError> {
        self.look().await?;
        self.inner.find_query(owner, id).await
    }

    async fn query_of(&self, job: JobId) -> Result<Option<QueryId>, QueueError> {
        self.inner.query_of(job).await
    }

    async fn list_queries(
        &self,
        owner: Owner<'_>,
        states: &[JobState],
        skip: u64,
        limit: usize,
    ) -> Result<(u64, Vec<Query>), QueueError> {
        self.inner.list_queries(owner, states, skip, limit).await
    }

    async fn claim_query(&self, id: QueryId, claim: Claim) -> Result<(), QueueError> {
        self.inner.claim_query(id, claim).await
    }

    async fn draft_query(&self, id: QueryId, draft: Body) -> Result<(), QueueError> {
        self.inner.draft_query(id, draft).await
    }

    async fn log_query(
        &self,
        now: Timestamp,
        id: QueryId,
        text: Body,
        most: u64,
    ) -> Result<Option<QueryLog>, QueueError> {
        self.inner.log_query(now, id, text, most).await
    }

    async fn query_logs(&self, id: QueryId) -> Result<Vec<QueryLog>, QueueError> {
        self.inner.query_logs(id).await
    }

    async fn delete_query(&self, id: QueryId) -> Result<bool, QueueError> {
        self.inner.delete_query(id).await
    }
}
