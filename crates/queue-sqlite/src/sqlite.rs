use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use proto::{Account, End, JobError, JobId, LeaseToken, Timestamp, worker::Retry};
use queue::{
    Appended, Job, JobLog, KeyRecord, Keys, Lease, LeaseQuery, Leased, Live, Minute, Models,
    NewJob, Observer, Overview, Owner, Place, Queue, QueueCounts, QueueError, Serve, Terms,
    end_too_long, machine::Record,
};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::{
    OpenError, SqliteKeys,
    erasure::{self, Cutter, Fetched},
    error::{Fault, NotWritten},
    files::{self, Lock},
    group::{Ask, Group, lock},
    inbox::Inbox,
    reader::{FollowedLog, Reader},
    reserve::{RESERVE, Reserve},
    restart, schema,
    writer::Writer,
};

/// How many may look at once, and how many may list.
pub(crate) const READERS: usize = 2;

/// A durable queue in one file, for one relay. Keys may be changed from other processes
/// meanwhile, see [`SqliteKeys`].
pub struct SqliteQueue {
    path: PathBuf,
    pub(crate) shared: Arc<Shared>,
    arrivals: watch::Sender<u64>,
    pub(crate) endings: watch::Sender<u64>,
    /// For one job, found by its number or its id.
    pub(crate) reader: Reader,
    /// For what looks at many: nobody's lists keep others from their answers.
    pub(crate) lists: Reader,
    pub(crate) keys: SqliteKeys,
    writer: Mutex<Option<JoinHandle<Result<(), NotWritten>>>>,
}

/// What callers and the writer thread have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) live: Mutex<Live>,
    pub(crate) inbox: Inbox,
    pub(crate) fetched: Fetched,
    pub(crate) failure: watch::Sender<Option<NotWritten>>,
}

impl Shared {
    /// Has the writer decide something; answers after the COMMIT.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        decide: impl FnMut(&mut Group<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (told, answer) = oneshot::channel();
        self.inbox.ask(Ask::new(decide, told)).await?;
        answer.await.unwrap_or_else(|_| Err(QueueError::closed()))
    }

    /// Lines that were not written shall be tried again.
    pub(crate) fn retry_lines(&self) {
        if lock(&self.live).has_unstored() {
            self.inbox.lines_again();
        }
    }
}

impl fmt::Debug for SqliteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SqliteQueue");
        out.field("path", &self.path)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl SqliteQueue {
    /// Opens the queue, making the file (and its folder) if it is not there. Leases that were
    /// alive get [`proto::limits::RESTART_GRACE`] from `now`.
    ///
    /// # Errors
    /// [`QueueError::Store`] with an [`OpenError`]: another relay holds the file, it was written
    /// by another version, it is damaged, or it cannot be read or written.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, QueueError> {
        Self::open_on(path, now, Terms::default())
    }

    /// The same, on terms of one's own.
    ///
    /// # Errors
    /// As [`SqliteQueue::open`].
    pub fn open_on(path: &Path, now: Timestamp, terms: Terms) -> Result<Self, QueueError> {
        Self::open_with(path, now, terms, RESERVE, |_| ())
    }

    /// Opens the queue with a writer's connection that was prepared; tests watch its commits.
    pub(crate) fn open_with(
        path: &Path,
        now: Timestamp,
        terms: Terms,
        reserve: u64,
        prepare: impl FnOnce(&mut Connection),
    ) -> Result<Self, QueueError> {
        files::make(path)?;
        let path = &*files::real(path)?;
        let lock = Lock::take(path)?;
        let check = schema::wants_check(path);
        let mut conn = schema::open(path, Some(&lock))?;
        if check {
            schema::check(&conn, path)?;
        }
        let tidied = erasure::erase_remains(&conn).and_then(|()| erasure::cut(&conn));
        tidied.map_err(|error| schema::explain(path, error))?;
        prepare(&mut conn);
        let live =
            restart::load(&conn, terms, now).map_err(|error| schema::explain(path, error))?;
        let shared = Arc::new(Shared {
            live: Mutex::new(live),
            inbox: Inbox::new(),
            fetched: Fetched::default(),
            failure: watch::Sender::new(None),
        });
        files::remove_old_copies(path, now);
        let arrivals = watch::Sender::new(0);
        let endings = watch::Sender::new(0);
        let reader = Reader::open(path, READERS)?;
        let lists = Reader::open(path, READERS)?;
        let keys = SqliteKeys::of(path, shared.clone())?;
        let writer = Writer {
            conn,
            shared: shared.clone(),
            arrivals: arrivals.clone(),
            endings: endings.clone(),
            cutter: Cutter::default(),
            path: path.into(),
            reserve: Reserve::new(path, reserve),
            lock,
        };
        let writer = std::thread::Builder::new()
            .name("hearth-queue".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::File {
                path: path.into(),
                source,
            })?;
        let writer = Mutex::new(Some(writer));
        Ok(Self {
            path: path.into(),
            shared,
            arrivals,
            endings,
            reader,
            lists,
            keys,
            writer,
        })
    }

    /// See [`Shared::ask`].
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        decide: impl FnMut(&mut Group<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.shared.ask(decide).await
    }

    /// The same, refused at once while the disk is behind.
    pub(crate) async fn try_ask<T: Send + 'static>(
        &self,
        decide: impl FnMut(&mut Group<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (told, answer) = oneshot::channel();
        self.shared.inbox.try_ask(Ask::new(decide, told))?;
        answer.await.unwrap_or_else(|_| Err(QueueError::closed()))
    }

    pub(crate) fn open_still(&self) -> Result<(), QueueError> {
        if self.shared.inbox.is_closed() {
            Err(QueueError::closed())
        } else {
            Ok(())
        }
    }

    /// Refuses what there is no room for now: in an overload that is most of what comes, and the
    /// writer, who decides, is to hear of the rest only.
    pub(crate) fn has_room(&self, job: &NewJob) -> Result<(), QueueError> {
        self.open_still()?;
        match self.shared.live.try_lock() {
            Ok(live) => live.machine.has_room(job),
            // Who settles a group is not waited for.
            Err(_) => Ok(()),
        }
    }

    /// Tells a lease that is over apart from a job that never was.
    async fn over<T>(&self, answer: Result<T, QueueError>) -> Result<T, QueueError> {
        match answer {
            Err(QueueError::UnknownJob(id)) if self.reader.ended(id).await?.is_some() => {
                Err(QueueError::StaleLease(id))
            }
            answer => answer,
        }
    }

    /// The number of a job that has not ended.
    pub(crate) fn unfinished(&self, id: JobId) -> Option<u64> {
        let live = lock(&self.shared.live);
        live.machine.get(id).map(|record| record.seq)
    }

    fn take_writer(&self) -> Option<JoinHandle<Result<(), NotWritten>>> {
        self.shared.inbox.close();
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Drop for SqliteQueue {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.take_writer().and_then(|writer| writer.join().ok()) {
            tracing::error!(%error, "the queue was not closed cleanly");
        }
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn enqueue(&self, now: Timestamp, job: NewJob) -> Result<(), QueueError> {
        self.has_room(&job)?;
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
        // Many workers look at each job that comes; the writer is asked by those who may have it.
        if !lock(&self.shared.live).machine.may_lend(now, query) {
            return self.open_still().map(|()| Vec::new());
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
    ) -> Result<Leased, QueueError> {
        self.open_still()?;
        let (extended, news) = {
            let mut live = lock(&self.shared.live);
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
            self.open_still()?;
            let (appended, unstored) = {
                let mut live = lock(&self.shared.live);
                let appended = live.append(now, token, first, lines.clone());
                (appended, live.has_unstored())
            };
            if unstored {
                self.shared.inbox.lines();
            }
            match self.over(appended).await? {
                Appended::Stored(n) => return Ok(n),
                Appended::TooLong(longest) => {
                    // One other job makes room; after that it is this one's turn.
                    let lease = if tried { token } else { longest };
                    end_too_long(self, now, lease).await?;
                    tried = true;
                }
            }
        }
    }

    async fn stored(&self, token: LeaseToken) -> Result<u64, QueueError> {
        self.open_still()?;
        let log = lock(&self.shared.live).held_log(token);
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
        let standing = lock(&self.shared.live).standing(token);
        if let Some(mut standing) = standing {
            // An error means that the job is gone, and the lease with it.
            let _ = standing
                .wait_for(|standing| standing.stops(token.attempt))
                .await;
        }
    }

    async fn get(&self, owner: Owner<'_>, id: JobId) -> Result<Option<Job>, QueueError> {
        self.open_still()?;
        let seq = self.unfinished(id);
        let job = self.reader.job(id, seq).await?;
        Ok(job.filter(|job| owner.owns(&job.new.account)))
    }

    async fn account(&self, id: JobId) -> Result<Option<Account>, QueueError> {
        self.open_still()?;
        let account = |record: &Record| record.job.new.account.clone();
        let live = lock(&self.shared.live).machine.get(id).map(account);
        match live {
            Some(account) => Ok(Some(account)),
            None => Ok(self.reader.ended(id).await?.as_ref().map(account)),
        }
    }

    async fn list(&self, owner: Owner<'_>, limit: usize) -> Result<Vec<Job>, QueueError> {
        self.open_still()?;
        self.lists.list(owner, limit).await
    }

    async fn attended(&self) -> Result<Vec<Job>, QueueError> {
        self.open_still()?;
        let live = lock(&self.shared.live);
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
        self.open_still()?;
        let live = lock(&self.shared.live).log(owner, id);
        if let Some(live) = live {
            let reader = self.reader.clone();
            return Ok(Some(Arc::new(FollowedLog::new(id, live, reader))));
        }
        let log = self.reader.log(owner, id).await?;
        Ok(log.map(|log| Arc::new(log) as Arc<dyn JobLog>))
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        lock(&self.shared.live).observed_by(observer);
    }

    fn fetched(&self, now: Timestamp, id: JobId) {
        self.shared.fetched.note(now, id);
        self.shared.inbox.notes();
    }

    async fn reap(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        let (next, erase) = self.ask(move |group| group.reap(now)).await?;
        let clock = lock(&self.shared.live).machine.now();
        // In another group: what time has decided stands also where there is no room to erase.
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

    fn place(&self, now: Timestamp, id: JobId, serve: &Serve, models: &Models) -> Option<Place> {
        lock(&self.shared.live).place(now, id, serve, models)
    }

    fn waiting(&self, query: &LeaseQuery, most: usize) -> usize {
        lock(&self.shared.live).machine.waiting(query, most)
    }

    fn moves(&self) -> watch::Receiver<u64> {
        lock(&self.shared.live).moves()
    }

    fn overview(&self) -> Overview {
        lock(&self.shared.live).overview()
    }

    fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        lock(&self.shared.live).minutes(now)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        lock(&self.shared.live).changes()
    }

    fn counts(&self) -> QueueCounts {
        lock(&self.shared.live).machine.counts()
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
