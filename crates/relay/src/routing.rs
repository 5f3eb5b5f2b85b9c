//! Chooses which of several workers with free slots gets a job: one with the model in memory before
//! one that must load it, then the least busy, then the one that was served longest ago.
//!
//! Jobs are not assigned. Each worker's own loop asks the queue, but only for the models for which
//! the worker ranks first; a worker that becomes first is woken. Workers that serve the same
//! accounts are ranked together, and those that serve all accounts are ranked with every group.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::WorkerReport;
use queue::Serve;
use tokio::sync::Notify;

/// A worker with free slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) serve: Serve,
    /// Its models by canonical name; `true` if the model is in memory.
    pub(crate) models: BTreeMap<String, bool>,
    pub(crate) slots: usize,
    /// Number of slots in use, or about to be.
    pub(crate) busy: usize,
}

impl Standing {
    pub(crate) fn new(serve: &Serve, report: &WorkerReport, slots: usize, busy: usize) -> Self {
        let models = report.models.iter();
        Self {
            serve: serve.clone(),
            models: models
                .map(|model| (model.name.canonical(), model.loaded))
                .collect(),
            slots,
            busy,
        }
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
pub(crate) struct Share {
    /// Models for which it ranks first.
    pub(crate) first: BTreeSet<String>,
    /// Models whose jobs go to other workers.
    pub(crate) left: BTreeSet<String>,
    /// Maximum number of jobs, until another worker is less busy.
    pub(crate) most: usize,
    /// Number of free slots of all workers that compete for the same jobs. If at least as many jobs
    /// wait, a worker may fill all its slots at once without a disadvantage to the others.
    pub(crate) room: usize,
}

impl Default for Share {
    /// No restriction, as if there were no other worker.
    fn default() -> Self {
        Self {
            first: BTreeSet::new(),
            left: BTreeSet::new(),
            most: usize::MAX,
            room: 0,
        }
    }
}

/// Ranking of all workers with free slots. Cloning is cheap; all clones are one ranking.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routing(Arc<Mutex<Lines>>);

impl Routing {
    /// Registers a worker; dropping the handle removes it.
    pub(crate) fn enter(&self) -> InLine {
        let mut lines = self.lock();
        lines.last_number += 1;
        let number = lines.last_number;
        drop(lines);
        InLine {
            routing: self.clone(),
            number,
            woken: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle of one worker in the ranking.
#[derive(Debug)]
pub(crate) struct InLine {
    routing: Routing,
    number: u64,
    woken: Arc<Notify>,
}

impl InLine {
    /// Ranks the worker with its current slots, and returns the jobs it may ask for.
    pub(crate) fn stand(&self, standing: Standing) -> Share {
        let mut lines = self.routing.lock();
        lines.set(self.number, Some((standing, &self.woken)));
        lines.share(self.number)
    }

    /// Takes the worker out of the ranking, because it has no free slot or must get no jobs for
    /// now.
    pub(crate) fn leave(&self) {
        self.routing.lock().set(self.number, None);
    }

    /// Records that the worker was leased a job: it now ranks last among equals.
    pub(crate) fn served(&self) {
        self.routing.lock().served(self.number);
    }

    /// Waits until the worker becomes first for a model.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for InLine {
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
struct Free {
    standing: Standing,
    turn: u64,
    woken: Arc<Notify>,
}

impl Free {
    fn rank(&self, number: u64, is_loaded: bool) -> Rank {
        Rank {
            must_load: !is_loaded,
            load: self.standing.load(),
            turn: self.turn,
            number,
        }
    }
}

/// Ranking for one model, grouped by the accounts that are served.
type Line = BTreeMap<Serve, Row>;

/// Workers of a ranking that serve the same accounts.
#[derive(Debug, Default)]
struct Row {
    ranks: BTreeSet<Rank>,
    /// Number of their free slots.
    room: usize,
}

#[derive(Debug, Default)]
struct Lines {
    free: HashMap<u64, Free>,
    by_model: HashMap<String, Line>,
    last_number: u64,
    last_turn: u64,
}

impl Lines {
    fn set(&mut self, number: u64, to: Option<(Standing, &Arc<Notify>)>) {
        let from = self.free.get(&number).map(|free| free.standing.clone());
        if from.as_ref() == to.as_ref().map(|(standing, _)| standing) {
            return;
        }
        let both = from.iter().chain(to.as_ref().map(|(standing, _)| standing));
        let touched: BTreeSet<(String, Serve)> = both
            .flat_map(|s| {
                s.models
                    .keys()
                    .map(|model| (model.clone(), s.serve.clone()))
            })
            .collect();
        self.changing(number, &touched, |lines| {
            let turn = lines.take_out(number);
            if let Some((standing, woken)) = to {
                lines.put_in(number, standing, turn, woken);
            }
        });
    }

    fn served(&mut self, number: u64) {
        let Some(free) = self.free.get(&number) else {
            return;
        };
        let (standing, woken) = (free.standing.clone(), free.woken.clone());
        let models = standing.models.keys();
        let touched = models
            .map(|m| (m.clone(), standing.serve.clone()))
            .collect();
        self.changing(number, &touched, |lines| {
            lines.take_out(number);
            lines.last_turn += 1;
            let turn = lines.last_turn;
            lines.put_in(number, standing, Some(turn), &woken);
        });
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
            let Some(line) = self.by_model.get(model) else {
                continue;
            };
            let theirs = line.keys().filter(|s| *serve == Serve::All || *s == serve);
            for serve in theirs {
                if let Some(rank) = first(line, serve) {
                    firsts.insert((model.clone(), serve.clone(), rank.number));
                }
            }
        }
        firsts
    }

    fn share(&self, number: u64) -> Share {
        let mut share = Share::default();
        let Some(free) = self.free.get(&number) else {
            return share;
        };
        let standing = &free.standing;
        for (model, is_loaded) in &standing.models {
            let own = free.rank(number, *is_loaded);
            let Some(line) = self.by_model.get(model) else {
                continue;
            };
            if first(line, &standing.serve) != Some(own) {
                share.left.insert(model.clone());
                continue;
            }
            share.first.insert(model.clone());
            share.room = share.room.max(room(line, &standing.serve));
            if let Some(next) = next_after(line, &standing.serve, own)
                && next.must_load == own.must_load
            {
                let until = next.load.saturating_mul(standing.slots) / 1000;
                let most = until.saturating_sub(standing.busy).max(1);
                share.most = share.most.min(most);
            }
        }
        share
    }

    /// Removes a worker, and returns the turn at which it was last served.
    fn take_out(&mut self, number: u64) -> Option<u64> {
        let free = self.free.remove(&number)?;
        for (model, is_loaded) in &free.standing.models {
            let Some(line) = self.by_model.get_mut(model) else {
                continue;
            };
            if let Some(row) = line.get_mut(&free.standing.serve) {
                row.ranks.remove(&free.rank(number, *is_loaded));
                row.room -= free.standing.room();
                if row.ranks.is_empty() {
                    line.remove(&free.standing.serve);
                }
            }
            if line.is_empty() {
                self.by_model.remove(model);
            }
        }
        Some(free.turn)
    }

    fn put_in(&mut self, number: u64, standing: Standing, turn: Option<u64>, woken: &Arc<Notify>) {
        let turn = turn.unwrap_or_else(|| {
            self.last_turn += 1;
            self.last_turn
        });
        let free = Free {
            standing,
            turn,
            woken: woken.clone(),
        };
        for (model, is_loaded) in &free.standing.models {
            let line = self.by_model.entry(model.clone()).or_default();
            let row = line.entry(free.standing.serve.clone()).or_default();
            row.ranks.insert(free.rank(number, *is_loaded));
            row.room += free.standing.room();
        }
        self.free.insert(number, free);
    }
}

/// Returns the first worker for jobs of these accounts; `None` while a worker that serves all
/// accounts ranks before it.
fn first(line: &Line, serve: &Serve) -> Option<Rank> {
    let first = *line.get(serve)?.ranks.first()?;
    let of_all = line.get(&Serve::All).and_then(|row| row.ranks.first());
    of_all.is_none_or(|rank| first <= *rank).then_some(first)
}

/// Returns the next worker in the ranking after `own`.
fn next_after(line: &Line, serve: &Serve, own: Rank) -> Option<Rank> {
    let after = |serve| {
        line.get(serve)
            .and_then(|row| row.ranks.iter().find(|rank| **rank > own))
    };
    after(serve)
        .into_iter()
        .chain(after(&Serve::All))
        .min()
        .copied()
}

/// Returns the number of free slots of the workers that serve these accounts.
fn room(line: &Line, serve: &Serve) -> usize {
    let of = |serve| line.get(serve).map_or(0, |row| row.room);
    let of_all = Some(&Serve::All).filter(|all| *all != serve);
    of(serve) + of_all.map_or(0, of)
}

#[cfg(test)]
mod tests;
