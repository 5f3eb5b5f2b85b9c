#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use proto::{Chunk, End, EventId, JobId, limits::LINE_COST};
use tokio::sync::watch;

use crate::{Job, JobLog, LogHead, LogPage, QueueError};

/// The log of an unfinished job, in memory: a line is readable the moment it was added, and
/// nothing here ever waits for a disk. The end is published by the store once it is on disk.
#[derive(Debug)]
pub struct LiveLog {
    job: JobId,
    lines: Mutex<Lines>,
    head: watch::Sender<LogHead>,
    standing: watch::Sender<Standing>,
}

/// How many bytes the lines of all unfinished logs of one store take. A log that starts anew
/// counts until nobody reads what it was.
#[derive(Debug, Clone, Default)]
pub struct LogBytes(Arc<AtomicUsize>);

impl LogBytes {
    /// How many.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counted for as long as it lives.
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

/// What the holder of a lease must know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The attempt that holds the job now.
    pub held_by: Option<u32>,
    /// The requester withdrew it.
    pub cancelled: bool,
}

impl Standing {
    /// Whether the holder with this attempt shall stop.
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
    /// The lines are on disk and no longer here.
    let_go: bool,
}

impl Lines {
    /// None yet.
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

    /// How many of the lines from `first` on are there already.
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
    /// The log of a job as it stands on disk, counted in `all`.
    #[must_use]
    pub fn new(
        job: JobId,
        attempt: u32,
        stored: Vec<Bytes>,
        standing: Standing,
        all: LogBytes,
    ) -> Self {
        let mut lines = Lines::of(attempt, all);
        lines.weight.add(&stored);
        lines.stored = stored.len() as u64;
        lines.lines = stored;
        lines.released = attempt > 0 && standing.held_by.is_none();
        Self {
            job,
            head: watch::Sender::new(lines.head()),
            lines: Mutex::new(lines),
            standing: watch::Sender::new(standing),
        }
    }

    /// How many lines the current attempt has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lock().count()
    }

    /// How many bytes its lines take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().weight.own
    }

    /// How many bytes these lines numbered from `first` would add.
    #[must_use]
    pub fn would_add(&self, first: u64, lines: &[Bytes]) -> usize {
        let known = self.lock().known(first);
        weight(lines.get(known..).unwrap_or_default())
    }

    /// All lines of the current attempt.
    #[must_use]
    pub fn lines(&self) -> Vec<Bytes> {
        self.lock().lines.clone()
    }

    /// The last of them.
    #[must_use]
    pub fn last(&self) -> Option<Bytes> {
        self.lock().lines.last().cloned()
    }

    /// How many of them are on disk.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.lock().stored
    }

    /// Follows what becomes of the lease.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Adds lines numbered from `first`, skipping those that are there; answers how many are new.
    ///
    /// # Errors
    /// [`QueueError::Gap`].
    pub fn append(&self, first: u64, lines: Vec<Bytes>) -> Result<usize, QueueError> {
        let mut log = self.lock();
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

    /// The current attempt, and its lines that are not on disk, with the number of the first.
    #[must_use]
    pub fn unstored(&self) -> (u32, u64, Vec<Bytes>) {
        let log = self.lock();
        let from = usize::try_from(log.stored)
            .unwrap_or(usize::MAX)
            .min(log.lines.len());
        (log.attempt, log.stored + 1, log.lines[from..].to_vec())
    }

    /// Lines up to `n` of `attempt` are on disk.
    pub fn store(&self, attempt: u32, n: u64) {
        let mut log = self.lock();
        if log.attempt == attempt {
            log.stored = log.stored.max(n);
        }
    }

    /// A new attempt holds the job: the log starts anew.
    pub fn begin(&self, attempt: u32) {
        let mut log = self.lock();
        *log = Lines::of(attempt, log.weight.all.clone());
        let head = log.head();
        self.head.send_replace(head);
        self.standing.send_replace(Standing {
            held_by: Some(attempt),
            cancelled: false,
        });
    }

    /// Nobody holds the job any more.
    pub fn release(&self) {
        let mut log = self.lock();
        log.released = true;
        let head = log.head();
        self.head.send_replace(head);
        self.standing
            .send_modify(|standing| standing.held_by = None);
    }

    /// The requester withdrew the job.
    pub fn withdraw(&self) {
        self.standing
            .send_modify(|standing| standing.cancelled = true);
    }

    /// The end is on disk: now readers may see it. Its lines do not count any more, and those of
    /// an answer of more than `keeps` bytes are let go: however slowly somebody reads, it costs
    /// nobody else's job its room.
    pub fn finish(&self, end: End, keeps: usize) {
        let mut log = self.lock();
        log.stored = log.count();
        log.end = Some(end);
        let head = log.head();
        let weight = std::mem::replace(&mut log.weight, Weight::none(LogBytes::default()));
        if weight.own > keeps {
            log.lines = Vec::new();
            log.let_go = true;
        }
        self.head.send_replace(head);
        self.standing
            .send_modify(|standing| standing.held_by = None);
    }

    /// The log of a job that ended, for a store that keeps it in memory: it is not counted among
    /// those that are being written.
    pub(crate) fn kept(&self, job: &Job) -> Self {
        let log = Self::new(
            self.job,
            job.attempt,
            self.lines(),
            Standing::default(),
            LogBytes::default(),
        );
        if let Some(end) = job.end() {
            log.finish(end, usize::MAX);
        }
        log
    }

    /// See [`JobLog::read`]; nothing, if the job ended and its lines are to be read from disk.
    #[must_use]
    pub fn page(&self, after: EventId, max_bytes: usize) -> Option<LogPage> {
        let log = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Whether a reader that has `after` must start anew on `attempt`, and after which line the
    /// page begins. A reader that has seen no attempt yet has nothing to replace.
    #[must_use]
    pub const fn starts(after: EventId, attempt: u32) -> (bool, u64) {
        if after.attempt == attempt {
            (false, after.n)
        } else {
            (after.attempt != 0, 0)
        }
    }

    /// Takes lines until `max_bytes` are reached, at least one.
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
