//! A group: the decisions that the writer thread makes in one transaction.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use proto::{
    Account, End, JobError, JobId, LeaseToken, Timestamp, limits::BODY_MAX, worker::Retry,
};
use queue::{
    Lease, LeaseQuery, Live, LiveLog, NewJob, Owner, QueueError,
    machine::{Record, Step},
};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    error::{Fault, NotWritten},
    row::{self, Statements},
};

/// A decision to be made, and the channel for its result.
pub(crate) struct Ask {
    decide: Box<dyn Decide>,
    has_erased: bool,
}

trait Decide: Send {
    fn decide(&mut self, group: &mut Group<'_>) -> rusqlite::Result<()>;

    fn tell(self: Box<Self>, written: Result<(), NotWritten>);
}

struct Asked<T, D> {
    decide: D,
    answer: Result<T, QueueError>,
    told: oneshot::Sender<Result<T, QueueError>>,
}

impl<T, D> Decide for Asked<T, D>
where
    T: Send,
    D: FnMut(&mut Group<'_>) -> Result<T, Fault> + Send,
{
    fn decide(&mut self, group: &mut Group<'_>) -> rusqlite::Result<()> {
        let (answer, written) = match (self.decide)(group) {
            Ok(answer) => (Ok(answer), Ok(())),
            Err(Fault::Refused(error)) => (Err(error), Ok(())),
            Err(Fault::Broken(error)) => (Err(QueueError::closed()), Err(error)),
        };
        self.answer = answer;
        written
    }

    fn tell(self: Box<Self>, written: Result<(), NotWritten>) {
        let Self { answer, told, .. } = *self;
        // The caller may be gone; the decision stands.
        drop(told.send(written.map_err(QueueError::from).and(answer)));
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

impl Ask {
    /// Creates a decision. Its result is sent to `told` after the COMMIT. If the transaction could
    /// not be written, it is made once more.
    pub(crate) fn new<T: Send + 'static>(
        decide: impl FnMut(&mut Group<'_>) -> Result<T, Fault> + Send + 'static,
        told: oneshot::Sender<Result<T, QueueError>>,
    ) -> Self {
        Self {
            decide: Box::new(Asked {
                decide,
                answer: Err(QueueError::closed()),
                told,
            }),
            has_erased: false,
        }
    }

    /// Makes the decision. An error fails the group.
    pub(crate) fn decide(&mut self, group: &mut Group<'_>) -> rusqlite::Result<()> {
        let had = std::mem::take(&mut group.has_erased);
        let decided = self.decide.decide(group);
        self.has_erased = group.has_erased;
        group.has_erased |= had;
        decided
    }

    /// Whether the decision erased something.
    pub(crate) const fn has_erased(&self) -> bool {
        self.has_erased
    }

    /// Sends the result, after the COMMIT or its failure.
    pub(crate) fn tell(self, written: Result<(), NotWritten>) {
        self.decide.tell(written);
    }
}

/// One transaction: decisions in order, each written before the next is made.
pub(crate) struct Group<'a> {
    pub(crate) conn: &'a Connection,
    live: &'a Mutex<Live>,
    statements: Statements<'a>,
    steps: Vec<Step>,
    stored: Vec<(Arc<LiveLog>, JobId, u32, u64)>,
    /// Changes of the bytes kept per account.
    weights: Vec<(Account, i64)>,
    has_erased: bool,
    /// Whether the disk is full, so that only running jobs may write.
    pub(crate) is_full: bool,
}

impl<'a> Group<'a> {
    pub(crate) fn new(conn: &'a Connection, live: &'a Mutex<Live>, is_full: bool) -> Self {
        Self {
            conn,
            live,
            statements: Statements::default(),
            steps: Vec::new(),
            stored: Vec::new(),
            weights: Vec::new(),
            has_erased: false,
            is_full,
        }
    }

    /// Refuses new jobs and data while the disk is full.
    pub(crate) fn admits(&self) -> Result<(), Fault> {
        if self.is_full {
            Err(QueueError::DiskFull.into())
        } else {
            Ok(())
        }
    }

    /// Accepts a job, see [`queue::Queue::enqueue`]; returns its record.
    pub(crate) fn enqueue(&mut self, now: Timestamp, job: &NewJob) -> Result<&Record, Fault> {
        self.admits()?;
        self.live().machine.check_room(job)?;
        if self.statements.has_ended(self.conn, job.id)? {
            return Err(QueueError::Exists(format!("job {}", job.id)).into());
        }
        let step = self.live().machine.enqueue(now, job)?;
        let accepted = &self.steps.push_mut(step).after;
        self.statements.insert(self.conn, accepted, &job.body.0)?;
        Ok(accepted)
    }

    /// Leases jobs, see [`queue::Queue::lease_many`].
    pub(crate) fn lease_many(
        &mut self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Lease>, Fault> {
        let (mut leases, mut bytes) = (Vec::new(), 0);
        while leases.len() < max && bytes < BODY_MAX {
            let Some(lease) = self.lease(now, query, length)? else {
                break;
            };
            bytes += lease.job.body.0.len();
            leases.push(lease);
        }
        Ok(leases)
    }

    fn lease(
        &mut self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
    ) -> Result<Option<Lease>, Fault> {
        let (steps, token) = {
            let mut live = self.live();
            let (steps, token) = live.machine.lease(now, query, length);
            if let Some(token) = token {
                live.lent(now, token, &query.worker);
            }
            (steps, token)
        };
        self.write(steps)?;
        // The lease, if there is one, is the last step.
        let lent = token.and_then(|_| self.steps.last());
        let Some(step) = lent else { return Ok(None) };
        if step.after.job.attempt > 1 {
            row::clear_lines(self.conn, step.after.seq)?;
        }
        let body = row::body(self.conn, step.after.seq)?;
        Ok(step.lease(body.into()))
    }

    /// Ends a job, see [`queue::Queue::complete`].
    pub(crate) fn complete(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        lines: u64,
        end: &End,
    ) -> Result<(), Fault> {
        let decided = {
            let mut live = self.live();
            let (have, stored) = live
                .log(Owner::Anyone, token.job)
                .map_or((0, 0), |log| (log.count(), log.stored()));
            let decided = live.machine.complete(now, token, have, lines, end.clone());
            // The lines must be on disk before the end. `append` and `undo` already queue them;
            // this makes sure of it.
            if decided.is_ok() && stored < have {
                live.keep_unstored([token.job]);
            }
            decided
        };
        match decided {
            Ok(step) => self.write(step),
            Err(QueueError::UnknownJob(id)) => Ok(self.ended(id)?.accepts_again(token, end)?),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Gives a job back, see [`queue::Queue::nack`].
    pub(crate) fn nack(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<(), Fault> {
        let decided = self.live().machine.nack(now, token, retry, why);
        match decided {
            Ok(step) => self.write([step]),
            Err(QueueError::UnknownJob(id)) => {
                self.ended(id)?;
                Err(QueueError::StaleLease(id).into())
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Cancels a job, see [`queue::Queue::cancel`].
    pub(crate) fn cancel(
        &mut self,
        now: Timestamp,
        owner: Option<&Account>,
        id: JobId,
    ) -> Result<(), Fault> {
        let owner = owner.map_or(Owner::Anyone, Owner::Account);
        let there = self.live().machine.get(id).is_some();
        if there {
            let step = self.live().machine.cancel(now, owner, id)?;
            return self.write(step);
        }
        let ended = self.ended(id)?;
        if owner.owns(&ended.job.new.account) {
            Err(QueueError::Ended(id, ended.job.state).into())
        } else {
            Err(QueueError::UnknownJob(id).into())
        }
    }

    /// Applies what is due, see [`queue::Queue::reap`], but erases nothing. Returns when to do so
    /// again, and when to erase.
    pub(crate) fn reap(
        &mut self,
        now: Timestamp,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>), Fault> {
        let (steps, now, limits) = {
            let mut live = self.live();
            let steps = live.machine.reap(now);
            (steps, live.machine.now(), live.machine.limits())
        };
        self.write(steps)?;
        let erase = self.plan_erasure(now, limits)?;
        Ok((self.live().machine.next_reap(), erase))
    }

    /// Adds `bytes`, which may be negative, to what is kept for an account.
    pub(crate) fn weigh(&mut self, account: &Account, bytes: i64) {
        self.live().machine.weigh(account, bytes);
        self.weights.push((account.clone(), bytes));
    }

    /// Checks whether `bytes` more may be kept for an account.
    pub(crate) fn check_kept(&self, account: &Account, bytes: usize) -> Result<(), Fault> {
        Ok(self.live().machine.check_kept(account, bytes)?)
    }

    /// Writes all lines that are not on disk, including those of jobs that ended in this group.
    pub(crate) fn store_lines(&mut self) -> rusqlite::Result<()> {
        let unstored = self.live().take_unstored();
        let mut new = Vec::with_capacity(unstored.len());
        // All logs are registered before any is written, so that `undo` gives back every one.
        for (record, log) in unstored {
            let (attempt, first, lines) = log.unstored();
            let last = first + lines.len() as u64 - 1;
            self.stored.push((log, record.job.new.id, attempt, last));
            // Lines of an attempt that was superseded in this group are void.
            if attempt == record.job.attempt {
                new.push((record.seq, first, lines));
            }
        }
        new.iter()
            .try_for_each(|(seq, first, lines)| row::insert_lines(self.conn, *seq, *first, lines))
    }

    /// Writes the current ends of leases. Renewals alone are not worth an fsync, so this is done in
    /// the last group only.
    pub(crate) fn store_leases(&mut self) -> rusqlite::Result<()> {
        let leased: Vec<Record> = {
            let live = self.live();
            live.machine
                .records()
                .filter(|record| record.loan.is_some())
                .cloned()
                .collect()
        };
        leased
            .iter()
            .try_for_each(|record| self.statements.update(self.conn, record, 0))
    }

    /// Marks the group as having deleted data that must be overwritten everywhere.
    pub(crate) const fn mark_erasing(&mut self) {
        self.has_erased = true;
    }

    /// Whether the group erased something.
    pub(crate) const fn has_erased(&self) -> bool {
        self.has_erased
    }

    /// Publishes the committed transaction to memory, readers and lease holders. Returns whether
    /// any job has ended.
    pub(crate) fn settle(self) -> bool {
        for (log, _, attempt, last) in &self.stored {
            log.store(*attempt, *last);
        }
        self.live.lock().settle(&self.steps);
        let mut after = self.steps.iter().map(|step| &step.after);
        after.any(|record| record.job.state.is_final())
    }

    /// Reverts memory after the transaction failed.
    pub(crate) fn undo(self) {
        let mut live = self.live.lock();
        live.undo(self.steps);
        for (account, bytes) in self.weights {
            live.machine.weigh(&account, -bytes);
        }
        live.keep_unstored(self.stored.into_iter().map(|(_, id, ..)| id));
    }

    fn write(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<(), Fault> {
        let from = self.steps.len();
        self.steps.extend(steps);
        for step in &self.steps[from..] {
            let is_final = step.after.job.state.is_final();
            let answer = is_final.then(|| self.live().answer_bytes(step.id()));
            let answer = answer.unwrap_or_default();
            self.statements.update(self.conn, &step.after, answer)?;
        }
        Ok(())
    }

    /// Returns the record of an ended job.
    fn ended(&self, id: JobId) -> Result<Record, Fault> {
        row::find_ended(self.conn, id)?.ok_or_else(|| QueueError::UnknownJob(id).into())
    }

    pub(crate) fn live(&self) -> MutexGuard<'a, Live> {
        self.live.lock()
    }
}
