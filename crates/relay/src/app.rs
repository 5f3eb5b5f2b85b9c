//! What all routes share.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::Method;
use proto::{JobId, Timestamp, limits::QUEUED_MAX};
use queue::{KeyId, KeyRecord, Store};
use telemetry::metrics::RelayMetrics;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    RelaySettings, World,
    batch::Running,
    budget::Budget,
    error::ApiError,
    guard::{Gate, Guard},
    jwt::Dated,
    metrics::Counting,
    pass::Passes,
    push::Latest,
    routing::Routing,
    users::Logins,
    webhook::News,
    workers::Workers,
};

/// How often the use of a key is written down.
const NOTE_USE_EVERY: Duration = Duration::from_secs(60 * 60);
const TOO_MUCH_ARRIVES: &str =
    "too many long requests are being sent at once; try again in a moment";
const TOO_MUCH_GATHERED: &str = "too many long answers are being fetched in one piece; \
                                 try again soon, or ask for a stream";

/// A relay that is not serving yet. Cheap to clone; all clones are the same relay.
#[derive(Debug, Clone)]
pub struct Relay {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: Arc<RelaySettings>,
    pub(crate) world: Arc<dyn World>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) metrics: Arc<RelayMetrics>,
    /// Which of them a job goes to.
    pub(crate) routing: Routing,
    /// Whoever is inside with a key, to be ended when it is revoked.
    pub(crate) passes: Arc<Passes>,
    /// Keys whose use is being noted.
    pub(crate) noted: Arc<Noted>,
    /// Rates and failures.
    pub(crate) guard: Arc<Guard>,
    /// Requests at work.
    pub(crate) gate: Arc<Gate>,
    pub(crate) logins: Logins,
    /// Jobs from before a restart whose requester was connected and has not come back yet.
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) webhooks: Arc<News>,
    pub(crate) pushes: Arc<Latest>,
    pub(crate) batches: Arc<Running>,
    /// Bodies that are not all there yet.
    pub(crate) arriving: Budget,
    /// Answers that are put together.
    pub(crate) gathered: Budget,
    /// Jobs that pollers of older systems cannot be told.
    pub(crate) untold: Arc<Untold>,
    /// Owns every task of the relay.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when a part that the relay cannot do without has died.
    pub(crate) fallen: CancellationToken,
    /// Requests that are not answered whole.
    pub(crate) answers: TaskTracker,
    /// Cancelled when the relay takes nothing new any more.
    pub(crate) drain: CancellationToken,
    /// Cancelled when what is left is cut.
    pub(crate) stop: CancellationToken,
}

impl Relay {
    /// A relay over a store that is open already.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: RelaySettings, world: Arc<dyn World>) -> Self {
        let metrics = Arc::new(RelayMetrics::new());
        store.observe(Arc::new(Counting(metrics.clone())));
        Self {
            store,
            world,
            metrics,
            workers: Arc::default(),
            routing: Routing::default(),
            passes: Arc::default(),
            noted: Arc::default(),
            guard: Arc::new(Guard::new(&settings)),
            gate: Arc::new(Gate::new(settings.at_work_max)),
            logins: Logins::default(),
            orphans: Arc::default(),
            untold: Arc::default(),
            webhooks: Arc::default(),
            pushes: Arc::default(),
            batches: Arc::default(),
            arriving: Budget::new(settings.arriving_max, TOO_MUCH_ARRIVES),
            gathered: Budget::new(settings.gathered_max, TOO_MUCH_GATHERED),
            tasks: TaskTracker::new(),
            fallen: CancellationToken::new(),
            answers: TaskTracker::new(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            settings: Arc::new(settings),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// Runs a part that the relay cannot do without: if it panics, the relay ends.
    pub(crate) fn run_part(
        &self,
        name: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        let fallen = self.fallen.clone();
        self.tasks.spawn(async move {
            if AssertUnwindSafe(part).catch_unwind().await.is_err() {
                tracing::error!(name, "a part of the relay died");
                fallen.cancel();
            }
        });
    }

    /// Does what must not be left half done: it goes on when whoever asked for it leaves.
    pub(crate) async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let done = self.tasks.spawn(work).await;
        done.map_err(|_| ApiError::internal())?
    }

    /// The moment it is for what ends at a date: the time a machine slept counts.
    pub(crate) fn today(&self) -> Timestamp {
        self.now().max(self.world.wall())
    }

    /// What a token that is made now says of the time. A clock on the wall that is set back makes
    /// none of the future.
    pub(crate) fn dated(&self) -> Dated {
        Dated {
            since: self.now(),
            today: self.today(),
        }
    }

    /// The requester has the whole answer.
    pub(crate) fn fetched(&self, job: JobId) {
        self.store.fetched(self.now(), job);
    }

    /// The same, if he asked for more than the head, who has nothing of it yet.
    pub(crate) fn fetched_by(&self, method: &Method, job: JobId) {
        if method != Method::HEAD {
            self.fetched(job);
        }
    }

    pub(crate) fn random(&self) -> Result<[u8; 32], ApiError> {
        self.world.random().map_err(|error| {
            tracing::error!(%error, "no random bytes");
            ApiError::internal()
        })
    }

    /// The record of a key that is proven; it may be revoked, and its time may have passed.
    pub(crate) async fn key(&self, text: &str) -> Result<Option<KeyRecord>, ApiError> {
        let Some(shown) = crate::keys::parse(text) else {
            return Ok(None);
        };
        let record = self.store.find_key(&shown.id).await?;
        Ok(record.filter(|record| shown.is_of(record)))
    }

    /// A key was used; that is written at most once an hour.
    pub(crate) fn note_used(&self, key: &KeyRecord, now: Timestamp) {
        let is_known = key
            .last_used_at
            .is_some_and(|at| now.since(at) < NOTE_USE_EVERY);
        if is_known || !self.noted.begin(&key.id) {
            return;
        }
        let (relay, id) = (self.clone(), key.id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = relay.store.note_key_used(now, &id).await {
                tracing::warn!(%error, "the use of a key was not noted");
            }
            relay.noted.end(&id);
        });
    }
}

/// See [`Relay::noted`]: of many requests at once, one writes.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<HashSet<KeyId>>);

impl Noted {
    fn begin(&self, id: &KeyId) -> bool {
        self.lock().insert(id.clone())
    }

    fn end(&self, id: &KeyId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<KeyId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Relay::orphans`].
#[derive(Debug, Default)]
pub(crate) struct Orphans(Mutex<HashSet<JobId>>);

impl Orphans {
    pub(crate) fn add(&self, jobs: impl IntoIterator<Item = JobId>) {
        self.lock().extend(jobs);
    }

    /// Somebody came back for it.
    pub(crate) fn claim(&self, job: JobId) {
        self.lock().remove(&job);
    }

    pub(crate) fn take(&self) -> HashSet<JobId> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<JobId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Relay::untold`].
#[derive(Debug, Default)]
pub(crate) struct Untold(Mutex<Arc<HashSet<JobId>>>);

impl Untold {
    pub(crate) fn add(&self, job: JobId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Most have long ended; what has not is learned again.
        if all.len() >= QUEUED_MAX {
            *all = Arc::default();
        }
        Arc::make_mut(&mut all).insert(job);
    }

    pub(crate) fn all(&self) -> Arc<HashSet<JobId>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&all)
    }
}
