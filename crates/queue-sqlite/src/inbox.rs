//! The inbox of the writer thread: pending decisions, and when to write without any.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use queue::QueueError;
use tokio::sync::Semaphore;

use crate::{error::NotWritten, group::Ask};

/// Maximum number of pending decisions; further callers wait or are refused.
const ROOM: usize = 1_024;
/// Maximum time lines wait for a group.
const LINES_WAIT: Duration = Duration::from_millis(100);
/// Maximum time until it is written that an answer was fetched.
const NOTES_WAIT: Duration = Duration::from_secs(1);
/// Time until lines are tried again after the disk refused them.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// The inbox of the writer thread.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    room: Semaphore,
    /// Copy of the flag under the lock, for reading without it.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    asks: VecDeque<Ask>,
    group_by: Option<Instant>,
    closed: bool,
    /// Whether the writer sleeps. Waking it is a system call, so it is done only when needed, after
    /// releasing the lock.
    asleep: bool,
    #[cfg(test)]
    woken: usize,
}

impl Waiting {
    /// Returns whether the writer sleeps and must be woken; marks it as awake.
    fn wakes(&mut self) -> bool {
        #[cfg(test)]
        {
            self.woken += usize::from(self.asleep);
        }
        std::mem::take(&mut self.asleep)
    }
}

/// The writer's next task: to make these decisions and store all lines.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) asks: VecDeque<Ask>,
    /// Whether to stop then.
    pub(crate) is_last: bool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            room: Semaphore::new(ROOM),
            closed: AtomicBool::new(false),
        }
    }

    /// Adds a decision; waits while the inbox is full.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<(), QueueError> {
        self.room
            .acquire()
            .await
            .map_err(|_| QueueError::closed())?
            .forget();
        self.push(ask)
    }

    /// Adds a decision, or fails if the inbox is full.
    pub(crate) fn try_ask(&self, ask: Ask) -> Result<(), QueueError> {
        match self.room.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) if self.is_closed() => return Err(QueueError::closed()),
            Err(_) => {
                return Err(QueueError::Full(
                    "the disk is too slow; try again in a moment",
                ));
            }
        }
        self.push(ask)
    }

    /// Requests a group soon, because there are lines to store.
    pub(crate) fn lines(&self) {
        self.within(LINES_WAIT);
    }

    /// Requests a group later, because lines could not be stored.
    pub(crate) fn lines_again(&self) {
        self.within(RETRY_WAIT);
    }

    /// Requests a group within [`NOTES_WAIT`], for data that needs no group of its own.
    pub(crate) fn notes(&self) {
        self.within(NOTES_WAIT);
    }

    /// Requests a group within `wait`, even without decisions.
    pub(crate) fn within(&self, wait: Duration) {
        let by = Instant::now() + wait;
        let mut waiting = self.waiting.lock();
        if waiting.group_by.is_none_or(|had| by < had) {
            waiting.group_by = Some(by);
            self.wake(waiting);
        }
    }

    /// Closes the inbox; the writer stops after what is pending.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.closed.store(true, Ordering::Release);
        self.room.close();
        self.filled.notify_one();
    }

    /// Refuses all pending decisions, because the writer has stopped: none of them was tried.
    pub(crate) fn abandon(&self) {
        self.close();
        let asks = std::mem::take(&mut self.waiting.lock().asks);
        for ask in asks {
            ask.tell(Err(NotWritten::not_tried()));
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns the next task; blocks until there is one.
    pub(crate) fn next(&self) -> Batch {
        let mut waiting = self.waiting.lock();
        loop {
            let due = waiting
                .group_by
                .map(|by| by.saturating_duration_since(Instant::now()));
            if !waiting.asks.is_empty() || waiting.closed || due.is_some_and(|due| due.is_zero()) {
                waiting.group_by = None;
                let asks = std::mem::take(&mut waiting.asks);
                self.room.add_permits(asks.len());
                return Batch {
                    asks,
                    is_last: waiting.closed,
                };
            }
            waiting.asleep = true;
            match due {
                None => self.filled.wait(&mut waiting),
                Some(due) => drop(self.filled.wait_for(&mut waiting, due)),
            }
            waiting.asleep = false;
        }
    }

    /// Number of pending decisions.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().asks.len()
    }

    /// Number of times the writer was woken so far.
    #[cfg(test)]
    pub(crate) fn woken(&self) -> usize {
        self.waiting.lock().woken
    }

    fn push(&self, ask: Ask) -> Result<(), QueueError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(QueueError::closed());
        }
        waiting.asks.push_back(ask);
        self.wake(waiting);
        Ok(())
    }

    /// Wakes the writer if it sleeps, after releasing the lock.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let wakes = waiting.wakes();
        drop(waiting);
        if wakes {
            self.filled.notify_one();
        }
    }
}
