//! The writer thread: makes the decisions of a group, commits them, and sends the results.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{JobId, Timestamp};
use rusqlite::{Connection, config::DbConfig};
use tokio::sync::watch;

use crate::{
    erasure::{self, Cutter},
    error::{Cure, NotWritten},
    files::{self, Lock},
    group::{Ask, Group},
    inbox::Batch,
    reserve::Reserve,
    schema,
    sqlite::Shared,
};

/// Interval of checks for free space while the disk is full.
const NO_ROOM_WAIT: Duration = Duration::from_secs(1);
/// Number of pages in the write-ahead log that triggers a checkpoint while the disk is full.
const FULL_PAGES: u32 = 100;

/// The writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) conn: Connection,
    pub(crate) shared: Arc<Shared>,
    pub(crate) arrivals: watch::Sender<u64>,
    pub(crate) endings: watch::Sender<u64>,
    pub(crate) cutter: Cutter,
    pub(crate) path: PathBuf,
    pub(crate) reserve: Reserve,
    /// Dropped last, so that the next relay finds everything written.
    pub(crate) lock: Lock,
}

/// Closes the inbox when the thread ends in any way, so that no caller waits for it.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.inbox.abandon();
        if std::thread::panicking() {
            let failure = Some(NotWritten::broke_down());
            self.0.failure.send_replace(failure);
        }
    }
}

impl Writer {
    /// Writes until the inbox is closed or the file can no longer be written; in the latter case
    /// returns why the last group is not on disk.
    pub(crate) fn run(self) -> Result<(), NotWritten> {
        let ended = Ended(self.shared.clone());
        if self.reserve.is_used() {
            self.save_room();
        }
        loop {
            let batch = self.shared.inbox.next();
            let is_last = batch.is_last;
            let written = self.group(batch);
            if is_last {
                drop(ended);
                return written.and_then(|()| self.checkpoint());
            }
            if let Err(error) = written
                && error.cure == Cure::Restart
            {
                return Err(self.give_up(error));
            }
        }
    }

    /// Stops after a failure that only a restart can cure. Data that was not acknowledged may be
    /// lost; the next start reads what is really on disk.
    fn give_up(&self, error: NotWritten) -> NotWritten {
        let keep_log = self
            .conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        if let Err(error) = keep_log {
            tracing::debug!(
                error = proto::causes(&error),
                "the checkpoint at close could not be prevented"
            );
        }
        self.shared.failure.send_replace(Some(error.clone()));
        error
    }

    /// Makes the decisions, commits them, and only then sends the results.
    fn group(&self, Batch { mut asks, is_last }: Batch) -> Result<(), NotWritten> {
        let fetched = self.shared.fetched.take();
        self.look_for_room();
        let is_full = self.is_full();
        let mut written = self.attempt(&fetched, &mut asks, is_last, is_full);
        if written
            .as_ref()
            .is_err_and(|error| error.cure == Cure::Room)
        {
            let given = self.reserve.give(Instant::now());
            if given {
                self.save_room();
            }
            // Running jobs must not fail together with new ones.
            if given || !is_full {
                written = self.attempt(&fetched, &mut asks, is_last, true);
            }
        }
        if let Err(error) = &written {
            tracing::error!(%error, asked = asks.len(), "a group could not be written");
            for (id, at) in fetched {
                self.shared.fetched.note(at, id);
            }
            if !is_last {
                self.shared.retry_lines();
            }
        }
        if self.shared.live.lock().news() {
            self.arrivals.send_modify(|count| *count += 1);
        }
        let tell = |asks: VecDeque<Ask>| {
            asks.into_iter().for_each(|ask| ask.tell(written.clone()));
        };
        // Callers that erased something get their result after the log is truncated, the others at
        // once.
        let (erasing, others) = asks.into_iter().partition(Ask::has_erased);
        tell(others);
        let again = [
            self.cutter.cut(&self.conn, Instant::now()),
            self.reserve.is_used().then_some(NO_ROOM_WAIT),
        ];
        if let Some(wait) = again.into_iter().flatten().min() {
            self.shared.inbox.within(wait);
        }
        tell(erasing);
        written
    }

    /// Attempts one transaction, which is committed or rolled back.
    fn attempt(
        &self,
        fetched: &HashMap<JobId, Timestamp>,
        asks: &mut VecDeque<Ask>,
        is_last: bool,
        is_full: bool,
    ) -> Result<(), NotWritten> {
        let mut group = Group::new(&self.conn, &self.shared.live, is_full);
        let written = self.write(&mut group, fetched, asks, is_last);
        match written.and_then(|()| self.commit()) {
            Ok(took) => {
                let observer = self.shared.live.lock().observer();
                if let Some(observer) = observer {
                    observer.committed(took, asks.len());
                }
                if group.has_erased() {
                    self.cutter.note();
                    let now = self.shared.live.lock().machine.now();
                    files::remove_old_copies(&self.path, now);
                }
                if group.settle() {
                    self.endings.send_modify(|count| *count += 1);
                }
                Ok(())
            }
            Err(error) => {
                if !self.conn.is_autocommit()
                    && let Err(error) = self.conn.execute_batch("ROLLBACK")
                {
                    tracing::error!(
                        error = proto::causes(&error),
                        "the failed group could not be rolled back"
                    );
                }
                group.undo();
                Err(error.into())
            }
        }
    }

    fn write(
        &self,
        group: &mut Group<'_>,
        fetched: &HashMap<JobId, Timestamp>,
        asks: &mut VecDeque<Ask>,
        is_last: bool,
    ) -> rusqlite::Result<()> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        erasure::note(&self.conn, fetched)?;
        // After a failure nothing more is written, because SQLite may have left the transaction.
        asks.iter_mut().try_for_each(|ask| ask.decide(group))?;
        group.store_lines()?;
        if is_last {
            group.store_leases()?;
        }
        Ok(())
    }

    /// Commits; everything is on disk when this returns. Returns the time the commit took.
    fn commit(&self) -> rusqlite::Result<Duration> {
        let begun = Instant::now();
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(begun.elapsed())
    }

    /// Keeps the write-ahead log as short as possible while the disk is full.
    fn save_room(&self) {
        let saved = erasure::cut(&self.conn).and_then(|_| self.checkpoint_every(FULL_PAGES));
        if let Err(error) = saved {
            tracing::warn!(
                error = proto::causes(&error),
                "the write-ahead log could not be shortened"
            );
        }
    }

    /// Whether only running jobs may write. Space freed by erasure stays in the file, where new
    /// jobs can use it.
    fn is_full(&self) -> bool {
        let pragma = |name| {
            let value = self.conn.pragma_query_value(None, name, |row| row.get(0));
            value.ok().map_or(0, i64::cast_unsigned)
        };
        self.reserve.is_used()
            && pragma("freelist_count") * pragma("page_size") < self.reserve.margin()
    }

    /// Recreates the reserve if there is space again.
    fn look_for_room(&self) {
        if self.reserve.is_used()
            && self.reserve.take_back(Instant::now()).is_none()
            && let Err(error) = self.checkpoint_every(schema::PAGES)
        {
            tracing::warn!(
                error = proto::causes(&error),
                "the checkpoint interval could not be restored"
            );
        }
    }

    fn checkpoint_every(&self, pages: u32) -> rusqlite::Result<()> {
        self.conn.pragma_update(None, "wal_autocheckpoint", pages)
    }

    /// Checkpoints and closes the file; a clean shutdown leaves one file.
    fn checkpoint(self) -> Result<(), NotWritten> {
        let Self { conn, lock, .. } = self;
        // If others are still reading, the next start finds the log and checkpoints it.
        if let Err(error) = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(
                error = proto::causes(&error),
                "the final checkpoint failed; the next start repeats it"
            );
        }
        let closed = conn.close().map_err(|(_, error)| NotWritten::from(error));
        drop(lock);
        closed
    }
}
