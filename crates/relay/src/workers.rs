//! Registry of online workers, their reports and their slots.

mod catalog;
mod lent;
mod memory;
mod offers;
mod registry;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use proto::{
    Detail, ErrorCode, Timestamp, WorkerId, WorkerReport,
    admin::{EngineView, ModelView, WorkerCarrier, WorkerView},
};
use queue::{KeyId, ModelPatterns, Serve};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    memory::{OF_ALL_MAX, OF_KEY_MAX},
    registry::REMEMBERED,
};
use crate::{auth::Caller, error::ApiError, routing::RoutingEntry};
use catalog::WorkerInfo;
use registry::{Registry, WorkerIdentity, identity};

/// Maximum number of WebSockets of one worker: a new one, and one whose loss was not noticed yet.
pub(crate) const SOCKETS_MAX: usize = 2;
/// Maximum number of polling workers of one key; each takes memory for its report.
pub(crate) const POLLERS_MAX: usize = 256;

/// Id of an online worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OnlineId {
    /// A WebSocket connection.
    Socket(u64),
    /// A polling worker, by its key and name.
    Poll(String, WorkerId),
}

/// A worker that is online.
#[derive(Debug, Clone)]
pub(crate) struct OnlineWorker {
    pub(crate) key: Option<KeyId>,
    pub(crate) serve: Serve,
    /// Models that its key allows.
    pub(crate) allowed_models: ModelPatterns,
    /// `None` for a worker of an older protocol, which is assumed to run any model.
    pub(crate) report: Option<Arc<WorkerReport>>,
    /// Time when it counts as offline unless it polls again; `None` while it is connected.
    pub(crate) until: Option<Timestamp>,
    /// Ends its held poll when a newer one arrives.
    pub(crate) poll: Option<CancellationToken>,
    /// Its WebSocket connection, if it has one.
    pub(crate) link: Option<Link>,
    /// Carrier of its connection.
    pub(crate) carrier: WorkerCarrier,
}

impl OnlineWorker {
    /// Returns a worker with this key, of which nothing else is known yet.
    pub(crate) fn of(caller: &Caller, carrier: WorkerCarrier) -> Self {
        Self {
            key: caller.key.clone(),
            serve: caller.serve.clone(),
            allowed_models: caller.ceiling.models.clone(),
            report: None,
            until: None,
            poll: None,
            link: None,
            carrier,
        }
    }
}

/// State of a connection that other connections use.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    pub(crate) maybe_dead: Arc<MaybeDead>,
    /// Cancelled when the worker has opened too many further connections.
    pub(crate) displaced: CancellationToken,
    /// Its handle in the ranking of workers with free slots.
    pub(crate) routing_entry: Arc<RoutingEntry>,
}

/// Whether a connection may be dead: its worker has connected again, and nothing was received on it
/// since. Jobs leased to a dead connection are stuck until the lease expires, so it gets none
/// meanwhile.
#[derive(Debug, Default)]
pub(crate) struct MaybeDead(AtomicBool);

impl MaybeDead {
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Clears the flag after something was received; returns whether it was set.
    pub(crate) fn settle(&self) -> bool {
        self.is_raised() && self.0.swap(false, Ordering::SeqCst)
    }
}

/// Online workers, and those that disconnected recently.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    registry: Mutex<Registry>,
    last: AtomicU64,
    changes: watch::Sender<u64>,
}

/// What is known of one worker.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    pub(crate) report: Option<Arc<WorkerReport>>,
    /// Time of its last request.
    pub(crate) seen: Option<Timestamp>,
    pub(crate) is_online: bool,
}

/// Returns the report to keep. An engine that is down cannot list its models, so the previous list
/// is kept.
fn kept(new: Arc<WorkerReport>, old: Option<&Arc<WorkerReport>>) -> Arc<WorkerReport> {
    match old {
        Some(old) if !new.engine_up && new.models.is_empty() => Arc::new(WorkerReport {
            models: old.models.clone(),
            ..WorkerReport::clone(&new)
        }),
        Some(_) | None => new,
    }
}

fn view(
    (key, name): &WorkerIdentity,
    report: Option<&WorkerReport>,
    carrier: Option<WorkerCarrier>,
    told: &WorkerInfo,
    last_seen: Timestamp,
) -> WorkerView {
    let models = report.map_or(&[][..], |report| &report.models);
    WorkerView {
        name: name.clone(),
        key: Some(key.clone()).filter(|key| !key.is_empty()),
        online: carrier.is_some(),
        carrier,
        last_seen,
        engine: report.map(|report| EngineView {
            kind: report.engine,
            version: report.engine_version.clone(),
            up: report.engine_up,
        }),
        models: models
            .iter()
            .map(|model| ModelView {
                name: model.name.clone(),
                loaded: model.loaded,
            })
            .collect(),
        slots: told.slots.filter(|_| carrier.is_some()),
        running: 0,
    }
}

impl Workers {
    /// Returns the id for a new connection.
    pub(crate) fn new_id(&self) -> OnlineId {
        OnlineId::Socket(self.last.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the carrier of each online worker.
    pub(crate) fn carriers(&self, now: Timestamp) -> Vec<WorkerCarrier> {
        let registry = self.lock();
        let is_there = |online: &OnlineWorker| online.until.is_none_or(|until| until > now);
        let online = registry.online.values().map(|(online, _)| online);
        let there = online.filter(|online| is_there(online));
        there.map(|online| online.carrier).collect()
    }

    /// Checks whether a worker may start to poll.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`], if too many workers poll with its key already.
    pub(crate) fn admit(&self, id: &OnlineId, now: Timestamp) -> Result<(), ApiError> {
        let mut registry = self.lock();
        registry.settle(now);
        if registry.online.contains_key(id) || registry.pollers(id) < POLLERS_MAX {
            return Ok(());
        }
        let message = format!(
            "{POLLERS_MAX} workers already poll with this key; give each worker a fixed name, or \
             use another key for some of them"
        );
        Err(ApiError::new(ErrorCode::RateLimited, message))
    }

    /// Registers an online worker. What it reported before stays valid until it reports anew. If it
    /// has more than [`SOCKETS_MAX`] WebSockets now, the oldest are closed.
    pub(crate) fn register(&self, id: OnlineId, mut online: OnlineWorker) {
        let mut registry = self.lock();
        let mut before = registry.take(&id).map(|(old, told)| {
            if let Some(poll) = &old.poll {
                poll.cancel();
            }
            (old.report, told)
        });
        if let Some(who) = identity(&id, &online) {
            let gone = registry.gone.remove(&who);
            let other = || {
                let (other, told) = registry.seat_of(&who)?;
                Some((other.report.clone(), told.clone()))
            };
            before = before
                .or_else(other)
                .or_else(|| gone.map(|gone| (Some(gone.report), gone.told)));
        }
        let key = online.key.as_deref().unwrap_or_default();
        let (report, mut told) =
            before.unwrap_or_else(|| (None, WorkerInfo::nothing(registry.memory_use.memory(key))));
        online.report = match online.report {
            Some(new) => Some(kept(new, report.as_ref())),
            None => report.clone(),
        };
        if let Some(now) = &online.report {
            told.keep(now, report.as_deref());
        }
        let who = identity(&id, &online);
        registry.put(id, online, told);
        if let Some(who) = who {
            let links = registry.links_of(&who);
            let excess = links.len().saturating_sub(SOCKETS_MAX);
            links[..excess]
                .iter()
                .for_each(|link| link.displaced.cancel());
        }
        drop(registry);
        self.changed();
    }

    /// Marks a worker's earlier connections as possibly dead, after it has connected again. They
    /// are not closed, because two workers may share a key and a name.
    pub(crate) fn suspect_older(&self, key: Option<&KeyId>, worker: &WorkerId) {
        let registry = self.lock();
        for (_, (online, _)) in registry.of_name(worker) {
            if let Some(link) = &online.link
                && online.key.as_ref() == key
            {
                link.maybe_dead.0.store(true, Ordering::SeqCst);
                link.routing_entry.leave();
            }
        }
    }

    pub(crate) fn leave(&self, id: &OnlineId, now: Timestamp) {
        self.lock().leave(id, now);
        self.changed();
    }

    /// Removes a worker whose key is no longer valid, without remembering its report.
    pub(crate) fn dismiss(&self, id: &OnlineId) {
        self.lock().take(id);
        self.changed();
    }

    /// Records how many jobs a worker runs at once.
    pub(crate) fn capacity(&self, id: &OnlineId, slots: u32) {
        if let Some((_, told)) = self.lock().online.get_mut(id) {
            told.slots = Some(slots);
        }
        self.changed();
    }

    /// Records a poll and the slots it reports.
    pub(crate) fn seen(&self, id: &OnlineId, now: Timestamp, slots: Option<u32>) {
        if let Some((_, told)) = self.lock().online.get_mut(id) {
            told.seen = Some(now);
            told.slots = slots;
        }
        self.changed();
    }

    /// Returns a channel that changes whenever the operator's view of the workers may.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        if !self.changes.is_closed() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Returns the online and recently disconnected workers, for an operator.
    pub(crate) fn views(&self, now: Timestamp) -> Vec<WorkerView> {
        let mut registry = self.lock();
        registry.settle(now);
        let gone = registry.gone.iter().map(|(who, known)| {
            let seen = known.told.seen.unwrap_or(now);
            let report = Some(&*known.report);
            (who.clone(), view(who, report, None, &known.told, seen))
        });
        let here = registry.online.iter().filter_map(|(id, (online, told))| {
            let who = identity(id, online)?;
            let seen = told.seen.filter(|_| online.link.is_none()).unwrap_or(now);
            let report = online.report.as_deref();
            let view = view(&who, report, Some(online.carrier), told, seen);
            Some((who, view))
        });
        // A worker that reconnected is listed once, as online.
        let all: BTreeMap<WorkerIdentity, WorkerView> = gone.chain(here).collect();
        all.into_values().collect()
    }

    /// Records a new poll and ends the previous one; returns the worker's report, `None` if the
    /// worker is unknown.
    pub(crate) fn heard(
        &self,
        id: &OnlineId,
        until: Timestamp,
        poll: CancellationToken,
    ) -> Option<Arc<WorkerReport>> {
        let mut registry = self.lock();
        let (worker, _) = registry.online.get_mut(id)?;
        if let Some(older) = worker.poll.replace(poll) {
            older.cancel();
        }
        worker.until = worker.until.map(|had| had.max(until));
        worker.report.clone()
    }

    pub(crate) fn report(&self, id: &OnlineId, report: Arc<WorkerReport>) {
        if let Some((worker, told)) = self.lock().online.get_mut(id) {
            let report = kept(report, worker.report.as_ref());
            told.keep(&report, worker.report.as_deref());
            worker.report = Some(report);
        }
        self.changed();
    }

    /// Returns what is known of a worker that polls.
    pub(crate) fn reported(&self, id: &OnlineId, now: Timestamp) -> Reported {
        let registry = self.lock();
        let found = registry.online.get(id);
        found.map_or_else(Reported::default, |(worker, told)| Reported {
            report: worker.report.clone(),
            seen: told.seen,
            is_online: worker.until.is_none_or(|until| until > now),
        })
    }

    /// Ends the held poll of a worker, because jobs leased to it would not be received.
    pub(crate) fn end_poll(&self, id: &OnlineId) {
        if let Some((worker, _)) = self.lock().online.get_mut(id)
            && let Some(poll) = worker.poll.take()
        {
            poll.cancel();
        }
    }

    /// Stores details of a worker's engine; `false` if the worker is unknown.
    pub(crate) fn tell(&self, id: &OnlineId, details: Vec<Detail>) -> bool {
        let mut registry = self.lock();
        for detail in details {
            registry.tell(id, detail);
        }
        registry.online.contains_key(id)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock()
    }
}

#[cfg(test)]
mod tests;
