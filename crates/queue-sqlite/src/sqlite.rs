//! [`SqliteQueue`]: opening the file, and access to the writer and the readers.

mod jobs;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use parking_lot::Mutex;
use proto::{JobId, Timestamp};
use queue::{Live, NewJob, Queue, QueueError, QueueLimits};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::{
    OpenError, SqliteKeys,
    erasure::{self, Cutter, Fetched},
    error::{Fault, NotWritten},
    files::{self, Lock},
    group::{Ask, Group},
    inbox::Inbox,
    pieces,
    reader::Reader,
    reserve::{self, RESERVE, Reserve},
    restart, schema,
    writer::Writer,
};

/// Number of connections for reads of single jobs, and as many again for lists.
pub(crate) const READERS: usize = 2;

/// A durable queue in one file, for one relay. Other processes may change keys meanwhile, see
/// [`SqliteKeys`].
pub struct SqliteQueue {
    path: PathBuf,
    pub(crate) shared: Arc<Shared>,
    arrivals: watch::Sender<u64>,
    pub(crate) endings: watch::Sender<u64>,
    /// Connections for one job, found by its number or its id.
    pub(crate) reader: Reader,
    /// Connections for lists, so that long lists do not delay reads of single jobs.
    pub(crate) lists: Reader,
    pub(crate) keys: SqliteKeys,
    /// Held while a group erases pieces, so that each group erases those of one caller only.
    pub(crate) erasing: tokio::sync::Mutex<()>,
    writer: Mutex<Option<JoinHandle<Result<(), NotWritten>>>>,
}

/// State shared by callers and the writer thread.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) live: Mutex<Live>,
    pub(crate) inbox: Inbox,
    pub(crate) fetched: Fetched,
    pub(crate) failure: watch::Sender<Option<NotWritten>>,
}

impl Shared {
    /// Has the writer make a decision; returns after the COMMIT.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        decide: impl FnMut(&mut Group<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (told, answer) = oneshot::channel();
        self.inbox.ask(Ask::new(decide, told)).await?;
        answer
            .await
            .unwrap_or_else(|_| Err(QueueError::unconfirmed()))
    }

    /// Schedules another attempt for lines that were not written.
    pub(crate) fn retry_lines(&self) {
        if self.live.lock().has_unstored() {
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
    /// Opens the queue; creates the file and its directory if they do not exist. Live leases get
    /// [`proto::limits::RESTART_GRACE`] from `now`.
    ///
    /// # Errors
    /// [`QueueError::Store`] with an [`OpenError`]: another relay has the file open, it was written
    /// by a newer version, it is damaged, or it cannot be read or written.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, QueueError> {
        Self::open_limited(path, now, QueueLimits::default())
    }

    /// Opens the queue with the given limits.
    ///
    /// # Errors
    /// As [`SqliteQueue::open`].
    pub fn open_limited(
        path: &Path,
        now: Timestamp,
        limits: QueueLimits,
    ) -> Result<Self, QueueError> {
        Self::open_with(path, now, limits, RESERVE, |_| ())
    }

    /// Opens the queue with a prepared writer connection, on which tests observe commits.
    pub(crate) fn open_with(
        path: &Path,
        now: Timestamp,
        limits: QueueLimits,
        reserve: u64,
        prepare: impl FnOnce(&mut Connection),
    ) -> Result<Self, QueueError> {
        files::make(path)?;
        let path = &*files::real(path)?;
        let lock = Lock::take(path)?;
        let mut conn = match open_file(path, &lock) {
            Err(error) if error.wants_room() && reserve::give_before_start(path) => {
                open_file(path, &lock)
            }
            opened => opened,
        }?;
        prepare(&mut conn);
        let live =
            restart::load(&conn, limits, now).map_err(|error| schema::explain(path, error))?;
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
            erasing: tokio::sync::Mutex::default(),
            writer,
        })
    }

    /// Has the writer make a decision, see [`Shared::ask`].
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        decide: impl FnMut(&mut Group<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.shared.ask(decide).await
    }

    /// Has the writer make a decision; fails at once if its inbox is full.
    pub(crate) async fn try_ask<T: Send + 'static>(
        &self,
        decide: impl FnMut(&mut Group<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (told, answer) = oneshot::channel();
        self.shared.inbox.try_ask(Ask::new(decide, told))?;
        answer
            .await
            .unwrap_or_else(|_| Err(QueueError::unconfirmed()))
    }

    pub(crate) fn check_open(&self) -> Result<(), QueueError> {
        if self.shared.inbox.is_closed() {
            Err(QueueError::closed())
        } else {
            Ok(())
        }
    }

    /// Refuses a job for which there is no room now. Under overload these are most jobs, and the
    /// writer should not have to decide about them.
    pub(crate) fn check_room(&self, job: &NewJob) -> Result<(), QueueError> {
        self.check_open()?;
        match self.shared.live.try_lock() {
            Some(live) => live.machine.check_room(job),
            // The lock is held while a group is settled; the writer then decides.
            None => Ok(()),
        }
    }

    /// Replaces the error of a job that has ended: its lease is stale, not unknown.
    async fn over<T>(&self, answer: Result<T, QueueError>) -> Result<T, QueueError> {
        match answer {
            Err(QueueError::UnknownJob(id)) if self.reader.ended(id).await?.is_some() => {
                Err(QueueError::StaleLease(id))
            }
            answer => answer,
        }
    }

    /// Returns the number of an unfinished job.
    pub(crate) fn unfinished(&self, id: JobId) -> Option<u64> {
        let live = self.shared.live.lock();
        live.machine.get(id).map(|record| record.seq)
    }

    fn take_writer(&self) -> Option<JoinHandle<Result<(), NotWritten>>> {
        self.shared.inbox.close();
        self.writer.lock().take()
    }
}

/// Opens and checks the queue file, and empties its log.
fn open_file(path: &Path, lock: &Lock) -> Result<Connection, OpenError> {
    let check = schema::wants_check(path);
    let conn = schema::open(path, Some(lock))?;
    if check {
        schema::check(&conn, path)?;
    }
    let tidied = pieces::remember_remains(&conn).and_then(|()| erasure::cut(&conn));
    tidied.map_err(|error| schema::explain(path, error))?;
    Ok(conn)
}

impl Drop for SqliteQueue {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.take_writer().and_then(|writer| writer.join().ok()) {
            tracing::error!(%error, "the queue was not closed cleanly");
        }
    }
}
