//! Tests of the whole store: the conformance suite, and what concerns files only.

mod disk;
mod durability;
mod erasure;
mod failure;
mod files;
mod model;
mod names;
mod reopen;
mod search;
mod upgrade;

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::mpsc,
};

use proto::{Account, Timestamp};
use queue::{
    QueueLimits,
    conformance::{bounds, run, sample::T0},
    machine::Record,
};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{SqliteQueue, restart};

/// Size of the reserve in bytes; smaller than the default, because each test creates it.
const RESERVE: u64 = 64 * 1024;

queue::conformance_suite!(async { Scratch::new() });
queue::bounds_suite!(async { Scratch::on(bounds::limits()) });

/// A queue in a temporary directory.
pub(crate) struct Scratch {
    queue: SqliteQueue,
    folder: TempDir,
    limits: QueueLimits,
}

impl Scratch {
    fn new() -> Self {
        Self::on_commit(|| false)
    }

    /// Opens a queue with a hook that runs at each commit of the writer and may make it fail.
    fn on_commit(hook: impl FnMut() -> bool + Send + 'static) -> Self {
        Self::with(QueueLimits::default(), |conn| {
            conn.commit_hook(Some(hook)).unwrap()
        })
    }

    /// Opens a queue with these limits.
    fn on(limits: QueueLimits) -> Self {
        Self::with(limits, |_| ())
    }

    fn with(limits: QueueLimits, prepare: impl FnOnce(&mut Connection)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let queue = SqliteQueue::open_with(&path, T0, limits, RESERVE, prepare).unwrap();
        Self {
            queue,
            folder,
            limits,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }

    /// Closes and reopens the queue.
    async fn reopened(self, now: Timestamp) -> Self {
        queue::Queue::close(&self.queue).await.unwrap();
        let Self { queue, folder, .. } = self;
        drop(queue);
        Self::opened(folder, now, self.limits)
    }

    /// Opens a copy of the files, as a kill at this moment would leave them.
    fn killed(&self, now: Timestamp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["queue.db", "queue.db-wal"] {
            std::fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        Self::opened(folder, now, self.limits)
    }

    fn opened(folder: TempDir, now: Timestamp, limits: QueueLimits) -> Self {
        let path = folder.path().join("queue.db");
        let queue = SqliteQueue::open_limited(&path, now, limits).unwrap();
        Self {
            queue,
            folder,
            limits,
        }
    }

    /// Runs `act` on the writer's connection, in a transaction of its own.
    async fn on_writer(&self, mut act: impl FnMut(&Connection) + Send + 'static) {
        let asked = self.ask(move |group| {
            act(group.conn);
            Ok(())
        });
        asked.await.unwrap();
    }

    /// Blocks the writer before its next group until the sender is used or dropped; decisions made
    /// meanwhile become one group.
    async fn hold_writer(&self) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel();
        let (reached, at_gate) = tokio::sync::oneshot::channel();
        let (told, _) = tokio::sync::oneshot::channel::<Result<(), queue::QueueError>>();
        let mut reached = Some(reached);
        let gate = move |_: &mut crate::group::Group<'_>| {
            if let Some(reached) = reached.take() {
                reached.send(()).unwrap();
            }
            let _ = held.recv();
            Ok(())
        };
        self.shared
            .inbox
            .ask(crate::group::Ask::new(gate, told))
            .await
            .unwrap();
        at_gate.await.unwrap();
        release
    }

    /// Waits until `count` decisions are pending.
    async fn waiting(&self, count: usize) {
        while self.shared.inbox.waiting() < count {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the machine's records, by age.
    fn memory(&self) -> Vec<Record> {
        sorted(self.shared.live.lock().machine.records())
    }

    /// Returns the records that a relay starting now would load, without the grace added to leases.
    fn disk(&self) -> Vec<Record> {
        on_disk(&self.path())
    }
}

fn on_disk(path: &Path) -> Vec<Record> {
    let conn = crate::schema::open_reader(path).unwrap();
    restart::unfinished(&conn).unwrap()
}

/// Returns the number of bytes kept for an account.
fn kept(queue: &SqliteQueue, account: &Account) -> u64 {
    queue.shared.live.lock().machine.kept(account)
}

fn sorted<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Record> {
    let mut records: Vec<_> = records.cloned().collect();
    records.sort_by_key(|record| record.seq);
    records
}

impl Deref for Scratch {
    type Target = SqliteQueue;

    fn deref(&self) -> &SqliteQueue {
        &self.queue
    }
}
