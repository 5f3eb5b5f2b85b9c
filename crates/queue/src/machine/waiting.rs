//! The waiting jobs, indexed so that the next one for a worker is found without a full scan.
//!
//! Order: priority, which rises by one level per minute of waiting; then accounts in turn; then
//! age. Each job is in one bucket per key it can be found by; a key is a model name or one of the
//! constants below, optionally prefixed with a worker's name.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use proto::{Account, Dialect, JobId, ModelName, Priority, Timestamp, WorkerId};

use super::Record;
use crate::{LeaseQuery, Models, Serve};

/// Waiting time after which a job rises by one priority level.
const AGING_STEP: Duration = Duration::from_secs(60);
/// Ten priorities, and one before them for urgent jobs, which need no slot.
const LEVELS: usize = 11;
/// Key of every waiting job except model changes. No model has this name.
const ANY_MODEL: &str = "";
/// Key of all queries. No model has this name.
const ANY_QUERY: &str = "?";
/// Key of jobs that change an engine's models without needing one; those that need a model have
/// this followed by the model's name.
const ANY_CHANGE: &str = "!";

/// The waiting jobs, by priority level, key, account and age.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    levels: [HashMap<String, Bucket>; LEVELS],
    jobs: HashMap<u64, WaitingJob>,
    aging: BTreeSet<(Timestamp, u64)>,
    turns: HashMap<Account, AccountTurn>,
    last_turn: u64,
    /// Number of jobs that name a worker.
    chosen: usize,
}

/// The jobs of one key and level: by account, then by age.
type Bucket = BTreeMap<Account, BTreeMap<u64, JobId>>;

#[derive(Debug)]
struct WaitingJob {
    id: JobId,
    account: Account,
    model: String,
    is_query: bool,
    change: Option<ModelChange>,
    worker: Option<WorkerId>,
    priority: Priority,
    since: Timestamp,
    level: usize,
    ages_at: Option<Timestamp>,
}

/// Whether a job that changes models needs a worker that has the model.
#[derive(Debug, Clone, Copy)]
enum ModelChange {
    Any,
    OfOwned,
}

impl WaitingJob {
    /// The keys of the buckets that hold the job.
    fn bucket_keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let (model, any) = match self.change {
            None => (Cow::Borrowed(self.model.as_str()), Some(ANY_MODEL)),
            Some(ModelChange::Any) => (Cow::Borrowed(ANY_CHANGE), None),
            Some(ModelChange::OfOwned) => (Cow::Owned(change_key(&self.model)), None),
        };
        let query = self.is_query.then_some(ANY_QUERY);
        let others = [any, query].into_iter().flatten().map(Cow::Borrowed);
        let keys = std::iter::once(model).chain(others);
        keys.map(|key| match &self.worker {
            None => key,
            Some(worker) => Cow::Owned(key_for_worker(worker, &key)),
        })
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
        let job = WaitingJob {
            id: new.id,
            account: new.account.clone(),
            model: new.model.canonical(),
            is_query: new.dialect == Dialect::Queries,
            change: new.op.changes_models().then(|| {
                if new.op.needs_model() {
                    ModelChange::OfOwned
                } else {
                    ModelChange::Any
                }
            }),
            worker: new.worker.clone(),
            priority: new.priority,
            since: record.job.created_at,
            level: 0,
            ages_at: None,
        };
        self.chosen += usize::from(job.worker.is_some());
        self.index(now, record.seq, job);
    }

    pub(super) fn remove(&mut self, seq: u64) {
        let Some(job) = self.unindex(seq) else {
            return;
        };
        self.chosen -= usize::from(job.worker.is_some());
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

    /// Returns the best job for a query: by priority, then accounts in turn, then age.
    pub(super) fn best(&self, query: &LeaseQuery) -> Option<JobId> {
        let keys = self.keys_for(query);
        self.levels
            .iter()
            .take(level_count(query))
            .find_map(|level| {
                keys.iter()
                    .filter_map(|key| level.get(key))
                    .filter_map(|bucket| self.first_on(bucket, query))
                    .min()
                    .map(|(_, _, id)| id)
            })
    }

    /// Number of jobs in the buckets that a query looks at, counted up to `most`. Includes jobs
    /// that the query's patterns or [`Models::AnyBut`] exclude.
    pub(super) fn count(&self, query: &LeaseQuery, most: usize) -> usize {
        let keys = self.keys_for(query);
        let levels = self.levels.iter().take(level_count(query));
        let buckets = levels.flat_map(|level| keys.iter().filter_map(|key| level.get(key)));
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

    fn keys_for(&self, query: &LeaseQuery) -> BTreeSet<String> {
        let worker = Some(&query.worker).filter(|_| self.chosen > 0);
        keys_of(
            &query.models,
            query.accepts_model_changes,
            worker,
            &query.excluded_models,
        )
    }

    /// Number of jobs that will be leased before this one by workers that serve these accounts and
    /// run these models, if nothing else arrives: all of higher levels, and of the same level as
    /// many of each account as have their turn before.
    pub(super) fn before(&self, seq: u64, serve: &Serve, models: &Models) -> Option<usize> {
        let job = self.jobs.get(&seq)?;
        let keys = keys_of(models, false, job.worker.as_ref(), &BTreeSet::new());
        if !job.bucket_keys().any(|key| keys.contains(&*key)) {
            return None;
        }
        let buckets = |level: usize| {
            keys.iter()
                .filter_map(move |key| self.levels[level].get(key))
        };
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
                .map(|jobs| jobs.range(..seq).count())
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
            let job = self.jobs.get(seq);
            job.is_some_and(|job| query.allowed_models.allow_canonical(&job.model))
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
        for key in job.bucket_keys() {
            let bucket = self.levels[level].entry(key.into_owned()).or_default();
            bucket
                .entry(job.account.clone())
                .or_default()
                .insert(seq, job.id);
        }
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
        for key in job.bucket_keys() {
            let Some(bucket) = self.levels[job.level].get_mut(&*key) else {
                continue;
            };
            if let Some(jobs) = bucket.get_mut(&job.account) {
                jobs.remove(&seq);
                if jobs.is_empty() {
                    bucket.remove(&job.account);
                }
            }
            if bucket.is_empty() {
                self.levels[job.level].remove(&*key);
            }
        }
        Some(job)
    }
}

/// Number of levels, from the most urgent one, that a query looks at.
fn level_count(query: &LeaseQuery) -> usize {
    match &query.models {
        Models::OnlyUrgent(_) => 1,
        Models::Any | Models::AnyBut(_) | Models::AnyForQueries | Models::Only(_) => LEVELS,
    }
}

/// Key of jobs that name this worker. No worker or model name contains a line feed.
fn key_for_worker(worker: &WorkerId, key: &str) -> String {
    format!("{worker}\n{key}")
}

/// Key of the changes that need this model.
fn change_key(model: &str) -> String {
    format!("{ANY_CHANGE}{model}")
}

/// Keys that a worker looks at: those of its models without the ones left to others, and all keys
/// of jobs that name this worker.
fn keys_of(
    models: &Models,
    accepts_model_changes: bool,
    worker: Option<&WorkerId>,
    excluded_models: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut keys = keys_of_models(models);
    if accepts_model_changes {
        let with_model: Vec<_> = keys.iter().map(|name| change_key(name)).collect();
        keys.extend(with_model);
        keys.insert(ANY_CHANGE.into());
    }
    let own: Vec<_> = worker
        .into_iter()
        .flat_map(|worker| keys.iter().map(|key| key_for_worker(worker, key)))
        .collect();
    let shared = keys
        .into_iter()
        .filter(|key| !excluded_models.contains(key));
    shared.chain(own).collect()
}

fn keys_of_models(models: &Models) -> BTreeSet<String> {
    match models {
        Models::Any | Models::AnyBut(_) => BTreeSet::from([ANY_MODEL.into()]),
        Models::AnyForQueries => BTreeSet::from([ANY_QUERY.into()]),
        Models::Only(models) | Models::OnlyUrgent(models) => {
            models.iter().map(ModelName::canonical).collect()
        }
    }
}
