//! The records of all jobs, with their indexes, timers and counters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use proto::{Account, Dialect, JobId, JobState, Timestamp};

use super::{Record, due, waiting::Waiting};
use crate::{Owner, QueueCounts};

/// The records with everything that is indexed or counted about them.
#[derive(Debug)]
pub(super) struct Table {
    /// Maximum waiting time of a job without a deadline.
    waits: Duration,
    slots: HashMap<JobId, Slot>,
    /// The ids of the waiting and of the leased jobs, by whether they are leased and by age.
    ages: BTreeMap<(bool, u64), JobId>,
    pub(super) waiting: Waiting,
    /// Times at which to look at a job again. Renewing a lease leaves its timer in place; it is
    /// moved when it fires early, which saves moving it at every renewal.
    timers: BTreeSet<(Timestamp, JobId)>,
    per_account: HashMap<Account, Share>,
    /// Index of the queries, by account and age.
    queries: BTreeSet<(Account, u64, JobId)>,
    counts: QueueCounts,
    arrivals: u64,
}

/// Key of a query in the index.
fn named(record: &Record) -> Option<(Account, u64, JobId)> {
    let new = &record.job.new;
    (new.dialect == Dialect::Queries).then(|| (new.account.clone(), record.seq, new.id))
}

/// Index of the counter for the job's priority.
fn level(record: &Record) -> usize {
    usize::from(record.job.new.priority.level()).min(10)
}

/// Waiting jobs of one account: their number and bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) jobs: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    timer: Option<Timestamp>,
}

impl Table {
    pub(super) fn new(waits: Duration) -> Self {
        Self {
            waits,
            slots: HashMap::new(),
            ages: BTreeMap::new(),
            waiting: Waiting::default(),
            timers: BTreeSet::new(),
            per_account: HashMap::new(),
            queries: BTreeSet::new(),
            counts: QueueCounts::default(),
            arrivals: 0,
        }
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Record> {
        self.slots.get(&id).map(|slot| &slot.record)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.slots.values().map(|slot| &slot.record)
    }

    /// Iterates over the waiting or the leased jobs with a sequence number below `seq`, newest first.
    pub(super) fn before(&self, is_leased: bool, seq: u64) -> impl Iterator<Item = &Record> {
        let older = self.ages.range((is_leased, 0)..(is_leased, seq)).rev();
        older.filter_map(|(_, id)| self.get(*id))
    }

    /// Iterates over the owner's records that are queries.
    pub(super) fn queries(&self, owner: Owner<'_>) -> impl Iterator<Item = &Record> {
        let all = match owner {
            Owner::Account(account) => {
                let first = (account.clone(), 0, JobId([0; 16]));
                let last = (account.clone(), u64::MAX, JobId([u8::MAX; 16]));
                self.queries.range(first..=last)
            }
            Owner::Anyone => self.queries.range(..),
        };
        all.filter_map(|(_, _, id)| self.get(*id))
    }

    pub(super) const fn counts(&self) -> QueueCounts {
        self.counts
    }

    /// A counter that rises whenever a job becomes available.
    pub(super) const fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Waiting jobs of an account.
    pub(super) fn queued_by(&self, account: &Account) -> Share {
        self.per_account.get(account).copied().unwrap_or_default()
    }

    pub(super) fn first_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Removes the first due timer and returns a copy of its record, which must be put back,
    /// changed or not. Records are taken in the order in which they became due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Record> {
        loop {
            let (at, id) = self.timers.first().copied().filter(|(at, _)| *at <= now)?;
            self.timers.remove(&(at, id));
            let slot = self.slots.get_mut(&id)?;
            let is_lent = slot.record.loan.is_some();
            let later = due::timer(&slot.record, at, self.waits);
            let Some(later) = later.filter(|later| is_lent && *later > at) else {
                return Some(slot.record.clone());
            };
            slot.timer = Some(later);
            self.timers.insert((later, id));
        }
    }

    /// Moves the end of a lease. The timer stays, unless the lease would end before it.
    pub(super) fn renew(&mut self, now: Timestamp, id: JobId, until: Timestamp) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if let Some(loan) = &mut slot.record.loan {
            loan.until = until;
        }
        if slot.timer.is_some_and(|at| until < at) {
            let record = slot.record.clone();
            self.put(now, record);
        }
    }

    /// Inserts a record; returns the one with the same id that it replaces.
    pub(super) fn put(&mut self, now: Timestamp, record: Record) -> Option<Record> {
        let id = record.job.new.id;
        let before = self.remove(id);
        let timer = due::timer(&record, now, self.waits);
        if let Some(query) = named(&record) {
            self.queries.insert(query);
        }
        self.timers.extend(timer.map(|at| (at, id)));
        match record.job.state {
            JobState::Queued => {
                self.ages.insert((false, record.seq), id);
                let account = record.job.new.account.clone();
                self.counts.queued += 1;
                self.counts.by_priority[level(&record)] += 1;
                self.counts.queued_bytes += record.bytes;
                let share = self.per_account.entry(account).or_default();
                share.jobs += 1;
                share.bytes += record.bytes;
                if record.not_before.is_none_or(|at| at <= now) {
                    self.waiting.insert(now, &record);
                    self.arrivals += 1;
                }
            }
            JobState::Leased => {
                self.ages.insert((true, record.seq), id);
                self.counts.leased += 1;
            }
            JobState::Completed | JobState::Failed | JobState::Cancelled => {}
        }
        self.slots.insert(id, Slot { record, timer });
        before
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Record> {
        let Slot { record, timer } = self.slots.remove(&id)?;
        if let Some(at) = timer {
            self.timers.remove(&(at, id));
        }
        if let Some(query) = named(&record) {
            self.queries.remove(&query);
        }
        match record.job.state {
            JobState::Queued => {
                self.ages.remove(&(false, record.seq));
                self.counts.queued -= 1;
                self.counts.by_priority[level(&record)] -= 1;
                self.counts.queued_bytes -= record.bytes;
                self.waiting.remove(record.seq);
                if let Some(share) = self.per_account.get_mut(&record.job.new.account) {
                    share.jobs -= 1;
                    share.bytes -= record.bytes;
                    if share.jobs == 0 {
                        self.per_account.remove(&record.job.new.account);
                    }
                }
            }
            JobState::Leased => {
                self.ages.remove(&(true, record.seq));
                self.counts.leased -= 1;
            }
            JobState::Completed | JobState::Failed | JobState::Cancelled => {}
        }
        Some(record)
    }
}
