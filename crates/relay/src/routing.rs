//! Chooses which of several workers with free slots gets a job: one with the model in memory before
//! one that must load it, then the least busy, then the one that was served longest ago.
//!
//! Jobs are not assigned. Each worker's own loop asks the queue, but only for the models for which
//! the worker ranks first; a worker that becomes first is woken. Workers that serve the same
//! accounts are ranked together, and those that serve all accounts are ranked with every group.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use proto::WorkerReport;
use queue::Serve;
use tokio::sync::Notify;

/// Models of a worker by canonical name; `true` if the model is in memory.
pub(crate) type ReportedModels = Arc<BTreeMap<String, bool>>;

/// Returns the models of a report, for all loads of its worker until the next report.
pub(crate) fn reported_models(report: &WorkerReport) -> ReportedModels {
    let models = report.models.iter();
    let models = models.map(|model| (model.name.canonical(), model.loaded));
    Arc::new(models.collect())
}

/// A worker with free slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerLoad {
    pub(crate) serve: Serve,
    pub(crate) models: ReportedModels,
    pub(crate) slots: usize,
    /// Number of slots in use, or about to be.
    pub(crate) busy: usize,
}

impl WorkerLoad {
    pub(crate) fn new(serve: &Serve, models: &ReportedModels, slots: usize, busy: usize) -> Self {
        Self {
            serve: serve.clone(),
            models: models.clone(),
            slots,
            busy,
        }
    }

    /// The rankings in which it takes part: one for each model, by the accounts it serves.
    fn rankings(&self) -> impl Iterator<Item = (String, Serve)> {
        let models = self.models.keys();
        models.map(|model| (model.clone(), self.serve.clone()))
    }

    fn room(&self) -> usize {
        self.slots.saturating_sub(self.busy)
    }

    /// Fraction of its slots in use, in thousandths.
    fn load(&self) -> usize {
        self.busy.saturating_mul(1000) / self.slots.max(1)
    }
}

/// Jobs that a worker may ask the queue for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allotment {
    /// Models for which it ranks first.
    pub(crate) first: BTreeSet<String>,
    /// Models whose jobs go to other workers.
    pub(crate) excluded: BTreeSet<String>,
    /// Maximum number of jobs, until another worker is less busy.
    pub(crate) most: usize,
    /// Number of free slots of all workers that compete for the same jobs. If at least as many jobs
    /// wait, a worker may fill all its slots at once without a disadvantage to the others.
    pub(crate) room: usize,
}

impl Default for Allotment {
    /// No restriction, as if there were no other worker.
    fn default() -> Self {
        Self {
            first: BTreeSet::new(),
            excluded: BTreeSet::new(),
            most: usize::MAX,
            room: 0,
        }
    }
}

/// Ranking of all workers with free slots. Cloning is cheap; all clones are one ranking.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routing(Arc<Mutex<RoutingTable>>);

impl Routing {
    /// Registers a worker; dropping the handle removes it.
    pub(crate) fn join(&self) -> RoutingEntry {
        let mut table = self.0.lock();
        table.last_number += 1;
        let number = table.last_number;
        drop(table);
        RoutingEntry {
            routing: self.clone(),
            number,
            woken: Arc::default(),
        }
    }
}

/// Handle of one worker in the ranking.
#[derive(Debug)]
pub(crate) struct RoutingEntry {
    routing: Routing,
    number: u64,
    woken: Arc<Notify>,
}

impl RoutingEntry {
    /// Ranks the worker with its current slots, and returns the jobs it may ask for.
    pub(crate) fn update(&self, load: WorkerLoad) -> Allotment {
        let mut table = self.routing.0.lock();
        table.set(self.number, Some((load, &self.woken)));
        table.allotment(self.number)
    }

    /// Takes the worker out of the ranking, because it has no free slot or must get no jobs for
    /// now.
    pub(crate) fn leave(&self) {
        self.routing.0.lock().set(self.number, None);
    }

    /// Records that the worker was leased a job: it now ranks last among equals.
    pub(crate) fn note_served(&self) {
        self.routing.0.lock().note_served(self.number);
    }

    /// Waits until the worker becomes first for a model.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for RoutingEntry {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Sort key of a worker for one model; the lowest ranks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    must_load: bool,
    load: usize,
    turn: u64,
    number: u64,
}

#[derive(Debug)]
struct Candidate {
    load: WorkerLoad,
    turn: u64,
    woken: Arc<Notify>,
}

impl Candidate {
    fn rank(&self, number: u64, is_loaded: bool) -> Rank {
        Rank {
            must_load: !is_loaded,
            load: self.load.load(),
            turn: self.turn,
            number,
        }
    }
}

/// Ranking for one model, grouped by the accounts that are served.
type ModelCandidates = BTreeMap<Serve, CandidateRow>;

/// Workers of a ranking that serve the same accounts.
#[derive(Debug, Default)]
struct CandidateRow {
    ranks: BTreeSet<Rank>,
    /// Number of their free slots.
    room: usize,
}

#[derive(Debug, Default)]
struct RoutingTable {
    free: HashMap<u64, Candidate>,
    by_model: HashMap<String, ModelCandidates>,
    last_number: u64,
    last_turn: u64,
}

impl RoutingTable {
    fn set(&mut self, number: u64, to: Option<(WorkerLoad, &Arc<Notify>)>) {
        let from = self.free.get(&number).map(|free| &free.load);
        let now = to.as_ref().map(|(load, _)| load);
        if from == now {
            return;
        }
        let both = from.into_iter().chain(now);
        let touched = both.flat_map(WorkerLoad::rankings).collect();
        self.changing(number, &touched, |table| {
            let before = table.take_out(number);
            if let Some((load, woken)) = to {
                let turn = before.map_or_else(|| table.next_turn(), |before| before.turn);
                let woken = woken.clone();
                table.put_in(number, Candidate { load, turn, woken });
            }
        });
    }

    fn note_served(&mut self, number: u64) {
        let Some(free) = self.free.get(&number) else {
            return;
        };
        let touched = free.load.rankings().collect();
        self.changing(number, &touched, |table| {
            if let Some(mut free) = table.take_out(number) {
                free.turn = table.next_turn();
                table.put_in(number, free);
            }
        });
    }

    const fn next_turn(&mut self) -> u64 {
        self.last_turn += 1;
        self.last_turn
    }

    /// Applies a change, and wakes each worker that became first through it.
    fn changing(
        &mut self,
        number: u64,
        touched: &BTreeSet<(String, Serve)>,
        change: impl FnOnce(&mut Self),
    ) {
        let before = self.firsts(touched);
        change(self);
        for first in self.firsts(touched).difference(&before) {
            let (_, _, who) = first;
            if *who != number
                && let Some(free) = self.free.get(who)
            {
                free.woken.notify_one();
            }
        }
    }

    /// Returns the first workers of these rankings. A change of a worker that serves all accounts
    /// affects every group.
    fn firsts(&self, touched: &BTreeSet<(String, Serve)>) -> BTreeSet<(String, Serve, u64)> {
        let mut firsts = BTreeSet::new();
        for (model, serve) in touched {
            let Some(candidates) = self.by_model.get(model) else {
                continue;
            };
            let theirs = candidates
                .keys()
                .filter(|s| *serve == Serve::All || *s == serve);
            for serve in theirs {
                if let Some(rank) = first(candidates, serve) {
                    firsts.insert((model.clone(), serve.clone(), rank.number));
                }
            }
        }
        firsts
    }

    fn allotment(&self, number: u64) -> Allotment {
        let mut allotment = Allotment::default();
        let Some(free) = self.free.get(&number) else {
            return allotment;
        };
        let load = &free.load;
        for (model, is_loaded) in &*load.models {
            let own = free.rank(number, *is_loaded);
            let Some(candidates) = self.by_model.get(model) else {
                continue;
            };
            if first(candidates, &load.serve) != Some(own) {
                allotment.excluded.insert(model.clone());
                continue;
            }
            allotment.first.insert(model.clone());
            allotment.room = allotment.room.max(room(candidates, &load.serve));
            if let Some(next) = next_after(candidates, &load.serve, own)
                && next.must_load == own.must_load
            {
                let until = next.load.saturating_mul(load.slots) / 1000;
                let most = until.saturating_sub(load.busy).max(1);
                allotment.most = allotment.most.min(most);
            }
        }
        allotment
    }

    fn take_out(&mut self, number: u64) -> Option<Candidate> {
        let free = self.free.remove(&number)?;
        for (model, is_loaded) in &*free.load.models {
            let Some(candidates) = self.by_model.get_mut(model) else {
                continue;
            };
            if let Some(row) = candidates.get_mut(&free.load.serve) {
                row.ranks.remove(&free.rank(number, *is_loaded));
                row.room -= free.load.room();
                if row.ranks.is_empty() {
                    candidates.remove(&free.load.serve);
                }
            }
            if candidates.is_empty() {
                self.by_model.remove(model);
            }
        }
        Some(free)
    }

    fn put_in(&mut self, number: u64, free: Candidate) {
        for (model, is_loaded) in &*free.load.models {
            let candidates = self.by_model.entry(model.clone()).or_default();
            let row = candidates.entry(free.load.serve.clone()).or_default();
            row.ranks.insert(free.rank(number, *is_loaded));
            row.room += free.load.room();
        }
        self.free.insert(number, free);
    }
}

/// Returns the first worker for jobs of these accounts; `None` while a worker that serves all
/// accounts ranks before it.
fn first(candidates: &ModelCandidates, serve: &Serve) -> Option<Rank> {
    let first = *candidates.get(serve)?.ranks.first()?;
    let of_all = candidates
        .get(&Serve::All)
        .and_then(|row| row.ranks.first());
    of_all.is_none_or(|rank| first <= *rank).then_some(first)
}

/// Returns the next worker in the ranking after `own`.
fn next_after(candidates: &ModelCandidates, serve: &Serve, own: Rank) -> Option<Rank> {
    let after = |serve| {
        candidates
            .get(serve)
            .and_then(|row| row.ranks.iter().find(|rank| **rank > own))
    };
    after(serve)
        .into_iter()
        .chain(after(&Serve::All))
        .min()
        .copied()
}

/// Returns the number of free slots of the workers that serve these accounts.
fn room(candidates: &ModelCandidates, serve: &Serve) -> usize {
    let of = |serve| candidates.get(serve).map_or(0, |row| row.room);
    let of_all = Some(&Serve::All).filter(|all| *all != serve);
    of(serve) + of_all.map_or(0, of)
}

#[cfg(test)]
mod tests;
