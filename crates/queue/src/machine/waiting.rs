use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use proto::{Account, Dialect, JobId, ModelName, Priority, Timestamp, WorkerId};

use super::Record;
use crate::{LeaseQuery, Models, Serve};

/// After how long a waiting job becomes one level more urgent.
const RISE: Duration = Duration::from_secs(60);
/// Ten, and before them one for what waits for no slot.
const LEVELS: usize = 11;
/// Every waiting job stands under its model and under this, which no model is called.
const ANY: &str = "";
/// And queries stand under this, which no model is called either.
const QUERIES: &str = "?";
/// Jobs that change an engine's models stand under this alone; those that need the model under
/// this and its name.
const CHANGES: &str = "!";

/// The waiting jobs, found by urgency, model, account and age without looking at all of them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    levels: [HashMap<String, Shelf>; LEVELS],
    places: HashMap<u64, Place>,
    rising: BTreeSet<(Timestamp, u64)>,
    turns: HashMap<Account, Turn>,
    last_turn: u64,
    /// How many jobs wait for one worker each.
    chosen: usize,
}

/// The jobs of one model and level: by account, then by age.
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

/// What a change of an engine's models asks of the worker besides that it may.
#[derive(Debug, Clone, Copy)]
enum Change {
    OfAny,
    OfWhatItHas,
}

impl Place {
    /// The names of the shelves it stands on.
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

/// The account with the lowest number is next; it is numbered when it comes and when it is served.
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

    /// Moves up what has waited long enough.
    pub(super) fn rise(&mut self, now: Timestamp) {
        while let Some((_, seq)) = self.rising.first().copied().filter(|(at, _)| *at <= now) {
            let Some(place) = self.unshelve(seq) else {
                return;
            };
            self.shelve(now, seq, place);
        }
    }

    /// The account goes to the end of the line.
    pub(super) fn served(&mut self, account: &Account) {
        self.last_turn += 1;
        if let Some(turn) = self.turns.get_mut(account) {
            turn.number = self.last_turn;
        }
    }

    /// Priority first, then accounts in turn, then age.
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

    /// How many jobs a query finds on its shelves, counted up to `most`: what its key does not
    /// allow, or what is not for it among [`Models::AnyBut`], counts as well.
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

    /// How many jobs will be served before this one by workers that serve these accounts and run
    /// these models, as things are now: those more urgent, and of the equally urgent as many of
    /// each account as have their turn before.
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
        // The accounts in turn; those served on one level come after the others on the next.
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
                // Whoever has more to be served is served last.
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
        // However long it waits, nothing becomes what waits for no slot.
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

/// How many levels, from the most urgent on, a query looks at.
fn levels_of(query: &LeaseQuery) -> usize {
    match &query.models {
        Models::OnlyUrgent(_) => 1,
        Models::Any | Models::AnyBut(_) | Models::AnyForQueries | Models::Only(_) => LEVELS,
    }
}

/// Under what stands what only this worker may have. No name holds a line feed.
fn only_for(worker: &WorkerId, key: &str) -> String {
    format!("{worker}\n{key}")
}

/// Where the changes of a model stand that a worker must have.
fn changed(model: &str) -> String {
    format!("{CHANGES}{model}")
}

/// Under what the jobs for these models stand that are not left to others, and those that are for
/// this worker alone.
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
