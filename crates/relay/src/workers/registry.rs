//! Index of workers: online ones by id and by name, and those that disconnected recently.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use proto::{Detail, Timestamp, WorkerId};

use super::{
    Link, OnlineId, OnlineWorker, POLLERS_MAX,
    catalog::{DepartedWorker, WorkerInfo},
    memory::{MemoryFull, MemoryUse},
};

/// Retention of a worker's information after it has disconnected. An hour covers a restart, a
/// suspended machine and a change of networks.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Maximum number of disconnected workers that are remembered, of one key and in total.
const REMEMBERED_OF_KEY_MAX: usize = POLLERS_MAX;
const REMEMBERED_MAX: usize = 1024;

/// A worker's key id and name.
pub(super) type WorkerIdentity = (String, WorkerId);

#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) online: BTreeMap<OnlineId, (OnlineWorker, WorkerInfo)>,
    /// Ids of the workers of each name, because thousands may reconnect at once and each looks for
    /// its earlier connections.
    pub(super) named: HashMap<WorkerId, BTreeSet<OnlineId>>,
    pub(super) gone: BTreeMap<WorkerIdentity, DepartedWorker>,
    pub(super) memory_use: MemoryUse,
}

pub(super) fn identity(id: &OnlineId, online: &OnlineWorker) -> Option<WorkerIdentity> {
    let worker = name(id, online)?;
    Some((online.key.clone().unwrap_or_default(), worker.clone()))
}

fn is_identity((key, worker): &WorkerIdentity, id: &OnlineId, online: &OnlineWorker) -> bool {
    name(id, online) == Some(worker) && online.key.as_deref().unwrap_or_default() == key
}

pub(super) fn name<'a>(id: &'a OnlineId, online: &'a OnlineWorker) -> Option<&'a WorkerId> {
    match id {
        OnlineId::Poll(_, worker) => Some(worker),
        OnlineId::Socket(_) => Some(&online.link.as_ref()?.worker),
    }
}

impl Registry {
    /// Adds a worker under an id that is not in use.
    pub(super) fn put(&mut self, id: OnlineId, online: OnlineWorker, told: WorkerInfo) {
        if let Some(worker) = name(&id, &online).cloned() {
            self.named.entry(worker).or_default().insert(id.clone());
        }
        self.online.insert(id, (online, told));
    }

    /// Removes the worker with this id.
    pub(super) fn take(&mut self, id: &OnlineId) -> Option<(OnlineWorker, WorkerInfo)> {
        let (online, told) = self.online.remove(id)?;
        if let Some(worker) = name(id, &online)
            && let Some(registry) = self.named.get_mut(worker)
        {
            registry.remove(id);
            if registry.is_empty() {
                self.named.remove(worker);
            }
        }
        Some((online, told))
    }

    /// Returns the workers of a name, the latest connection last.
    pub(super) fn of_name(
        &self,
        worker: &WorkerId,
    ) -> impl DoubleEndedIterator<Item = (&OnlineId, &(OnlineWorker, WorkerInfo))> {
        let registry = self.named.get(worker).into_iter().flatten();
        registry.filter_map(|id| Some((id, self.online.get(id)?)))
    }

    /// Returns the WebSockets of a worker, the latest last.
    pub(super) fn links_of(&self, who: &WorkerIdentity) -> Vec<&Link> {
        let online = self.of_name(&who.1);
        let online = online.filter(|(id, (online, _))| is_identity(who, id, online));
        online
            .filter_map(|(_, (online, _))| online.link.as_ref())
            .collect()
    }

    /// Marks a worker as disconnected, and remembers its information for a while.
    pub(super) fn leave(&mut self, id: &OnlineId, now: Timestamp) {
        let Some((online, mut told)) = self.take(id) else {
            return;
        };
        let polled = told.seen.filter(|_| online.link.is_none());
        told.seen = polled.or(Some(now));
        let (Some(report), Some(who)) = (online.report.clone(), identity(id, &online)) else {
            return;
        };
        if self.seat_of(&who).is_some() {
            return;
        }
        self.gone.retain(|_, gone| gone.until > now);
        let of_key = self.gone.keys().filter(|(key, _)| *key == who.0).count();
        if of_key >= REMEMBERED_OF_KEY_MAX {
            self.forget_first(MemoryFull::Key, &who.0);
        } else if self.gone.len() >= REMEMBERED_MAX {
            self.forget_first(MemoryFull::All, &who.0);
        }
        let gone = DepartedWorker {
            serve: online.serve,
            report,
            told,
            until: now + REMEMBERED,
        };
        self.gone.insert(who, gone);
    }

    /// Forgets the worker that disconnected first, of this key or of all; returns whether there was
    /// one.
    fn forget_first(&mut self, of: MemoryFull, key: &str) -> bool {
        let gone = self.gone.iter();
        let gone = gone.filter(|((other, _), _)| of == MemoryFull::All || other == key);
        let first = gone.min_by_key(|(_, gone)| gone.until);
        let first = first.map(|(who, _)| who.clone());
        first.is_some_and(|who| self.gone.remove(&who).is_some())
    }

    /// Stores a detail of a worker. If there is no room, disconnected workers are forgotten first.
    pub(super) fn tell(&mut self, id: &OnlineId, detail: Detail) {
        while let Some((online, told)) = self.online.get(id)
            && let Some(full) = told.full(&detail)
        {
            let key = online.key.clone().unwrap_or_default();
            if !self.forget_first(full, &key) {
                break;
            }
        }
        if let Some((online, told)) = self.online.get_mut(id)
            && let Some(report) = &online.report
        {
            told.take(detail, report);
        }
    }

    /// Returns the number of polling workers with the key of this id; 0 if the id is not a poll's.
    pub(super) fn pollers(&self, id: &OnlineId) -> usize {
        let OnlineId::Poll(key, _) = id else {
            return 0;
        };
        let is_same = |id: &OnlineId| matches!(id, OnlineId::Poll(other, _) if other == key);
        self.online.keys().filter(|id| is_same(id)).count()
    }

    /// Returns the latest connection of an online worker.
    pub(super) fn seat_of(&self, who: &WorkerIdentity) -> Option<&(OnlineWorker, WorkerInfo)> {
        let mut online = self.of_name(&who.1).rev();
        let found = online.find(|(id, (online, _))| is_identity(who, id, online));
        found.map(|(_, seated)| seated)
    }

    /// Marks workers as disconnected whose last poll is too long ago.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let is_over = |online: &OnlineWorker| online.until.is_some_and(|until| until <= now);
        let over = self
            .online
            .iter()
            .filter(|(_, (online, _))| is_over(online));
        let over: Vec<OnlineId> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            self.leave(&id, now);
        }
        self.gone.retain(|_, gone| gone.until > now);
    }
}
