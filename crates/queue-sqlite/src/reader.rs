//! Read access to the queue file: ended jobs, lists and stored logs.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use proto::{Account, EventId, JobId};
use queue::{Job, JobLog, LiveLog, LogHead, LogPage, Owner, QueueError, machine::Record};
use rusqlite::{Connection, OptionalExtension, named_params};
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};

use crate::{OpenError, error::not_read, row, schema};

/// Maximum number of threads that wait for a connection; further readers wait without a thread.
const WAITING_MAX: usize = 32;

/// A pool of read connections. They always see the last commit.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pool: Arc<Pool>,
    waiting: Arc<Semaphore>,
}

/// The idle connections. Threads hand connections to each other directly; a task that received one
/// would leave it idle until the task is scheduled, which takes long under overload.
#[derive(Debug)]
struct Pool {
    free: Mutex<Vec<Connection>>,
    returned: Condvar,
}

/// A connection in use. Dropping it returns the connection to the pool.
struct Borrowed<'a> {
    conn: Option<Connection>,
    pool: &'a Pool,
}

impl Pool {
    fn borrow(&self) -> Borrowed<'_> {
        let mut free = self.free.lock();
        loop {
            let Some(conn) = free.pop() else {
                self.returned.wait(&mut free);
                continue;
            };
            return Borrowed {
                conn: Some(conn),
                pool: self,
            };
        }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.pool.free.lock().extend(self.conn.take());
        self.pool.returned.notify_one();
    }
}

impl Reader {
    /// Opens the file with `readers` connections.
    pub(crate) fn open(path: &Path, readers: usize) -> Result<Self, OpenError> {
        let free: Result<Vec<_>, _> = (0..readers).map(|_| schema::open_reader(path)).collect();
        let pool = Pool {
            free: Mutex::new(free?),
            returned: Condvar::new(),
        };
        Ok(Self {
            pool: Arc::new(pool),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        })
    }

    /// Runs a read on a blocking thread, away from the threads that stream tokens.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let place = self.waiting.clone().acquire_owned().await;
        let place = place.map_err(|_| QueueError::closed())?;
        let pool = self.pool.clone();
        let done = spawn_blocking(move || {
            let _place = place;
            let borrowed = pool.borrow();
            borrowed.conn.as_ref().map(read)
        });
        match done.await {
            Ok(Some(answer)) => answer.map_err(not_read),
            Ok(None) | Err(_) => Err(QueueError::closed()),
        }
    }

    /// Reads a job with its body; `seq` is its number if it is unfinished.
    pub(crate) async fn job(&self, id: JobId, seq: Option<u64>) -> Result<Option<Job>, QueueError> {
        self.read(move |conn| {
            // One transaction, so that the job is not erased between the two reads.
            let tx = conn.unchecked_transaction()?;
            let found = match seq {
                Some(seq) => row::find(&tx, seq, id)?,
                None => row::find_ended(&tx, id)?,
            };
            let Some(record) = found else {
                return Ok(None);
            };
            let mut job = record.job;
            if !job.is_erased {
                job.new.body = row::body(&tx, record.seq)?.into();
            }
            Ok(Some(job))
        })
        .await
    }

    /// Reads an ended job without its body.
    pub(crate) async fn ended(&self, id: JobId) -> Result<Option<Record>, QueueError> {
        self.read(move |conn| row::find_ended(conn, id)).await
    }

    /// Lists jobs, see [`queue::Queue::list`].
    pub(crate) async fn list(
        &self,
        owner: Owner<'_>,
        limit: usize,
    ) -> Result<Vec<Job>, QueueError> {
        let account: Option<Account> = match owner {
            Owner::Account(account) => Some(account.clone()),
            Owner::Anyone => None,
        };
        let limit = row::number(limit as u64);
        self.read(move |conn| {
            let mut select = conn.prepare_cached(if account.is_some() {
                concat!(
                    "SELECT ",
                    row::columns!(),
                    " FROM jobs WHERE account = :account ORDER BY seq DESC LIMIT :limit"
                )
            } else {
                concat!(
                    "SELECT ",
                    row::columns!(),
                    " FROM jobs WHERE :account IS NULL ORDER BY seq DESC LIMIT :limit"
                )
            })?;
            let account = account.as_ref().map(Account::as_str);
            let params = named_params! { ":account": account, ":limit": limit };
            select
                .query_map(params, |row| Ok(row::record(row)?.job))?
                .collect()
        })
        .await
    }

    /// Opens the log of an ended job, if it exists and belongs to `owner`.
    pub(crate) async fn log(
        &self,
        owner: Owner<'_>,
        id: JobId,
    ) -> Result<Option<StoredLog>, QueueError> {
        let found = self
            .read(move |conn| {
                // One transaction, so that the job is not erased between the two reads.
                let tx = conn.unchecked_transaction()?;
                let Some(ended) = row::find_ended(&tx, id)? else {
                    return Ok(None);
                };
                let mut select = tx
                    .prepare_cached("SELECT n FROM lines WHERE seq = ?1 ORDER BY n DESC LIMIT 1")?;
                let n = select
                    .query_row([row::number(ended.seq)], |row| row::count(row, "n"))
                    .optional()?;
                Ok(Some((ended, n)))
            })
            .await?;
        let Some((ended, n)) =
            found.filter(|(ended, _)| ended.end().is_some() && owner.owns(&ended.job.new.account))
        else {
            return Ok(None);
        };
        if ended.job.is_erased {
            return Err(QueueError::Erased(id));
        }
        let last = EventId {
            attempt: ended.job.attempt,
            n: n.unwrap_or(0),
        };
        let head = watch::Sender::new(LogHead {
            last,
            released: false,
            end: ended.end(),
        });
        Ok(Some(StoredLog {
            reader: self.clone(),
            id,
            seq: row::number(ended.seq),
            head,
        }))
    }
}

/// The log of a job that was unfinished when it was opened: read from memory while it is there, and
/// from disk after the lines were dropped from memory.
#[derive(Debug)]
pub(crate) struct FollowedLog {
    id: JobId,
    live: Arc<LiveLog>,
    reader: Reader,
}

impl FollowedLog {
    pub(crate) const fn new(id: JobId, live: Arc<LiveLog>, reader: Reader) -> Self {
        Self { id, live, reader }
    }
}

#[async_trait]
impl JobLog for FollowedLog {
    fn head(&self) -> watch::Receiver<LogHead> {
        self.live.head()
    }

    async fn read(&self, after: EventId, max_bytes: usize) -> Result<LogPage, QueueError> {
        if let Some(page) = self.live.page(after, max_bytes) {
            return Ok(page);
        }
        // The owner was checked when the log was opened.
        let stored = self.reader.log(Owner::Anyone, self.id).await?;
        let stored = stored.ok_or(QueueError::Erased(self.id))?;
        stored.read(after, max_bytes).await
    }
}

/// The log of an ended job, read from disk page by page.
#[derive(Debug)]
pub(crate) struct StoredLog {
    reader: Reader,
    id: JobId,
    seq: i64,
    head: watch::Sender<LogHead>,
}

#[async_trait]
impl JobLog for StoredLog {
    fn head(&self) -> watch::Receiver<LogHead> {
        self.head.subscribe()
    }

    async fn read(&self, after: EventId, max_bytes: usize) -> Result<LogPage, QueueError> {
        let LogHead { last, end, .. } = self.head.borrow().clone();
        let (restarted, from) = LogPage::starts(after, last.attempt);
        let seq = self.seq;
        let mut page = LogPage {
            attempt: last.attempt,
            restarted,
            ..LogPage::default()
        };
        page = self
            .reader
            .read(move |conn| {
                let mut select = conn.prepare_cached(
                    "SELECT n, line FROM lines WHERE seq = ?1 AND n > ?2 ORDER BY n",
                )?;
                let lines = select.query_map((seq, row::number(from)), |row| {
                    Ok((
                        row::count(row, "n")?,
                        Bytes::from(row.get::<_, Vec<u8>>("line")?),
                    ))
                })?;
                page.try_fill(lines, max_bytes)?;
                Ok(page)
            })
            .await?;
        let reached = page.chunks.last().map_or(from, |chunk| chunk.n);
        if page.chunks.is_empty() && reached < last.n {
            // The job was erased, and nothing more will come.
            return Err(QueueError::Erased(self.id));
        }
        page.end = end.filter(|_| reached >= last.n);
        Ok(page)
    }
}
