//! The store as a whole: the common rules, and what only a file can get wrong.

use std::ops::Deref;

use queue::conformance::sample::T0;
use tempfile::TempDir;

use crate::SqliteQueue;

/// A queue in a folder that goes away with it.
pub(crate) struct Scratch {
    pub(crate) queue: SqliteQueue,
    pub(crate) folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = SqliteQueue::open(&folder.path().join("queue.db"), T0).unwrap();
        Self { queue, folder }
    }
}

impl Deref for Scratch {
    type Target = SqliteQueue;

    fn deref(&self) -> &SqliteQueue {
        &self.queue
    }
}

queue::conformance_suite!(async { Scratch::new() });
