//! Which workers are online, and what they can run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::{Account, ModelName, Timestamp, WorkerId, WorkerReport};
use queue::{KeyId, Serve};
use tokio_util::sync::CancellationToken;

use crate::auth::serves;

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
}

/// The workers online now.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    online: Mutex<BTreeMap<Seat, Online>>,
    last: AtomicU64,
}

/// What an account can have done now.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The reports of workers whose engine is up.
    pub(crate) reports: Vec<Arc<WorkerReport>>,
    /// Some worker runs any model.
    pub(crate) any: bool,
}

impl Offer {
    pub(crate) fn is_empty(&self) -> bool {
        self.reports.is_empty() && !self.any
    }

    pub(crate) fn has(&self, model: &ModelName) -> bool {
        self.any || self.models().any(|known| known.is_same(model))
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = &ModelName> {
        let models = self.reports.iter().flat_map(|report| &report.models);
        models.map(|model| &model.name)
    }
}

impl Workers {
    /// A seat for a new connection.
    pub(crate) fn seat(&self) -> Seat {
        Seat::Socket(self.last.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn sit(&self, seat: Seat, online: Online) {
        self.lock().insert(seat, online);
    }

    pub(crate) fn leave(&self, seat: &Seat) {
        self.lock().remove(seat);
    }

    /// A worker that polls was heard of; answers its report, `None` if it is not known.
    pub(crate) fn heard(
        &self,
        seat: &Seat,
        until: Timestamp,
        report: Option<WorkerReport>,
    ) -> Option<Arc<WorkerReport>> {
        let mut online = self.lock();
        let worker = online.get_mut(seat)?;
        worker.until = worker.until.map(|had| had.max(until));
        if let Some(report) = report {
            worker.report = Some(Arc::new(report));
        }
        worker.report.clone()
    }

    pub(crate) fn report(&self, seat: &Seat, report: Arc<WorkerReport>) {
        if let Some(worker) = self.lock().get_mut(seat) {
            worker.report = Some(report);
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
                Some(_) => {}
            }
        }
        offer
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
