//! The unfinished jobs of a store in memory: the state machine and the logs of the answers.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proto::{End, ErrorCode, JobError, JobId, JobState, LeaseToken, Timestamp, WorkerId};
use tokio::sync::watch;

use crate::{
    Extended, LeaseHolder, LiveLog, LogBytes, Minute, Models, Observer, Overview, Owner, Queue,
    QueueError, QueuePosition, Serve,
    machine::{Machine, Record, Step},
    overview::OverviewState,
    position::Throughput,
};

/// The unfinished jobs of one store: the state machine, and the logs that are growing or being
/// read. A store keeps it behind one lock that is never held across I/O.
#[derive(Debug, Default)]
pub struct Live {
    /// The state machine. Each step taken from it must be passed to `settle` or `undo` of this
    /// type.
    pub machine: Machine,
    logs: HashMap<JobId, Arc<LiveLog>>,
    bytes: LogBytes,
    unstored: BTreeSet<JobId>,
    announced: (u64, Option<Timestamp>),
    ended: bool,
    erasing: bool,
    throughput: Throughput,
    overview_state: OverviewState,
    observer: Option<Arc<dyn Observer>>,
    moves: watch::Sender<u64>,
    /// Maximum size in bytes of a log that stays in memory for its readers after its job has ended.
    ended_max: Option<usize>,
}

/// Outcome of [`Live::append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The lines were added. The log is on disk up to this line.
    Stored(u64),
    /// The lines were refused because answers take too much memory. The job of this lease, possibly
    /// another one, must be ended first, see [`end_too_long`].
    TooLong(LeaseToken),
}

/// Ends the job of this lease because its answer is too long.
///
/// # Errors
/// If the store failed.
pub async fn end_too_long(
    queue: &dyn Queue,
    now: Timestamp,
    lease: LeaseToken,
) -> Result<(), QueueError> {
    let error = JobError::new(
        ErrorCode::TooLarge,
        "the answer exceeds this relay's size limit; ask for a shorter one",
    );
    match queue.complete(now, lease, 0, End::Failed { error }).await {
        Err(error) if error.is_of_store() => Err(error),
        // An error means that the job has ended in the meantime.
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Live {
    /// Creates the state of a store without unfinished jobs.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            ..Self::default()
        }
    }

    /// Creates the state from a restored machine and the lines that are on disk.
    #[must_use]
    pub fn restore(machine: Machine, mut lines: HashMap<JobId, Vec<Bytes>>) -> Self {
        let mut live = Self::new(machine);
        let ids: Vec<_> = live
            .machine
            .records()
            .filter(|record| record.loan.is_some() || lines.contains_key(&record.job.new.id))
            .map(|record| record.job.new.id)
            .collect();
        live.overview_state = OverviewState::restored(live.machine.records());
        for id in ids {
            live.open_log(id, lines.remove(&id).unwrap_or_default());
        }
        live
    }

    /// For a store with a disk: when a job ends, a log of more than `bytes` bytes is dropped from
    /// memory, and its readers continue from the disk.
    #[must_use]
    pub fn with_retained_log_max(mut self, bytes: usize) -> Self {
        self.ended_max = Some(bytes);
        self
    }

    /// Appends lines, see [`crate::Queue::append`]. The caller must store new lines soon, see
    /// [`Live::take_unstored`].
    ///
    /// # Errors
    /// [`QueueError::Gap`], [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    pub fn append(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        first: u64,
        lines: Vec<Bytes>,
    ) -> Result<Appended, QueueError> {
        let log = self.held_log(token)?;
        if let Some(lease) = self.is_too_long(token, &log, log.would_add(first, &lines)) {
            return Ok(Appended::TooLong(lease));
        }
        let is_first = log.count() == 0;
        if log.append(first, lines)? > 0 {
            self.unstored.insert(token.job);
            self.overview_state.wrote(now, token.job, log.count());
            if let Some(observer) = self.observer.as_ref().filter(|_| is_first)
                && let Some(record) = self.machine.get(token.job)
            {
                observer.first_line(now, &record.job);
            }
        }
        self.machine.renew(now, token, None)?;
        Ok(Appended::Stored(log.stored()))
    }

    /// Returns the lease of the job that must end before `more` bytes fit into this log.
    fn is_too_long(&self, token: LeaseToken, log: &LiveLog, more: usize) -> Option<LeaseToken> {
        let limits = self.machine.limits();
        if more == 0 {
            None
        } else if log.bytes() + more > limits.log_max {
            Some(token)
        } else if self.bytes.total() + more > limits.logs_max {
            Some(self.longest().unwrap_or(token))
        } else {
            None
        }
    }

    /// Returns the lease with the largest answer. Scans all logs; called only when there is no
    /// room.
    fn longest(&self) -> Option<LeaseToken> {
        let held = self.logs.iter().filter_map(|(id, log)| {
            let record = self.machine.get(*id)?;
            record.loan.as_ref()?;
            Some((log.bytes(), record.seq, record.token()))
        });
        let longest = held.max_by_key(|(bytes, seq, _)| (*bytes, *seq));
        longest.map(|(_, _, token)| token)
    }

    /// Renews a lease, see [`crate::Queue::extend`].
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    pub fn extend(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        length: Duration,
    ) -> Result<Extended, QueueError> {
        self.machine.renew(now, token, Some(length))?;
        let cancelled = self.held_log(token)?.lease_holder().borrow().cancelled;
        Ok(if cancelled {
            Extended::Cancelled
        } else {
            Extended::Active
        })
    }

    /// Returns the log of the job that this lease holds.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    pub fn held_log(&mut self, token: LeaseToken) -> Result<Arc<LiveLog>, QueueError> {
        self.machine.held(token)?;
        self.open_log(token.job, Vec::new())
            .ok_or(QueueError::UnknownJob(token.job))
    }

    /// Subscribes to the state of a lease; `None` if the lease is already over.
    #[must_use]
    pub fn lease_holder(&self, token: LeaseToken) -> Option<watch::Receiver<LeaseHolder>> {
        self.machine.held(token).ok()?;
        self.logs.get(&token.job).map(|log| log.lease_holder())
    }

    /// Returns the log of an unfinished job, for reading.
    #[must_use]
    pub fn log(&mut self, owner: Owner<'_>, id: JobId) -> Option<Arc<LiveLog>> {
        let record = self.machine.get(id)?;
        if !owner.owns(&record.job.new.account) {
            return None;
        }
        self.open_log(id, Vec::new())
    }

    /// Returns the queue position of a job, see [`crate::Queue::position`].
    pub fn position(
        &mut self,
        now: Timestamp,
        id: JobId,
        serve: &Serve,
        models: &Models,
    ) -> Option<QueuePosition> {
        let before = self.machine.before(now, id, serve, models)?;
        let wait = self.throughput.expected(now, before, serve, models);
        Some(QueuePosition { before, wait })
    }

    /// Records which worker a lease is for; to be called between the decision and [`Live::settle`].
    pub fn lent(&mut self, now: Timestamp, token: LeaseToken, worker: &WorkerId) {
        self.overview_state.lent(now, token, worker);
    }

    /// Returns the overview of running and waiting jobs, see [`crate::Queue::overview`].
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.overview_state.overview(self.machine.counts(), |id| {
            let lines = self.logs.get(&id).map_or(0, |log| log.count());
            Some((self.machine.get(id)?, lines))
        })
    }

    /// Returns the statistics of the last hour, see [`crate::Queue::minutes`].
    #[must_use]
    pub fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        self.overview_state.minutes(now)
    }

    /// Subscribes to changes of the overview, see [`crate::Queue::changes`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.overview_state.changes()
    }

    /// Subscribes to changes of queue positions, see [`crate::Queue::moves`].
    #[must_use]
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Returns the size in bytes of an unfinished job's answer. When the job ends, these bytes are
    /// counted as kept for its account.
    #[must_use]
    pub fn answer_bytes(&self, id: JobId) -> u64 {
        self.logs.get(&id).map_or(0, |log| log.bytes() as u64)
    }

    /// Whether any line is not yet on disk.
    #[must_use]
    pub fn has_unstored(&self) -> bool {
        !self.unstored.is_empty()
    }

    /// Takes the logs with lines that are not on disk. Those that could not be written must be
    /// given back with [`Live::keep_unstored`].
    #[must_use]
    pub fn take_unstored(&mut self) -> Vec<(Record, Arc<LiveLog>)> {
        let unstored = std::mem::take(&mut self.unstored);
        let find = |id| Some((self.machine.get(id)?.clone(), self.logs.get(&id)?.clone()));
        unstored.into_iter().filter_map(find).collect()
    }

    /// Marks the logs of these jobs as still having lines that are not on disk.
    pub fn keep_unstored(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        self.unstored.extend(jobs);
    }

    /// Publishes steps that are on disk to readers and lease holders.
    pub fn settle(&mut self, steps: &[Step]) {
        let now = self.machine.now();
        let waits = |record: &Record| record.job.state == JobState::Queued;
        if steps
            .iter()
            .any(|step| waits(&step.after) || step.before.as_ref().is_some_and(waits))
        {
            self.moves.send_modify(|count| *count += 1);
        }
        for step in steps {
            self.throughput.note(now, step);
            let lines = self.logs.get(&step.id()).map_or(0, |log| log.count());
            self.overview_state.note(step, lines);
            self.tell(now, step);
            let (id, job) = (step.id(), &step.after.job);
            match job.state {
                JobState::Queued => {
                    if let Some(log) = self.logs.get(&id) {
                        log.release();
                    }
                }
                JobState::Leased if step.is_lent() => {
                    if let Some(log) = self.open_log(id, Vec::new()) {
                        log.begin(job.attempt);
                    }
                }
                JobState::Leased => {
                    if let Some(log) = self.logs.get(&id).filter(|_| step.after.cancelled) {
                        log.withdraw();
                    }
                }
                JobState::Completed | JobState::Failed | JobState::Cancelled => {
                    self.ended = true;
                    self.unstored.remove(&id);
                    let answer = i64::try_from(self.answer_bytes(id)).unwrap_or(i64::MAX);
                    self.machine.weigh(&job.new.account, answer);
                    if let (Some(log), Some(end)) = (self.logs.remove(&id), job.end()) {
                        log.finish(end, self.ended_max.unwrap_or(usize::MAX));
                    }
                }
            }
        }
        self.machine.settle(steps);
        if !steps.is_empty() {
            self.overview_state.tell();
        }
    }

    fn tell(&self, now: Timestamp, step: &Step) {
        let Some(observer) = &self.observer else {
            return;
        };
        let job = &step.after.job;
        if step.before.is_none() {
            observer.queued(job);
        }
        if step.is_lent() {
            observer.lent(now, job);
        }
        if job.state.is_final() {
            let log = self.logs.get(&step.id());
            observer.ended(job, log.and_then(|log| log.last()).as_ref());
        }
    }

    /// Returns the observer, if there is one.
    #[must_use]
    pub fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.clone()
    }

    /// Sets the observer of later changes.
    pub fn observed_by(&mut self, observer: Arc<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Reverts steps that could not be stored. Readers have seen nothing of them.
    pub fn undo(&mut self, steps: Vec<Step>) {
        let new = |step: &Step| step.before.is_none().then(|| step.id());
        let never_was: Vec<JobId> = steps.iter().filter_map(new).collect();
        self.machine.undo(steps);
        for id in never_was {
            self.logs.remove(&id);
        }
    }

    /// Whether waiters for arrivals must be woken, because jobs arrived or the next reap is due
    /// earlier. To be asked after each change; returns `true` once per reason.
    pub fn news(&mut self) -> bool {
        let next = (self.machine.arrivals(), self.machine.next_reap());
        let had = std::mem::replace(&mut self.announced, next);
        let sooner = next.1.is_some_and(|at| had.1.is_none_or(|was| at < was));
        // An ended job must be erased later, and `reap` returns when; so its caller must be woken.
        let ended = std::mem::take(&mut self.ended) && !self.erasing;
        self.erasing |= ended;
        next.0 != had.0 || sooner || ended
    }

    /// Sets whether the caller of `reap` already has a timer for the erasure of ended jobs.
    pub const fn set_erasing(&mut self, erasing: bool) {
        self.erasing = erasing;
    }

    fn open_log(&mut self, id: JobId, lines: Vec<Bytes>) -> Option<Arc<LiveLog>> {
        if let Some(log) = self.logs.get(&id) {
            return Some(log.clone());
        }
        let record = self.machine.get(id)?;
        let lease_holder = LeaseHolder {
            held_by: record.loan.as_ref().map(|_| record.job.attempt),
            cancelled: record.cancelled,
        };
        let log = Arc::new(LiveLog::new(
            id,
            record.job.attempt,
            lines,
            lease_holder,
            self.bytes.clone(),
        ));
        self.logs.insert(id, log.clone());
        Some(log)
    }
}
