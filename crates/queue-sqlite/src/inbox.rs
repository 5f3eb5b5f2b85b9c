use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use queue::QueueError;
use tokio::sync::Semaphore;

use crate::group::Ask;

/// Most decisions that wait for the writer; whoever comes later waits or is refused.
const ROOM: usize = 1_024;
/// How long lines may wait for a group of their own.
const LINES_WAIT: Duration = Duration::from_millis(100);
/// How long it may wait to be noted that an answer was fetched.
const NOTES_WAIT: Duration = Duration::from_secs(1);
/// And after the disk refused them.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Where callers put what they ask of the writer thread.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    room: Semaphore,
    /// As under the lock, for those who only ask.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    asks: VecDeque<Ask>,
    group_by: Option<Instant>,
    closed: bool,
    /// The writer sleeps until somebody wakes it: that costs a call of the system, and is done
    /// only then, and with the lock given back.
    asleep: bool,
    #[cfg(test)]
    woken: usize,
}

impl Waiting {
    /// Whether there is a sleeper, who is woken now.
    fn wakes(&mut self) -> bool {
        #[cfg(test)]
        {
            self.woken += usize::from(self.asleep);
        }
        std::mem::take(&mut self.asleep)
    }
}

/// What the writer has to do next.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Decide these, and store all lines.
    Group(VecDeque<Ask>),
    /// Decide these, and then nothing any more.
    Last(VecDeque<Ask>),
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

    /// Asks, waiting for room if need be.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<(), QueueError> {
        self.room
            .acquire()
            .await
            .map_err(|_| QueueError::closed())?
            .forget();
        self.push(ask)
    }

    /// Asks if there is room now.
    pub(crate) fn try_ask(&self, ask: Ask) -> Result<(), QueueError> {
        match self.room.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) if self.is_closed() => return Err(QueueError::closed()),
            Err(_) => return Err(QueueError::Full("the disk is behind")),
        }
        self.push(ask)
    }

    /// There are lines to store, with the next group or before long.
    pub(crate) fn lines(&self) {
        self.within(LINES_WAIT);
    }

    /// There are lines that could not be stored.
    pub(crate) fn lines_again(&self) {
        self.within(RETRY_WAIT);
    }

    /// There is something to note that is worth no group of its own.
    pub(crate) fn notes(&self) {
        self.within(NOTES_WAIT);
    }

    /// There shall be a group before so long, whether or not anybody asks.
    pub(crate) fn within(&self, wait: Duration) {
        let by = Instant::now() + wait;
        let mut waiting = self.lock();
        if waiting.group_by.is_none_or(|had| by < had) {
            waiting.group_by = Some(by);
            let wakes = waiting.wakes();
            drop(waiting);
            self.wake(wakes);
        }
    }

    /// Takes no more; the writer ends after what is there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.closed.store(true, Ordering::Release);
        self.room.close();
        self.filled.notify_one();
    }

    /// Nobody will decide any more: whoever still waits is told so.
    pub(crate) fn abandon(&self) {
        self.close();
        let asks = std::mem::take(&mut self.lock().asks);
        drop(asks);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits for something to do; at once when there is.
    pub(crate) fn next(&self) -> Batch {
        let mut waiting = self.lock();
        loop {
            let due = waiting
                .group_by
                .map(|by| by.saturating_duration_since(Instant::now()));
            if !waiting.asks.is_empty() || waiting.closed || due.is_some_and(|due| due.is_zero()) {
                waiting.group_by = None;
                let asks = std::mem::take(&mut waiting.asks);
                self.room.add_permits(asks.len());
                return if waiting.closed {
                    Batch::Last(asks)
                } else {
                    Batch::Group(asks)
                };
            }
            waiting.asleep = true;
            waiting = match due {
                None => self
                    .filled
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let woken = self.filled.wait_timeout(waiting, due);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            waiting.asleep = false;
        }
    }

    /// How many decisions wait for the writer.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().asks.len()
    }

    /// How often the writer was woken so far.
    #[cfg(test)]
    pub(crate) fn woken(&self) -> usize {
        self.lock().woken
    }

    fn push(&self, ask: Ask) -> Result<(), QueueError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(QueueError::closed());
        }
        waiting.asks.push_back(ask);
        let wakes = waiting.wakes();
        drop(waiting);
        self.wake(wakes);
        Ok(())
    }

    fn wake(&self, wakes: bool) {
        if wakes {
            self.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
