//! The life cycle of a job, as decisions on plain data: no I/O, no clock, no randomness.
//!
//! A decision returns the [`Step`]s that a store must persist. The store then calls either
//! [`Machine::settle`] (they are on disk) or [`Machine::undo`] (they could not be stored).

mod buckets;
mod due;
mod record;
mod room;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

use std::{borrow::Cow, collections::HashMap, time::Duration};

use proto::{
    Account, ErrorCode, JobError, JobId, JobState, LeaseToken, Timestamp,
    limits::{JOB_COST, RESTART_GRACE, RETRY_MAX},
    worker::Retry,
};

pub use record::{Loan, Record, Step};
use room::signed;
use table::Table;
pub use waiting::AGING_STEP;

use crate::{
    Cursor, JobFilter, JobPage, LeaseQuery, Models, NewJob, Owner, QueueCounts, QueueError,
    QueueLimits, Serve,
};

/// All unfinished jobs, and those whose end is not settled yet. Holds no prompt.
#[derive(Debug)]
pub struct Machine {
    limits: QueueLimits,
    clock: Timestamp,
    last_seq: u64,
    table: Table,
    /// Bytes kept for each account.
    kept: HashMap<Account, u64>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new(QueueLimits::default())
    }
}

impl Machine {
    /// Creates an empty machine with these limits.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            clock: Timestamp::default(),
            last_seq: 0,
            table: Table::new(limits.waits),
            kept: HashMap::new(),
        }
    }

    /// Restores the jobs of an earlier run, even if they exceed the current limits. Leases are
    /// extended by [`RESTART_GRACE`], so that their workers can reconnect.
    #[must_use]
    pub fn restore(
        limits: QueueLimits,
        now: Timestamp,
        records: impl IntoIterator<Item = Record>,
    ) -> Self {
        let mut machine = Self {
            clock: now,
            ..Self::new(limits)
        };
        for mut record in records {
            if let Some(loan) = &mut record.loan {
                // The clock of the earlier run may have been ahead of this one.
                loan.until = loan.until.clamp(now, now + loan.length) + RESTART_GRACE;
            }
            let latest = now + RETRY_MAX;
            record.not_before = record.not_before.map(|at| at.min(latest));
            machine.last_seq = machine.last_seq.max(record.seq);
            machine.put(record);
        }
        machine
    }

    /// Numbers later jobs from `seq + 1`.
    pub fn number_after(&mut self, seq: u64) {
        self.last_seq = self.last_seq.max(seq);
    }

    /// Returns the record of a job that is unfinished or whose end is not settled.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<&Record> {
        self.table.get(id)
    }

    /// Iterates over all records, in no particular order.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.table.records()
    }

    /// Returns a page of everybody's jobs that match: of the leased ones if the filter wants these,
    /// otherwise of the waiting ones.
    #[must_use]
    pub fn search(&self, filter: &JobFilter) -> JobPage {
        let mut page = JobPage::default();
        let seq = filter.after.map_or(u64::MAX, |after| after.seq);
        let is_leased = filter.state == Some(JobState::Leased);
        for record in self.table.before(is_leased, seq) {
            let at = Cursor {
                created_at: record.job.created_at,
                seq: record.seq,
            };
            if !page.offer(filter, at, Cow::Borrowed(&record.job)) {
                break;
            }
        }
        page
    }

    /// Iterates over the owner's records that are queries.
    pub fn queries(&self, owner: Owner<'_>) -> impl Iterator<Item = &Record> {
        self.table.queries(owner)
    }

    /// The latest time seen.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.clock
    }

    /// The limits of this machine.
    #[must_use]
    pub const fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Numbers of waiting and running jobs.
    #[must_use]
    pub const fn counts(&self) -> QueueCounts {
        self.table.counts()
    }

    /// A counter that rises whenever a job becomes available.
    #[must_use]
    pub const fn arrivals(&self) -> u64 {
        self.table.arrivals()
    }

    /// Time at which [`Machine::reap`] has something to do next.
    #[must_use]
    pub fn next_reap(&self) -> Option<Timestamp> {
        self.table.first_timer()
    }

    /// Accepts a job, if the limits allow it.
    ///
    /// # Errors
    /// [`QueueError::Full`], [`QueueError::AccountFull`], [`QueueError::Exists`].
    pub fn enqueue(&mut self, now: Timestamp, new: &NewJob) -> Result<Step, QueueError> {
        let now = self.tick(now);
        self.check_room(new)?;
        if self.get(new.id).is_some() {
            return Err(QueueError::Exists(format!("job {}", new.id)));
        }
        self.last_seq += 1;
        self.weigh(
            &new.account,
            signed(JOB_COST) + signed(new.body.0.len() as u64),
        );
        Ok(self.put(Record::new(self.last_seq, now, new)))
    }

    /// Whether [`Machine::lease`] would do anything.
    #[must_use]
    pub fn may_lend(&self, now: Timestamp, query: &LeaseQuery) -> bool {
        let now = self.clock.max(now);
        self.table.first_timer().is_some_and(|at| at <= now)
            || self.table.waiting.best(query).is_some()
    }

    /// Number of waiting jobs that match a query, counted up to `most`.
    #[must_use]
    pub fn waiting(&self, query: &LeaseQuery, most: usize) -> usize {
        self.table.waiting.count(query, most)
    }

    /// Size of the longest request of a waiting job, in bytes; 0 if none waits.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.table.waiting.longest()
    }

    /// Leases the best waiting job. The returned steps begin with what became due in the meantime;
    /// the lease, if there is one, is the last step.
    pub fn lease(
        &mut self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
    ) -> (Vec<Step>, Option<LeaseToken>) {
        let mut steps = self.reap(now);
        self.table.waiting.age(self.clock);
        let Some(id) = self.table.waiting.best(query) else {
            return (steps, None);
        };
        let Some(mut record) = self.get(id).cloned() else {
            return (steps, None);
        };
        record.job.state = JobState::Leased;
        record.job.attempt = record.job.attempt.saturating_add(1);
        record.not_before = None;
        record.loan = Some(Loan {
            until: self.clock + length,
            length,
        });
        let token = record.token();
        self.table.waiting.served(&record.job.new.account);
        steps.push(self.put(record));
        (steps, Some(token))
    }

    /// Number of jobs that will be leased before a waiting one by workers that serve these accounts
    /// and run these models, if nothing else arrives. `None` if the job does not wait, or not for
    /// them.
    pub fn before(
        &mut self,
        now: Timestamp,
        id: JobId,
        serve: &Serve,
        models: &Models,
    ) -> Option<usize> {
        let seq = self.get(id)?.seq;
        self.table.waiting.age(self.clock.max(now));
        self.table.waiting.before(seq, serve, models)
    }

    /// Renews a lease. Not persisted, because a restart extends every lease anyway. Without a
    /// `length` the lease is renewed for its original length, and never shortened.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    pub fn renew(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        length: Option<Duration>,
    ) -> Result<(), QueueError> {
        let now = self.tick(now);
        let Some(loan) = &self.held(token)?.loan else {
            return Err(QueueError::StaleLease(token.job));
        };
        let until = match length {
            Some(length) => now + length,
            None => loan.until.max(now + loan.length),
        };
        self.table.renew(now, token.job, until);
        Ok(())
    }

    /// Ends a job of which `have` lines were accepted. A repeated call returns no step.
    ///
    /// # Errors
    /// [`QueueError::Gap`], [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    pub fn complete(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        have: u64,
        lines: u64,
        end: proto::End,
    ) -> Result<Option<Step>, QueueError> {
        let now = self.tick(now);
        if let Some(ended) = self
            .get(token.job)
            .filter(|record| record.job.state.is_final())
        {
            return ended.accepts_again(token, &end).map(|()| None);
        }
        let record = self.held(token)?;
        if lines > have {
            return Err(QueueError::Gap {
                job: token.job,
                stored: have,
                got: lines,
            });
        }
        let end = if record.cancelled {
            proto::End::Cancelled
        } else {
            end
        };
        let ended = record.clone().ended(now, end);
        Ok(Some(self.put(ended)))
    }

    /// Returns a job to the queue, or fails it.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    pub fn nack(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<Step, QueueError> {
        let now = self.tick(now);
        let mut record = self.held(token)?.clone();
        if record.cancelled {
            return Ok(self.put(record.ended(now, proto::End::Cancelled)));
        }
        let failed = match retry {
            Retry::Now => false,
            Retry::Never => true,
            Retry::AfterMs(ms) => {
                record.tries += 1;
                record.not_before = Some(now + Duration::from_millis(ms).min(RETRY_MAX));
                record.tries >= self.limits.attempts_max
            }
        };
        Ok(self.put(if failed {
            record.ended(now, proto::End::Failed { error: why })
        } else {
            record.queued_again()
        }))
    }

    /// Cancels a job; returns no step if it was cancelled before.
    ///
    /// # Errors
    /// [`QueueError::UnknownJob`], [`QueueError::Ended`].
    pub fn cancel(
        &mut self,
        now: Timestamp,
        owner: Owner<'_>,
        id: JobId,
    ) -> Result<Option<Step>, QueueError> {
        let now = self.tick(now);
        let record = self
            .get(id)
            .filter(|record| owner.owns(&record.job.new.account))
            .ok_or(QueueError::UnknownJob(id))?;
        match record.job.state {
            JobState::Queued => {
                let ended = record.clone().ended(now, proto::End::Cancelled);
                Ok(Some(self.put(ended)))
            }
            JobState::Leased if record.cancelled => Ok(None),
            JobState::Leased => {
                let wished = Record {
                    cancelled: true,
                    ..record.clone()
                };
                Ok(Some(self.put(wished)))
            }
            ended @ (JobState::Completed | JobState::Failed | JobState::Cancelled) => {
                Err(QueueError::Ended(id, ended))
            }
        }
    }

    /// Applies everything that is due at `now`.
    pub fn reap(&mut self, now: Timestamp) -> Vec<Step> {
        let now = self.tick(now);
        let mut steps = Vec::new();
        while let Some(record) = self.table.take_due(now) {
            match due::decide(&record, now, &self.limits) {
                Some(decided) => steps.push(self.put(decided)),
                None => {
                    self.put(record);
                }
            }
        }
        steps
    }

    /// Forgets the jobs that ended in these steps, which are on disk.
    pub fn settle(&mut self, steps: &[Step]) {
        for step in steps.iter().filter(|step| step.after.job.state.is_final()) {
            self.table.remove(step.id());
        }
    }

    /// Reverts the most recent steps, which could not be stored. Renewed leases stay renewed.
    pub fn undo(&mut self, steps: Vec<Step>) {
        for step in steps.into_iter().rev() {
            let now_there = self.table.remove(step.id());
            let Some(mut before) = step.before else {
                let record = step.after;
                let cost = signed(JOB_COST) + signed(record.bytes as u64);
                self.weigh(&record.job.new.account, -cost);
                continue;
            };
            if let (Some(old), Some(new)) = (
                &mut before.loan,
                now_there.as_ref().and_then(|record| record.loan.as_ref()),
            ) && before.job.attempt == step.after.job.attempt
            {
                old.until = old.until.max(new.until);
            }
            self.put(before);
        }
    }

    /// Returns the record, if this lease holds the job.
    ///
    /// # Errors
    /// [`QueueError::StaleLease`], [`QueueError::UnknownJob`].
    pub fn held(&self, token: LeaseToken) -> Result<&Record, QueueError> {
        let record = self
            .get(token.job)
            .ok_or(QueueError::UnknownJob(token.job))?;
        if record.loan.is_some() && record.job.attempt == token.attempt {
            Ok(record)
        } else {
            Err(QueueError::StaleLease(token.job))
        }
    }

    /// Returns the current time, which never goes back even if the clock does.
    fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.clock = self.clock.max(now);
        self.clock
    }

    fn put(&mut self, record: Record) -> Step {
        let after = record.clone();
        let before = self.table.put(self.clock, record);
        Step { before, after }
    }
}

/// Error of a job whose workers disappeared too often.
fn lost_too_often(tries: u32) -> JobError {
    JobError::new(
        ErrorCode::TooManyAttempts,
        format!(
            "the job was tried {tries} times and never finished, the last time because its \
             agent was lost; submit it again"
        ),
    )
}
