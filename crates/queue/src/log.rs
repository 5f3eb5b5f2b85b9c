//! The log of an unfinished job in memory, and the state of its lease.

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::{Chunk, End, EventId, JobId, limits::LINE_COST};
use tokio::sync::watch;

use crate::{Job, JobLog, LogHead, LogPage, QueueError};

/// The log of an unfinished job, in memory. A line is readable as soon as it is added; nothing here
/// waits for a disk. The store publishes the end once it is on disk.
#[derive(Debug)]
pub struct LiveLog {
    job: JobId,
    lines: Mutex<Lines>,
    head: watch::Sender<LogHead>,
    lease_holder: watch::Sender<LeaseHolder>,
}

/// Total size in bytes of the lines of all unfinished logs of one store. When a log restarts, its
/// old lines count until their last reader is gone.
#[derive(Debug, Clone, Default)]
pub struct LogBytes(Arc<AtomicUsize>);

impl LogBytes {
    /// Returns the total in bytes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The share of one log in a [`LogBytes`]; subtracted when dropped.
#[derive(Debug)]
struct Weight {
    own: usize,
    all: LogBytes,
}

impl Weight {
    const fn none(all: LogBytes) -> Self {
        Self { own: 0, all }
    }

    fn add(&mut self, lines: &[Bytes]) {
        let more = weight(lines);
        self.own += more;
        self.all.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.own, Ordering::Relaxed);
    }
}

fn weight(lines: &[Bytes]) -> usize {
    lines.iter().map(|line| line.len() + LINE_COST).sum()
}

/// The state of a lease, as its holder needs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseHolder {
    /// Attempt that holds the job now; `None` if no lease does.
    pub held_by: Option<u32>,
    /// Whether the requester has cancelled the job.
    pub cancelled: bool,
}

impl LeaseHolder {
    /// Whether the holder of this attempt must stop.
    #[must_use]
    pub fn stops(&self, attempt: u32) -> bool {
        self.cancelled || self.held_by != Some(attempt)
    }
}

#[derive(Debug)]
struct Lines {
    attempt: u32,
    lines: Vec<Bytes>,
    weight: Weight,
    stored: u64,
    released: bool,
    end: Option<End>,
    /// Whether the lines were dropped from memory because they are on disk.
    let_go: bool,
}

impl Lines {
    /// An empty log of this attempt.
    const fn of(attempt: u32, all: LogBytes) -> Self {
        Self {
            attempt,
            lines: Vec::new(),
            weight: Weight::none(all),
            stored: 0,
            released: false,
            end: None,
            let_go: false,
        }
    }

    /// Number of the lines from `first` on that the log already has.
    fn known(&self, first: u64) -> usize {
        usize::try_from((self.count() + 1).saturating_sub(first)).unwrap_or(usize::MAX)
    }

    fn count(&self) -> u64 {
        self.lines.len() as u64
    }

    fn head(&self) -> LogHead {
        let last = EventId {
            attempt: self.attempt,
            n: self.count(),
        };
        LogHead {
            last,
            released: self.released,
            end: self.end.clone(),
        }
    }
}

impl LiveLog {
    /// Creates the log of a job from the lines on disk; its bytes are counted in `all`.
    #[must_use]
    pub fn new(
        job: JobId,
        attempt: u32,
        stored: Vec<Bytes>,
        lease_holder: LeaseHolder,
        all: LogBytes,
    ) -> Self {
        let mut lines = Lines::of(attempt, all);
        lines.weight.add(&stored);
        lines.stored = stored.len() as u64;
        lines.lines = stored;
        lines.released = attempt > 0 && lease_holder.held_by.is_none();
        Self {
            job,
            head: watch::Sender::new(lines.head()),
            lines: Mutex::new(lines),
            lease_holder: watch::Sender::new(lease_holder),
        }
    }

    /// Number of lines of the current attempt.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lines.lock().count()
    }

    /// Size of its lines in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lines.lock().weight.own
    }

    /// Number of bytes that these lines, numbered from `first`, would add.
    #[must_use]
    pub fn would_add(&self, first: u64, lines: &[Bytes]) -> usize {
        let known = self.lines.lock().known(first);
        weight(lines.get(known..).unwrap_or_default())
    }

    /// Returns all lines of the current attempt.
    #[must_use]
    pub fn lines(&self) -> Vec<Bytes> {
        self.lines.lock().lines.clone()
    }

    /// Returns the last line of the current attempt.
    #[must_use]
    pub fn last(&self) -> Option<Bytes> {
        self.lines.lock().lines.last().cloned()
    }

    /// Number of the last line that is on disk.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.lines.lock().stored
    }

    /// Subscribes to the state of the lease.
    #[must_use]
    pub fn lease_holder(&self) -> watch::Receiver<LeaseHolder> {
        self.lease_holder.subscribe()
    }

    /// Adds lines numbered from `first`, skips those that are already there, and returns the number
    /// of new lines.
    ///
    /// # Errors
    /// [`QueueError::Gap`].
    pub fn append(&self, first: u64, lines: Vec<Bytes>) -> Result<usize, QueueError> {
        let mut log = self.lines.lock();
        let have = log.count();
        if first == 0 || first > have + 1 {
            return Err(QueueError::Gap {
                job: self.job,
                stored: have,
                got: first,
            });
        }
        let known = log.known(first);
        let new = lines.len().saturating_sub(known);
        if new > 0 {
            log.weight.add(&lines[known..]);
            log.lines.extend(lines.into_iter().skip(known));
            let head = log.head();
            self.head.send_replace(head);
        }
        Ok(new)
    }

    /// Returns the current attempt, the number of the first line that is not on disk, and the lines
    /// from there on.
    #[must_use]
    pub fn unstored(&self) -> (u32, u64, Vec<Bytes>) {
        let log = self.lines.lock();
        let from = usize::try_from(log.stored)
            .unwrap_or(usize::MAX)
            .min(log.lines.len());
        (log.attempt, log.stored + 1, log.lines[from..].to_vec())
    }

    /// Records that lines up to `n` of `attempt` are on disk.
    pub fn store(&self, attempt: u32, n: u64) {
        let mut log = self.lines.lock();
        if log.attempt == attempt {
            log.stored = log.stored.max(n);
        }
    }

    /// Starts a new attempt: clears the log.
    pub fn begin(&self, attempt: u32) {
        let mut log = self.lines.lock();
        *log = Lines::of(attempt, log.weight.all.clone());
        let head = log.head();
        self.head.send_replace(head);
        self.lease_holder.send_replace(LeaseHolder {
            held_by: Some(attempt),
            cancelled: false,
        });
    }

    /// Records that no lease holds the job any more.
    pub fn release(&self) {
        let mut log = self.lines.lock();
        log.released = true;
        let head = log.head();
        self.head.send_replace(head);
        self.lease_holder
            .send_modify(|lease_holder| lease_holder.held_by = None);
    }

    /// Records that the requester has cancelled the job.
    pub fn withdraw(&self) {
        self.lease_holder
            .send_modify(|lease_holder| lease_holder.cancelled = true);
    }

    /// Publishes the end, which is on disk now, to readers. The lines no longer count in
    /// [`LogBytes`]; an answer of more than `keeps` bytes is dropped from memory, so that a slow
    /// reader does not take room from running jobs.
    pub fn finish(&self, end: End, keeps: usize) {
        let mut log = self.lines.lock();
        log.stored = log.count();
        log.end = Some(end);
        let head = log.head();
        let weight = std::mem::replace(&mut log.weight, Weight::none(LogBytes::default()));
        if weight.own > keeps {
            log.lines = Vec::new();
            log.let_go = true;
        }
        self.head.send_replace(head);
        self.lease_holder
            .send_modify(|lease_holder| lease_holder.held_by = None);
    }

    /// Copies the log of an ended job for a store that keeps it in memory; the copy is not counted
    /// in [`LogBytes`].
    pub(crate) fn kept(&self, job: &Job) -> Self {
        let log = Self::new(
            self.job,
            job.attempt,
            self.lines(),
            LeaseHolder::default(),
            LogBytes::default(),
        );
        if let Some(end) = job.end() {
            log.finish(end, usize::MAX);
        }
        log
    }

    /// Returns a page, see [`JobLog::read`]; `None` if the lines were dropped and must be read from
    /// disk.
    #[must_use]
    pub fn page(&self, after: EventId, max_bytes: usize) -> Option<LogPage> {
        let log = self.lines.lock();
        if log.let_go {
            return None;
        }
        let (restarted, from) = LogPage::starts(after, log.attempt);
        let from = usize::try_from(from)
            .unwrap_or(usize::MAX)
            .min(log.lines.len());
        let mut page = LogPage {
            attempt: log.attempt,
            restarted,
            ..LogPage::default()
        };
        let numbered = (from as u64 + 1..).zip(&log.lines[from..]);
        let Ok(()) = page.try_fill(
            numbered.map(|(n, line)| Ok::<_, Infallible>((n, line.clone()))),
            max_bytes,
        );
        if page.chunks.len() == log.lines.len() - from {
            page.end.clone_from(&log.end);
        }
        Some(page)
    }
}

#[async_trait]
impl JobLog for LiveLog {
    fn head(&self) -> watch::Receiver<LogHead> {
        self.head.subscribe()
    }

    async fn read(&self, after: EventId, max_bytes: usize) -> Result<LogPage, QueueError> {
        let page = self.page(after, max_bytes);
        page.ok_or(QueueError::Erased(self.job))
    }
}

impl LogPage {
    /// Whether a reader at `after` must restart on `attempt`, and the line after which its page
    /// begins. A reader that has seen no attempt yet does not restart.
    #[must_use]
    pub const fn starts(after: EventId, attempt: u32) -> (bool, u64) {
        if after.attempt == attempt {
            (false, after.n)
        } else {
            (after.attempt != 0, 0)
        }
    }

    /// Adds lines to the page, at least one, until `max_bytes` are reached.
    ///
    /// # Errors
    /// The first error among the lines that were taken.
    pub fn try_fill<E>(
        &mut self,
        lines: impl IntoIterator<Item = Result<(u64, Bytes), E>>,
        max_bytes: usize,
    ) -> Result<(), E> {
        let mut bytes = 0;
        for line in lines {
            let (n, line) = line?;
            bytes += line.len();
            if bytes > max_bytes && !self.chunks.is_empty() {
                break;
            }
            self.chunks.push(Chunk {
                n,
                line: line.into(),
            });
        }
        Ok(())
    }
}
