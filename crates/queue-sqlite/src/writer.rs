use std::{collections::VecDeque, sync::Arc};

use rusqlite::Connection;
use tokio::sync::watch;

use crate::{
    error::NotWritten,
    files::Lock,
    group::{Ask, Group, Tell, lock},
    inbox::Batch,
    sqlite::Shared,
};

/// The one thread that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) conn: Connection,
    pub(crate) shared: Arc<Shared>,
    pub(crate) arrivals: watch::Sender<u64>,
    pub(crate) endings: watch::Sender<u64>,
    /// Dropped last, so that the next relay finds everything written.
    pub(crate) lock: Lock,
}

/// However the thread ends, nobody waits for it any more.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.inbox.close();
    }
}

impl Writer {
    /// Writes until the inbox is closed; answers why the last group is not on disk, if so.
    pub(crate) fn run(self) -> Result<(), NotWritten> {
        let ended = Ended(self.shared.clone());
        loop {
            match self.shared.inbox.next() {
                Batch::Group(asks) => {
                    // Who asked was told, and the next group starts from what is on disk.
                    let _ = self.group(asks, false);
                }
                Batch::Last(asks) => {
                    let written = self.group(asks, true);
                    drop(ended);
                    return written.and_then(|()| self.checkpoint());
                }
            }
        }
    }

    /// Makes the decisions, commits them, and only then tells anybody.
    fn group(&self, asks: VecDeque<Ask>, last: bool) -> Result<(), NotWritten> {
        let mut tells = Vec::with_capacity(asks.len());
        let mut group = Group::new(&self.conn, &self.shared.live);
        let written = self.write(&mut group, asks, &mut tells, last);
        let written = written.map_err(|error| NotWritten(error.to_string()));
        match &written {
            Ok(()) => {
                if group.settle() {
                    self.endings.send_modify(|count| *count += 1);
                }
            }
            Err(error) => {
                tracing::error!(%error, asked = tells.len(), "a group was not written");
                if !self.conn.is_autocommit()
                    && let Err(error) = self.conn.execute_batch("ROLLBACK")
                {
                    tracing::error!(%error, "nor was it taken back");
                }
                group.undo();
                if !last {
                    self.shared.retry_lines();
                }
            }
        }
        if lock(&self.shared.live).news() {
            self.arrivals.send_modify(|count| *count += 1);
        }
        for tell in tells {
            tell(written.clone());
        }
        written
    }

    fn write(
        &self,
        group: &mut Group<'_>,
        asks: VecDeque<Ask>,
        tells: &mut Vec<Tell>,
        last: bool,
    ) -> rusqlite::Result<()> {
        let begin = || {
            self.conn
                .prepare_cached("BEGIN IMMEDIATE")?
                .execute([])
                .map(drop)
        };
        let mut written = begin();
        for ask in asks {
            // After a failure nothing may be written: SQLite may have left the transaction.
            let (tell, decided) = ask.decide(written.is_ok().then_some(&mut *group));
            tells.push(tell);
            written = written.and(decided);
        }
        written?;
        group.store_lines()?;
        if last {
            group.store_leases()?;
        }
        self.conn.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    /// A clean end leaves one file.
    fn checkpoint(self) -> Result<(), NotWritten> {
        let Self { conn, lock, .. } = self;
        // Others may still be reading; then the next start finds the log and takes it in.
        if let Err(error) = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the log was not taken into the queue file");
        }
        let closed = conn
            .close()
            .map_err(|(_, error)| NotWritten(error.to_string()));
        drop(lock);
        closed
    }
}
