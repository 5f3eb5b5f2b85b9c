//! Which of several workers with room a job goes to: one that has the model in memory before one
//! that must load it, then the least busy, then the one that was served longest ago.
//!
//! Nobody hands jobs out: each worker's own loop asks the queue, but only for the models it is
//! first for. Whoever becomes first is woken. Workers stand in one line if they serve the same
//! accounts; those that serve everybody stand in every line.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::WorkerReport;
use queue::Serve;
use tokio::sync::Notify;

/// A worker with room for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) serve: Serve,
    /// Its models by their canonical names; `true` for those in memory.
    pub(crate) models: BTreeMap<String, bool>,
    pub(crate) slots: usize,
    /// How many slots are taken, or may be in a moment.
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

    /// The part of its slots that is taken, in thousandths.
    fn load(&self) -> usize {
        self.busy.saturating_mul(1000) / self.slots.max(1)
    }
}

/// What a worker may ask for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// The models it is first for.
    pub(crate) first: BTreeSet<String>,
    /// The models whose jobs others are to have.
    pub(crate) left: BTreeSet<String>,
    /// How many jobs, until another one is less busy.
    pub(crate) most: usize,
    /// How many jobs all who stand for the same have room for together. Where as many wait,
    /// nobody is the worse for it if it takes all it has room for at once.
    pub(crate) room: usize,
}

impl Default for Share {
    /// Everything, as if there were nobody else.
    fn default() -> Self {
        Self {
            first: BTreeSet::new(),
            left: BTreeSet::new(),
            most: usize::MAX,
            room: 0,
        }
    }
}

/// All workers with room. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routing(Arc<Mutex<Lines>>);

impl Routing {
    /// Somebody who may stand in line; he leaves when this is dropped.
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

/// One worker's place in the lines.
#[derive(Debug)]
pub(crate) struct InLine {
    routing: Routing,
    number: u64,
    woken: Arc<Notify>,
}

impl InLine {
    /// The worker has room; what it may ask for.
    pub(crate) fn stand(&self, standing: Standing) -> Share {
        let mut lines = self.routing.lock();
        lines.set(self.number, Some((standing, &self.woken)));
        lines.share(self.number)
    }

    /// The worker has no room, or nothing is to be given to it for now.
    pub(crate) fn leave(&self) {
        self.routing.lock().set(self.number, None);
    }

    /// The worker was lent something: among equals it comes last from now on.
    pub(crate) fn served(&self) {
        self.routing.lock().served(self.number);
    }

    /// It became first for a model.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Lower comes first.
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

/// The line of one model, by the accounts that are served.
type Line = BTreeMap<Serve, Row>;

/// Those of a line that serve the same accounts.
#[derive(Debug, Default)]
struct Row {
    ranks: BTreeSet<Rank>,
    /// How many jobs they have room for together.
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

    /// Makes a change and wakes whoever is first now and was not.
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

    /// Who is first in these lines; a line of those who serve everybody touches all others.
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

    /// Answers when the worker was served last.
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

/// Who may ask for jobs of these accounts: nobody of them while one who serves all is better.
fn first(line: &Line, serve: &Serve) -> Option<Rank> {
    let first = *line.get(serve)?.ranks.first()?;
    let of_all = line.get(&Serve::All).and_then(|row| row.ranks.first());
    of_all.is_none_or(|rank| first <= *rank).then_some(first)
}

/// Who comes after the first.
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

/// For how many jobs there is room among those who serve these accounts.
fn room(line: &Line, serve: &Serve) -> usize {
    let of = |serve| line.get(serve).map_or(0, |row| row.room);
    let of_all = Some(&Serve::All).filter(|all| *all != serve);
    of(serve) + of_all.map_or(0, of)
}

#[cfg(test)]
mod tests;
