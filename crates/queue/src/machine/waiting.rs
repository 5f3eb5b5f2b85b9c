//! The waiting jobs, indexed so that the next one for a worker is found without a full scan.
//!
//! Order: priority, which rises by one level per minute of waiting; then accounts in turn; then
//! age.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    time::Duration,
};

use proto::{Account, JobId, Priority, Timestamp, WorkerId};

use super::{
    Record,
    buckets::{self, Bucket, BucketKey, Level, Search},
};
use crate::{LeaseQuery, Models, Serve};

/// Waiting time after which a job rises by one priority level.
pub const AGING_STEP: Duration = Duration::from_secs(60);
/// Ten priorities, and one before them for urgent jobs, which need no slot.
const LEVELS: usize = 11;

/// The waiting jobs, by priority level, key, account and age.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    levels: [Level; LEVELS],
    jobs: HashMap<u64, WaitingJob>,
    aging: BTreeSet<(Timestamp, u64)>,
    turns: HashMap<Account, AccountTurn>,
    /// Numbers of jobs by the size of their request.
    sizes: BTreeMap<usize, usize>,
    last_turn: u64,
}

#[derive(Debug)]
struct WaitingJob {
    id: JobId,
    account: Account,
    /// Canonical name.
    model: String,
    /// Keys of the buckets that hold it.
    keys: [Option<BucketKey>; 3],
    worker: Option<WorkerId>,
    /// Size of its request.
    bytes: usize,
    priority: Priority,
    since: Timestamp,
    level: usize,
    ages_at: Option<Timestamp>,
}

impl WaitingJob {
    const fn entry(&self, seq: u64) -> buckets::Entry<'_> {
        buckets::Entry {
            keys: &self.keys,
            worker: self.worker.as_ref(),
            account: &self.account,
            seq,
        }
    }
}

/// Turn of an account. The lowest number is next; an account is numbered when its first job arrives
/// and when it is served.
#[derive(Debug)]
struct AccountTurn {
    number: u64,
    jobs: usize,
}

impl Waiting {
    pub(super) fn insert(&mut self, now: Timestamp, record: &Record) {
        let new = &record.job.new;
        self.last_turn += 1;
        let number = self.last_turn;
        let turn = self
            .turns
            .entry(new.account.clone())
            .or_insert(AccountTurn { number, jobs: 0 });
        turn.jobs += 1;
        *self.sizes.entry(record.bytes).or_default() += 1;
        let model = new.model.canonical();
        let job = WaitingJob {
            id: new.id,
            account: new.account.clone(),
            keys: BucketKey::of(new, &model),
            model,
            worker: new.worker.clone(),
            bytes: record.bytes,
            priority: new.priority,
            since: record.job.created_at,
            level: 0,
            ages_at: None,
        };
        self.index(now, record.seq, job);
    }

    pub(super) fn remove(&mut self, seq: u64) {
        let Some(job) = self.unindex(seq) else {
            return;
        };
        if let Entry::Occupied(mut alike) = self.sizes.entry(job.bytes) {
            *alike.get_mut() -= 1;
            if *alike.get() == 0 {
                alike.remove();
            }
        }
        if let Some(turn) = self.turns.get_mut(&job.account) {
            turn.jobs -= 1;
            if turn.jobs == 0 {
                self.turns.remove(&job.account);
            }
        }
    }

    /// Raises the level of jobs that have waited long enough.
    pub(super) fn age(&mut self, now: Timestamp) {
        while let Some((_, seq)) = self.aging.first().copied().filter(|(at, _)| *at <= now) {
            let Some(job) = self.unindex(seq) else {
                return;
            };
            self.index(now, seq, job);
        }
    }

    /// Moves the account to the end of the line.
    pub(super) fn served(&mut self, account: &Account) {
        self.last_turn += 1;
        if let Some(turn) = self.turns.get_mut(account) {
            turn.number = self.last_turn;
        }
    }

    /// Size of the longest request, in bytes; 0 if there is none.
    pub(super) fn longest(&self) -> usize {
        self.sizes.last_key_value().map_or(0, |(bytes, _)| *bytes)
    }

    /// Returns the best job for a query: by priority, then accounts in turn, then age.
    pub(super) fn best(&self, query: &LeaseQuery) -> Option<JobId> {
        let (shortest, _) = self.sizes.first_key_value()?;
        if query.request_max < *shortest {
            return None;
        }
        let search = Search::of(query);
        let mut levels = self.levels.iter().take(level_count(query));
        levels.find_map(|level| {
            let buckets = search.buckets(level);
            let found = buckets.filter_map(|bucket| self.first_on(bucket, query));
            found.min().map(|(_, _, id)| id)
        })
    }

    /// Number of jobs in the buckets that a query looks at, counted up to `most`. Includes jobs
    /// that the query's patterns, its [`LeaseQuery::request_max`] or [`Models::AnyBut`] exclude.
    pub(super) fn count(&self, query: &LeaseQuery, most: usize) -> usize {
        let search = Search::of(query);
        let levels = self.levels.iter().take(level_count(query));
        let buckets = levels.flat_map(|level| search.buckets(level));
        let mut count = 0;
        for (account, jobs) in buckets.flatten() {
            if query.serve.includes(account) {
                count += jobs.len();
            }
            if count >= most {
                return most;
            }
        }
        count
    }

    /// Number of jobs that will be leased before this one by workers that serve these accounts and
    /// run these models, if nothing else arrives: all of higher levels, and of the same level as
    /// many of each account as have their turn before.
    pub(super) fn before(&self, seq: u64, serve: &Serve, models: &Models) -> Option<usize> {
        let job = self.jobs.get(&seq)?;
        let search = Search::among(models, job.worker.as_ref());
        if !search.includes(&job.keys) {
            return None;
        }
        let buckets = |level: usize| search.buckets(&self.levels[level]);
        let mut before = 0;
        // Accounts in order of their turn; those served on one level come after the others on the
        // next.
        let mut line: Vec<&Account> = self.turns.keys().filter(|a| serve.includes(a)).collect();
        line.sort_unstable_by_key(|account| self.turns.get(*account).map(|turn| turn.number));
        for level in 0..=job.level {
            let count = |account: &Account| -> usize {
                buckets(level)
                    .filter_map(|bucket| bucket.get(account))
                    .map(BTreeMap::len)
                    .sum()
            };
            let counts: Vec<usize> = line.iter().map(|account| count(account)).collect();
            if level < job.level {
                before += counts.iter().sum::<usize>();
                let mut ranked: Vec<_> = counts.into_iter().zip(line).collect();
                // The account with the most jobs on this level is served last.
                ranked.sort_by_key(|(count, _)| *count);
                line = ranked.into_iter().map(|(_, account)| account).collect();
                continue;
            }
            let own = line.iter().position(|account| **account == job.account)?;
            let older: usize = buckets(level)
                .filter_map(|bucket| bucket.get(&job.account))
                .map(|jobs| older_than(seq, jobs))
                .sum();
            let others = counts.iter().enumerate().filter(|(rank, _)| *rank != own);
            before += older;
            before += others
                .map(|(rank, count)| (*count).min(older + usize::from(rank < own)))
                .sum::<usize>();
        }
        Some(before)
    }

    fn first_on(&self, bucket: &Bucket, query: &LeaseQuery) -> Option<(u64, u64, JobId)> {
        let may_run = |seq: &u64| {
            self.jobs.get(seq).is_some_and(|job| {
                job.bytes <= query.request_max && query.allowed_models.allow_canonical(&job.model)
            })
        };
        let is_for_it = |id: &JobId| match &query.models {
            Models::AnyBut(others) => !others.contains(id),
            Models::Any | Models::AnyForQueries | Models::Only(_) | Models::OnlyUrgent(_) => true,
        };
        let rank = |account: &Account, jobs: &BTreeMap<u64, JobId>| {
            let mut jobs = jobs.iter();
            let (seq, id) = jobs.find(|(seq, id)| is_for_it(id) && may_run(seq))?;
            Some((self.turns.get(account)?.number, *seq, *id))
        };
        match &query.serve {
            Serve::All => bucket
                .iter()
                .filter_map(|(account, jobs)| rank(account, jobs))
                .min(),
            Serve::Accounts(accounts) => accounts
                .iter()
                .filter_map(|account| rank(account, bucket.get(account)?))
                .min(),
        }
    }

    fn index(&mut self, now: Timestamp, seq: u64, job: WaitingJob) {
        let base = usize::from(job.priority.level()).min(LEVELS - 1);
        // Only urgent jobs have level 0; no waiting time raises another job to it.
        let first = usize::from(!job.priority.is_urgent());
        let minutes = now.since(job.since).as_secs() / AGING_STEP.as_secs();
        let risen = usize::try_from(minutes).unwrap_or(usize::MAX);
        let level = base.saturating_sub(risen).max(first);
        let ages_at = (level > first).then(|| {
            let steps = u32::try_from(base - level + 1).unwrap_or(u32::MAX);
            job.since + AGING_STEP * steps
        });
        if let Some(at) = ages_at {
            self.aging.insert((at, seq));
        }
        self.levels[level].insert(job.entry(seq), job.id);
        self.jobs.insert(
            seq,
            WaitingJob {
                level,
                ages_at,
                ..job
            },
        );
    }

    fn unindex(&mut self, seq: u64) -> Option<WaitingJob> {
        let job = self.jobs.remove(&seq)?;
        if let Some(at) = job.ages_at {
            self.aging.remove(&(at, seq));
        }
        self.levels[job.level].remove(job.entry(seq));
        Some(job)
    }
}

/// Number of jobs that are older than this one, counted from the nearer end: the position of a job
/// that has just been submitted costs the same however many wait.
fn older_than(seq: u64, jobs: &BTreeMap<u64, JobId>) -> usize {
    let (mut older, mut newer) = (jobs.range(..seq), jobs.range(seq..));
    let mut passed = 0;
    loop {
        if older.next().is_none() {
            return passed;
        }
        if newer.next().is_none() {
            return jobs.len() - passed;
        }
        passed += 1;
    }
}

/// Number of levels, from the most urgent one, that a query looks at.
fn level_count(query: &LeaseQuery) -> usize {
    match &query.models {
        Models::OnlyUrgent(_) => 1,
        Models::Any | Models::AnyBut(_) | Models::AnyForQueries | Models::Only(_) => LEVELS,
    }
}
