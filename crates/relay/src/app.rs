//! The relay's shared state, which all routes and background tasks use.

use std::{collections::HashSet, ops::Deref, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use http::Method;
use parking_lot::Mutex;
use proto::{JobId, Timestamp, limits::QUEUED_MAX};
use queue::{KeyId, KeyRecord, Store};
use telemetry::metrics::RelayMetrics;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    RelaySettings, World, batch::Running, budget::Budget, concurrency::ConcurrencyLimit,
    error::ApiError, jwt::TokenTime, metrics::Counting, push::Latest, revocation::KeyUses,
    routing::Routing, sending::Sending, throttle::RateLimits, users::Logins,
    webhook::WebhookWakeups, workers::Workers,
};

/// Minimum interval between two writes of a key's last use.
const NOTE_USE_EVERY: Duration = Duration::from_secs(60 * 60);
const TOO_MUCH_ARRIVES: &str =
    "the relay is receiving too many large requests at once; try again in a moment";
const TOO_MUCH_GATHERED: &str = "the relay is buffering too many large answers; try again in a \
                                 moment, or request a stream";

/// The relay's shared state. Cloning is cheap; all clones are one relay.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Shared>);

impl Deref for Relay {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// State shared by all clones of a [`Relay`].
/// What is behind an `Arc` here is also held by others.
#[derive(Debug)]
pub struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: RelaySettings,
    pub(crate) world: Arc<dyn World>,
    pub(crate) workers: Workers,
    pub(crate) metrics: Arc<RelayMetrics>,
    /// Chooses the worker that a job is leased to.
    pub(crate) routing: Routing,
    /// Requests and connections that a revoked key must end.
    pub(crate) key_uses: Arc<KeyUses>,
    /// Keys whose last use is being written.
    pub(crate) key_updates: KeyUpdates,
    /// Rate limits and counts of failed logins.
    pub(crate) rate_limits: RateLimits,
    /// Limit on concurrent requests.
    pub(crate) concurrency: Arc<ConcurrencyLimit>,
    pub(crate) logins: Logins,
    /// Jobs from before a restart whose requester was connected and has not reconnected yet.
    pub(crate) orphans: Orphans,
    pub(crate) webhooks: WebhookWakeups,
    pub(crate) pushes: Latest,
    pub(crate) batches: Running,
    /// Memory budget of request bodies that are still arriving.
    pub(crate) arriving: Budget,
    /// Memory budget of answers that are buffered whole.
    pub(crate) gathered: Budget,
    /// Memory of the requests that are on their way to workers.
    pub(crate) sending: Arc<Sending>,
    /// Jobs that workers of the polling protocol cannot run, because its requests cannot express
    /// them.
    pub(crate) hidden_from_pollers: HiddenFromPollers,
    /// Owns every task of the relay.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when a task that the relay cannot run without has panicked.
    pub(crate) part_failed: CancellationToken,
    /// Requests whose response is not yet sent in full.
    pub(crate) answers: TaskTracker,
    /// Cancelled when the relay begins to shut down and accepts no new work.
    pub(crate) drain: CancellationToken,
    /// Cancelled when the drain is over and open connections are closed.
    pub(crate) stop: CancellationToken,
}

impl Relay {
    /// Creates a relay over a store that is already open.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: RelaySettings, world: Arc<dyn World>) -> Self {
        let metrics = Arc::new(RelayMetrics::new());
        store.observe(Arc::new(Counting(metrics.clone())));
        Self(Arc::new(Shared {
            store,
            world,
            metrics,
            workers: Workers::default(),
            routing: Routing::default(),
            key_uses: Arc::default(),
            key_updates: KeyUpdates::default(),
            rate_limits: RateLimits::new(&settings),
            concurrency: Arc::new(ConcurrencyLimit::new(settings.at_work_max)),
            logins: Logins::default(),
            orphans: Orphans::default(),
            hidden_from_pollers: HiddenFromPollers::default(),
            webhooks: WebhookWakeups::default(),
            pushes: Latest::default(),
            batches: Running::default(),
            arriving: Budget::new(settings.arriving_max, TOO_MUCH_ARRIVES),
            gathered: Budget::new(settings.gathered_max, TOO_MUCH_GATHERED),
            sending: Sending::new(settings.sending_max),
            tasks: TaskTracker::new(),
            part_failed: CancellationToken::new(),
            answers: TaskTracker::new(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            settings,
        }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// Runs a task that the relay cannot run without: if it panics, the relay shuts down.
    pub(crate) fn run_part(
        &self,
        name: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        let part_failed = self.part_failed.clone();
        self.tasks.spawn(async move {
            if AssertUnwindSafe(part).catch_unwind().await.is_err() {
                tracing::error!(name, "a relay task panicked; shutting down");
                part_failed.cancel();
            }
        });
    }

    /// Runs `work` to completion, even if the client that asked for it disconnects.
    pub(crate) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let done = self.tasks.spawn(work).await;
        done.map_err(|_| ApiError::internal())?
    }

    /// Returns the current wall-clock time, for expiry dates. It includes time that the machine was
    /// suspended.
    pub(crate) fn wall_now(&self) -> Timestamp {
        self.now().max(self.world.wall())
    }

    /// Returns the times for a token that is issued now. The issue time never lies in the future,
    /// even if the wall clock was set back.
    pub(crate) fn token_time(&self) -> TokenTime {
        TokenTime {
            since: self.now(),
            wall: self.wall_now(),
        }
    }

    /// Marks the answer as fetched: the requester has received all of it.
    pub(crate) fn fetched(&self, job: JobId) {
        self.store.fetched(self.now(), job);
    }

    /// Marks the answer as fetched, unless the request was `HEAD`, whose client received no body.
    pub(crate) fn fetched_by(&self, method: &Method, job: JobId) {
        if method != Method::HEAD {
            self.fetched(job);
        }
    }

    pub(crate) fn random(&self) -> Result<[u8; 32], ApiError> {
        self.world.random().map_err(|error| {
            tracing::error!(%error, "the system provides no random bytes");
            ApiError::internal()
        })
    }

    /// Returns a random number from 0 to 1; 1 if the system provides none.
    pub(crate) fn fraction(&self) -> f64 {
        let random = self.random();
        random.map_or(1.0, |random| f64::from(random[0]) / f64::from(u8::MAX))
    }

    /// Finds the record of a key and verifies the secret. The key may be revoked or expired.
    pub(crate) async fn key(&self, text: &str) -> Result<Option<KeyRecord>, ApiError> {
        let Some(shown) = crate::keys::parse(text) else {
            return Ok(None);
        };
        let record = self.store.find_key(&shown.id).await?;
        Ok(record.filter(|record| shown.is_of(record)))
    }

    /// Records that a key was used, at most once an hour.
    pub(crate) fn note_used(&self, key: &KeyRecord, now: Timestamp) {
        let is_known = key
            .last_used_at
            .is_some_and(|at| now.since(at) < NOTE_USE_EVERY);
        if is_known || !self.key_updates.begin(&key.id) {
            return;
        }
        let (relay, id) = (self.clone(), key.id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = relay.store.note_key_used(now, &id).await {
                tracing::warn!(
                    error = proto::causes(&error),
                    "cannot record the last use of a key"
                );
            }
            relay.key_updates.end(&id);
        });
    }
}

/// Keys whose last use is being written, so that of many concurrent requests only one writes.
#[derive(Debug, Default)]
pub(crate) struct KeyUpdates(Mutex<HashSet<KeyId>>);

impl KeyUpdates {
    fn begin(&self, id: &KeyId) -> bool {
        self.0.lock().insert(id.clone())
    }

    fn end(&self, id: &KeyId) {
        self.0.lock().remove(id);
    }
}

/// Jobs of synchronous requests from before a restart; those whose client does not come back are
/// cancelled.
#[derive(Debug, Default)]
pub(crate) struct Orphans(Mutex<HashSet<JobId>>);

impl Orphans {
    pub(crate) fn add(&self, jobs: impl IntoIterator<Item = JobId>) {
        self.0.lock().extend(jobs);
    }

    /// Removes a job whose requester has come back.
    pub(crate) fn claim(&self, job: JobId) {
        self.0.lock().remove(&job);
    }

    pub(crate) fn take(&self) -> HashSet<JobId> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Jobs that are not leased to workers of the polling protocol. Emptied at [`QUEUED_MAX`] entries.
#[derive(Debug, Default)]
pub(crate) struct HiddenFromPollers(Mutex<Arc<HashSet<JobId>>>);

impl HiddenFromPollers {
    pub(crate) fn add(&self, job: JobId) {
        let mut all = self.0.lock();
        // Most of these jobs have ended; others are added again when a worker polls.
        if all.len() >= QUEUED_MAX {
            *all = Arc::default();
        }
        Arc::make_mut(&mut all).insert(job);
    }

    pub(crate) fn all(&self) -> Arc<HashSet<JobId>> {
        let all = self.0.lock();
        Arc::clone(&all)
    }
}
