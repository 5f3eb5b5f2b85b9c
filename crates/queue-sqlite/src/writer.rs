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
    group::{Ask, Group, lock},
    inbox::Batch,
    reserve::Reserve,
    schema,
    sqlite::Shared,
};

/// How soon it is looked for room again while there is none.
const NO_ROOM_WAIT: Duration = Duration::from_secs(1);
/// How many pages the log may have while there is no room.
const FULL_PAGES: u32 = 100;

/// The one thread that writes.
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

/// However the thread ends, nobody waits for it any more.
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
    /// Writes until the inbox is closed, or until the file can be written no more; answers why the
    /// last group is not on disk, if so.
    pub(crate) fn run(self) -> Result<(), NotWritten> {
        let ended = Ended(self.shared.clone());
        loop {
            match self.shared.inbox.next() {
                Batch::Group(asks) => {
                    if let Err(error) = self.group(asks, false)
                        && error.cure == Cure::Restart
                    {
                        return Err(self.give_up(error));
                    }
                }
                Batch::Last(asks) => {
                    let written = self.group(asks, true);
                    drop(ended);
                    return written.and_then(|()| self.checkpoint());
                }
            }
        }
    }

    /// Whatever was not acknowledged is as if it had never been; the next start looks at what is
    /// really on disk.
    fn give_up(&self, error: NotWritten) -> NotWritten {
        let keep_log = self
            .conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        if let Err(error) = keep_log {
            tracing::debug!(%error, "the log is taken into the file as it is");
        }
        self.shared.failure.send_replace(Some(error.clone()));
        error
    }

    /// Makes the decisions, commits them, and only then tells anybody.
    fn group(&self, mut asks: VecDeque<Ask>, last: bool) -> Result<(), NotWritten> {
        let fetched = self.shared.fetched.take();
        self.look_for_room();
        let is_full = self.is_full();
        let mut written = self.attempt(&fetched, &mut asks, last, is_full);
        if written
            .as_ref()
            .is_err_and(|error| error.cure == Cure::Room)
        {
            let given = self.reserve.give(Instant::now());
            if given {
                self.save_room();
            }
            // What must go on shall not fail with what is new.
            if given || !is_full {
                written = self.attempt(&fetched, &mut asks, last, true);
            }
        }
        if let Err(error) = &written {
            tracing::error!(%error, asked = asks.len(), "a group was not written");
            for (id, at) in fetched {
                self.shared.fetched.note(at, id);
            }
            if !last {
                self.shared.retry_lines();
            }
        }
        if lock(&self.shared.live).news() {
            self.arrivals.send_modify(|count| *count += 1);
        }
        let tell = |asks: VecDeque<Ask>| {
            asks.into_iter().for_each(|ask| ask.tell(written.clone()));
        };
        // Who asked for what erases hears of it once it is out of the log, the others at once.
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

    /// One transaction: on disk, or as if it had never been.
    fn attempt(
        &self,
        fetched: &HashMap<JobId, Timestamp>,
        asks: &mut VecDeque<Ask>,
        last: bool,
        is_full: bool,
    ) -> Result<(), NotWritten> {
        let mut group = Group::new(&self.conn, &self.shared.live, is_full);
        let written = self.write(&mut group, fetched, asks, last);
        match written.and_then(|()| self.commit()) {
            Ok(took) => {
                let observer = lock(&self.shared.live).observer();
                if let Some(observer) = observer {
                    observer.committed(took, asks.len());
                }
                if group.has_erased() {
                    self.cutter.note();
                    let now = lock(&self.shared.live).machine.now();
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
                    tracing::error!(%error, "nor was it taken back");
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
        last: bool,
    ) -> rusqlite::Result<()> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        erasure::note(&self.conn, fetched)?;
        // After a failure nothing more is written: SQLite may have left the transaction.
        asks.iter_mut().try_for_each(|ask| ask.decide(group))?;
        group.store_lines()?;
        if last {
            group.store_leases()?;
        }
        Ok(())
    }

    /// Everything is on disk when this answers; how long the disk took.
    fn commit(&self) -> rusqlite::Result<Duration> {
        let begun = Instant::now();
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(begun.elapsed())
    }

    /// The log takes as little room as it can while there is none.
    fn save_room(&self) {
        let saved = erasure::cut(&self.conn).and_then(|_| self.checkpoint_every(FULL_PAGES));
        if let Err(error) = saved {
            tracing::warn!(%error, "the log of the queue file keeps its room");
        }
    }

    /// Whether there is only room for what must go on. What was erased left room in the file itself,
    /// which is never given back to the disk.
    fn is_full(&self) -> bool {
        let pragma = |name| {
            let value = self.conn.pragma_query_value(None, name, |row| row.get(0));
            value.ok().map_or(0, i64::cast_unsigned)
        };
        self.reserve.is_used()
            && pragma("freelist_count") * pragma("page_size") < self.reserve.margin()
    }

    /// Whether there is room again.
    fn look_for_room(&self) {
        if self.reserve.is_used()
            && self.reserve.take_back(Instant::now()).is_none()
            && let Err(error) = self.checkpoint_every(schema::PAGES)
        {
            tracing::warn!(%error, "the log of the queue file stays short");
        }
    }

    fn checkpoint_every(&self, pages: u32) -> rusqlite::Result<()> {
        self.conn.pragma_update(None, "wal_autocheckpoint", pages)
    }

    /// A clean end leaves one file.
    fn checkpoint(self) -> Result<(), NotWritten> {
        let Self { conn, lock, .. } = self;
        // Others may still be reading; then the next start finds the log and takes it in.
        if let Err(error) = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the log was not taken into the queue file");
        }
        let closed = conn.close().map_err(|(_, error)| NotWritten::from(error));
        drop(lock);
        closed
    }
}
