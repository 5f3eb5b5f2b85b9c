//! The waiting jobs, indexed so that the next one for a worker is found without a full scan.
//!
//! Order: priority, which rises by one level per minute of waiting; then accounts in turn; then
//! age. Each job is on one shelf per key it can be found by; a key is a model name or one of the
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
const RISE: Duration = Duration::from_secs(60);
/// Ten priorities, and one before them for urgent jobs, which need no slot.
const LEVELS: usize = 11;
/// Key of every waiting job except model changes. No model has this name.
const ANY: &str = "";
/// Key of all queries. No model has this name.
const QUERIES: &str = "?";
/// Key of jobs that change an engine's models without needing one; those that need a model have
/// this followed by the model's name.
const CHANGES: &str = "!";

/// The waiting jobs, by priority level, key, account and age.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    levels: [HashMap<String, Shelf>; LEVELS],
    places: HashMap<u64, Place>,
    rising: BTreeSet<(Timestamp, u64)>,
    turns: HashMap<Account, Turn>,
    last_turn: u64,
    /// Number of jobs that name a worker.
    chosen: usize,
}

/// The jobs of one key and level: by account, then by age.
type Shelf = BTreeMap<Account, BTreeMap<u64, JobId>>;

#[derive(Debug)]
struct Place {
    id: JobId,
    account: Account,
    model: String,
    is_query: bool,
    change: Option<Change>,
    worker: Option<WorkerId>,
    priority: Priority,
    since: Timestamp,
    level: usize,
    rises_at: Option<Timestamp>,
}

/// Whether a job that changes models needs a worker that has the model.
#[derive(Debug, Clone, Copy)]
enum Change {
    OfAny,
    OfWhatItHas,
}

impl Place {
    /// The keys of the shelves that hold the job.
    fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let (model, any) = match self.change {
            None => (Cow::Borrowed(self.model.as_str()), Some(ANY)),
            Some(Change::OfAny) => (Cow::Borrowed(CHANGES), None),
            Some(Change::OfWhatItHas) => (Cow::Owned(changed(&self.model)), None),
        };
        let query = self.is_query.then_some(QUERIES);
        let others = [any, query].into_iter().flatten().map(Cow::Borrowed);
        let keys = std::iter::once(model).chain(others);
        keys.map(|key| match &self.worker {
            None => key,
            Some(worker) => Cow::Owned(only_for(worker, &key)),
        })
    }
}

/// Turn of an account. The lowest number is next; an account is numbered when its first job arrives
/// and when it is served.
#[derive(Debug)]
struct Turn {
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
            .or_insert(Turn { number, jobs: 0 });
        turn.jobs += 1;
        let place = Place {
            id: new.id,
            account: new.account.clone(),
            model: new.model.canonical(),
            is_query: new.dialect == Dialect::Queries,
            change: new.op.changes_models().then(|| {
                if new.op.needs_model() {
                    Change::OfWhatItHas
                } else {
                    Change::OfAny
                }
            }),
            worker: new.worker.clone(),
            priority: new.priority,
            since: record.job.created_at,
            level: 0,
            rises_at: None,
        };
        self.chosen += usize::from(place.worker.is_some());
        self.shelve(now, record.seq, place);
    }

    pub(super) fn remove(&mut self, seq: u64) {
        let Some(place) = self.unshelve(seq) else {
            return;
        };
        self.chosen -= usize::from(place.worker.is_some());
        if let Some(turn) = self.turns.get_mut(&place.account) {
            turn.jobs -= 1;
            if turn.jobs == 0 {
                self.turns.remove(&place.account);
            }
        }
    }

    /// Raises the level of jobs that have waited long enough.
    pub(super) fn rise(&mut self, now: Timestamp) {
        while let Some((_, seq)) = self.rising.first().copied().filter(|(at, _)| *at <= now) {
            let Some(place) = self.unshelve(seq) else {
                return;
            };
            self.shelve(now, seq, place);
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
        self.levels.iter().take(levels_of(query)).find_map(|level| {
            keys.iter()
                .filter_map(|key| level.get(key))
                .filter_map(|shelf| self.first_on(shelf, query))
                .min()
                .map(|(_, _, id)| id)
        })
    }

    /// Number of jobs on the shelves that a query looks at, counted up to `most`. Includes jobs
    /// that the query's patterns or [`Models::AnyBut`] exclude.
    pub(super) fn count(&self, query: &LeaseQuery, most: usize) -> usize {
        let keys = self.keys_for(query);
        let levels = self.levels.iter().take(levels_of(query));
        let shelves = levels.flat_map(|level| keys.iter().filter_map(|key| level.get(key)));
        let mut count = 0;
        for (account, jobs) in shelves.flatten() {
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
        keys_of(&query.models, query.changes, worker, &query.left)
    }

    /// Number of jobs that will be leased before this one by workers that serve these accounts and
    /// run these models, if nothing else arrives: all of higher levels, and of the same level as
    /// many of each account as have their turn before.
    pub(super) fn before(&self, seq: u64, serve: &Serve, models: &Models) -> Option<usize> {
        let place = self.places.get(&seq)?;
        let keys = keys_of(models, false, place.worker.as_ref(), &BTreeSet::new());
        if !place.keys().any(|key| keys.contains(&*key)) {
            return None;
        }
        let shelves = |level: usize| {
            keys.iter()
                .filter_map(move |key| self.levels[level].get(key))
        };
        let mut before = 0;
        // Accounts in order of their turn; those served on one level come after the others on the
        // next.
        let mut line: Vec<&Account> = self.turns.keys().filter(|a| serve.includes(a)).collect();
        line.sort_unstable_by_key(|account| self.turns.get(*account).map(|turn| turn.number));
        for level in 0..=place.level {
            let count = |account: &Account| -> usize {
                shelves(level)
                    .filter_map(|shelf| shelf.get(account))
                    .map(BTreeMap::len)
                    .sum()
            };
            let counts: Vec<usize> = line.iter().map(|account| count(account)).collect();
            if level < place.level {
                before += counts.iter().sum::<usize>();
                let mut ranked: Vec<_> = counts.into_iter().zip(line).collect();
                // The account with the most jobs on this level is served last.
                ranked.sort_by_key(|(count, _)| *count);
                line = ranked.into_iter().map(|(_, account)| account).collect();
                continue;
            }
            let own = line.iter().position(|account| **account == place.account)?;
            let older: usize = shelves(level)
                .filter_map(|shelf| shelf.get(&place.account))
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

    fn first_on(&self, shelf: &Shelf, query: &LeaseQuery) -> Option<(u64, u64, JobId)> {
        let may_run = |seq: &u64| {
            let place = self.places.get(seq);
            place.is_some_and(|place| query.within.allow_canonical(&place.model))
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
            Serve::All => shelf
                .iter()
                .filter_map(|(account, jobs)| rank(account, jobs))
                .min(),
            Serve::Accounts(accounts) => accounts
                .iter()
                .filter_map(|account| rank(account, shelf.get(account)?))
                .min(),
        }
    }

    fn shelve(&mut self, now: Timestamp, seq: u64, place: Place) {
        let base = usize::from(place.priority.level()).min(LEVELS - 1);
        // Only urgent jobs have level 0; no waiting time raises another job to it.
        let first = usize::from(!place.priority.is_urgent());
        let minutes = now.since(place.since).as_secs() / RISE.as_secs();
        let risen = usize::try_from(minutes).unwrap_or(usize::MAX);
        let level = base.saturating_sub(risen).max(first);
        let rises_at = (level > first).then(|| {
            let steps = u32::try_from(base - level + 1).unwrap_or(u32::MAX);
            place.since + RISE * steps
        });
        if let Some(at) = rises_at {
            self.rising.insert((at, seq));
        }
        for key in place.keys() {
            let shelf = self.levels[level].entry(key.into_owned()).or_default();
            shelf
                .entry(place.account.clone())
                .or_default()
                .insert(seq, place.id);
        }
        self.places.insert(
            seq,
            Place {
                level,
                rises_at,
                ..place
            },
        );
    }

    fn unshelve(&mut self, seq: u64) -> Option<Place> {
        let place = self.places.remove(&seq)?;
        if let Some(at) = place.rises_at {
            self.rising.remove(&(at, seq));
        }
        for key in place.keys() {
            let Some(shelf) = self.levels[place.level].get_mut(&*key) else {
                continue;
            };
            if let Some(jobs) = shelf.get_mut(&place.account) {
                jobs.remove(&seq);
                if jobs.is_empty() {
                    shelf.remove(&place.account);
                }
            }
            if shelf.is_empty() {
                self.levels[place.level].remove(&*key);
            }
        }
        Some(place)
    }
}

/// Number of levels, from the most urgent one, that a query looks at.
fn levels_of(query: &LeaseQuery) -> usize {
    match &query.models {
        Models::OnlyUrgent(_) => 1,
        Models::Any | Models::AnyBut(_) | Models::AnyForQueries | Models::Only(_) => LEVELS,
    }
}

/// Key of jobs that name this worker. No worker or model name contains a line feed.
fn only_for(worker: &WorkerId, key: &str) -> String {
    format!("{worker}\n{key}")
}

/// Key of the changes that need this model.
fn changed(model: &str) -> String {
    format!("{CHANGES}{model}")
}

/// Keys that a worker looks at: those of its models without the ones left to others, and all keys
/// of jobs that name this worker.
fn keys_of(
    models: &Models,
    changes: bool,
    worker: Option<&WorkerId>,
    left: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut keys = keys_of_models(models);
    if changes {
        let with_model: Vec<_> = keys.iter().map(|name| changed(name)).collect();
        keys.extend(with_model);
        keys.insert(CHANGES.into());
    }
    let own: Vec<_> = worker
        .into_iter()
        .flat_map(|worker| keys.iter().map(|key| only_for(worker, key)))
        .collect();
    let shared = keys.into_iter().filter(|key| !left.contains(key));
    shared.chain(own).collect()
}

fn keys_of_models(models: &Models) -> BTreeSet<String> {
    match models {
        Models::Any | Models::AnyBut(_) => BTreeSet::from([ANY.into()]),
        Models::AnyForQueries => BTreeSet::from([QUERIES.into()]),
        Models::Only(models) | Models::OnlyUrgent(models) => {
            models.iter().map(ModelName::canonical).collect()
        }
    }
}
