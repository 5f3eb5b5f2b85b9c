//! Which workers are online, and what they can run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use proto::{Account, ModelName, Timestamp, WorkerId, WorkerReport};
use queue::{KeyId, Models, Serve};
use tokio_util::sync::CancellationToken;

use crate::{auth::serves, offer::Offer, place::together};

/// What a worker is known by while it is online.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seat {
    /// One connection.
    Socket(u64),
    /// One worker that polls, by its key and name.
    Poll(String, WorkerId),
}

/// A worker that is online.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    pub(crate) key: Option<KeyId>,
    pub(crate) serve: Serve,
    /// `None` for a worker of an older system: taken to run any model.
    pub(crate) report: Option<Arc<WorkerReport>>,
    /// When it is taken for gone unless it polls again; `None` while it is connected.
    pub(crate) until: Option<Timestamp>,
    /// Ends its connection.
    pub(crate) stop: CancellationToken,
    /// Its connection, if it has one of its own.
    pub(crate) link: Option<Link>,
}

/// A connection as other connections see it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    pub(crate) doubt: Arc<Doubt>,
}

/// Whether a connection may be dead: its worker came again, and nothing was heard here since.
/// Jobs given to a dead one are lost until their lease ends, so it gets none meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Doubt(AtomicBool);

impl Doubt {
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Something was heard; whether that was in doubt.
    pub(crate) fn settle(&self) -> bool {
        self.is_raised() && self.0.swap(false, Ordering::Relaxed)
    }
}

/// The workers online now.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    online: Mutex<BTreeMap<Seat, Online>>,
    last: AtomicU64,
}

/// A report as it is kept: an engine that is down cannot list its models, yet has them.
fn kept(new: Arc<WorkerReport>, old: Option<&Arc<WorkerReport>>) -> Arc<WorkerReport> {
    match old {
        Some(old) if !new.engine_up && new.models.is_empty() => Arc::new(WorkerReport {
            models: old.models.clone(),
            ..WorkerReport::clone(&new)
        }),
        Some(_) | None => new,
    }
}

impl Workers {
    /// A seat for a new connection.
    pub(crate) fn seat(&self) -> Seat {
        Seat::Socket(self.last.fetch_add(1, Ordering::Relaxed))
    }

    /// A worker is online now; one that polls may have sat there before.
    pub(crate) fn sit(&self, seat: Seat, mut online: Online) {
        let mut seats = self.lock();
        let old = seats.get(&seat).and_then(|old| old.report.as_ref());
        online.report = online.report.map(|new| kept(new, old));
        seats.insert(seat, online);
    }

    /// A worker came: its connections from before are in doubt. They are not ended, as two
    /// workers may share a key and a name.
    pub(crate) fn doubt_older(&self, key: Option<&KeyId>, worker: &WorkerId) {
        let seats = self.lock();
        let same = seats.values().filter(|online| online.key.as_ref() == key);
        for link in same.filter_map(|online| online.link.as_ref()) {
            if link.worker == *worker {
                link.doubt.0.store(true, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn leave(&self, seat: &Seat) {
        self.lock().remove(seat);
    }

    /// A worker that polls was heard of; answers its report, `None` if it is not known.
    pub(crate) fn heard(&self, seat: &Seat, until: Timestamp) -> Option<Arc<WorkerReport>> {
        let mut online = self.lock();
        let worker = online.get_mut(seat)?;
        worker.until = worker.until.map(|had| had.max(until));
        worker.report.clone()
    }

    pub(crate) fn report(&self, seat: &Seat, report: Arc<WorkerReport>) {
        if let Some(worker) = self.lock().get_mut(seat) {
            worker.report = Some(kept(report, worker.report.as_ref()));
        }
    }

    /// What the workers online now can do for an account, in the order they came.
    pub(crate) fn offer(&self, account: &Account, now: Timestamp) -> Offer {
        let mut online = self.lock();
        online.retain(|_, worker| worker.until.is_none_or(|until| until > now));
        let mut offer = Offer::default();
        for worker in online
            .values()
            .filter(|worker| serves(&worker.serve, account))
        {
            match &worker.report {
                None => offer.any = true,
                Some(report) if report.engine_up => offer.reports.push(report.clone()),
                Some(report) => offer.down.push(report.clone()),
            }
        }
        offer
    }

    /// Whose jobs and which models the workers online serve together that may be lent a job of
    /// this account and model.
    pub(crate) fn line(
        &self,
        account: &Account,
        model: &ModelName,
        now: Timestamp,
    ) -> (Serve, Models) {
        let mut online = self.lock();
        online.retain(|_, worker| worker.until.is_none_or(|until| until > now));
        let workers = online
            .values()
            .filter(|worker| worker.serve.includes(account));
        let workers = workers.filter_map(|worker| {
            let models = match &worker.report {
                None => Models::Any,
                Some(report) if report.engine_up => {
                    Models::Only(report.models.iter().map(|m| m.name.clone()).collect())
                }
                Some(_) => return None,
            };
            let runs = match &models {
                Models::Any | Models::AnyBut(_) => true,
                Models::Only(names) => names.iter().any(|name| name.is_same(model)),
            };
            runs.then(|| (worker.serve.clone(), models))
        });
        together(account, model, workers)
    }

    /// The connections that were opened with a key, to be checked for revocation.
    pub(crate) fn keyed(&self) -> Vec<(KeyId, CancellationToken)> {
        let online = self.lock();
        let keyed = online.values().filter(|worker| worker.until.is_none());
        keyed
            .filter_map(|worker| Some((worker.key.clone()?, worker.stop.clone())))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Seat, Online>> {
        self.online.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
