//! The table of the jobs that a worker holds.

mod health;
mod link;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use engine::Engine;
use parking_lot::{Mutex, MutexGuard};
use proto::{
    EngineKind, ErrorCode, JobId, LeaseToken, WorkerReport, limits,
    status::{CarrierKind, Hop},
    worker::{Retry, Running},
};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::health::Look;
use crate::{
    Activity, Totals, Tuning, WorkerSettings,
    breaker::Breaker,
    details::Details,
    held::{Ending, Held},
    relay::display_url,
};

/// Maximum number of concurrent jobs: each one is a held lease.
#[expect(clippy::cast_possible_truncation, reason = "it is 64")]
const SLOTS_MAX: u32 = limits::HELD_MAX as u32;

/// The table of all jobs that this worker holds: what runs, what must be sent, and how much more
/// may be leased.
///
/// Links, jobs and the engine's probe all use it, under one lock that is never held across an
/// await.
pub struct JobTable {
    engine: Arc<dyn Engine>,
    slots: u32,
    tuning: Tuning,
    state: Mutex<State>,
    outgoing: Notify,
    probe: Notify,
    wake: Notify,
    load: watch::Sender<Load>,
    link: watch::Sender<bool>,
    probed: watch::Sender<bool>,
    looks: tokio::sync::Mutex<()>,
    activity: watch::Sender<Activity>,
    jobs: TaskTracker,
    stop_jobs: CancellationToken,
}

struct State {
    held: BTreeMap<LeaseToken, Held>,
    turn: LeaseToken,
    paused: bool,
    draining: bool,
    breaker: Breaker,
    report: WorkerReport,
    report_json: String,
    report_number: u64,
    /// Number of the report that must be sent before anything a job sends after it.
    report_hurries: u64,
    details: Details,
    look: Look,
    relay: Hop,
    is_refused: bool,
    engine: Hop,
    carrier: Option<CarrierKind>,
    totals: Totals,
}

/// Numbers of held and of running jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) held: usize,
}

impl fmt::Debug for JobTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = *self.load.borrow();
        write!(f, "JobTable({} of {} slots held)", load.held, self.slots)
    }
}

impl JobTable {
    pub(crate) fn new(engine: Arc<dyn Engine>, settings: &WorkerSettings) -> Arc<Self> {
        let report = WorkerReport {
            engine: engine.kind(),
            engine_version: String::new(),
            engine_up: false,
            model_changes: settings.allow_model_changes && engine.kind() == EngineKind::Ollama,
            models: Vec::new(),
        };
        let state = State {
            held: BTreeMap::new(),
            turn: LeaseToken {
                job: JobId([0; 16]),
                attempt: 0,
            },
            paused: settings.start_paused,
            draining: false,
            breaker: Breaker::new(settings.tuning.breaker),
            report_json: String::new(),
            report,
            report_number: 1,
            report_hurries: 0,
            details: Details::default(),
            look: Look::Running,
            relay: Hop {
                name: display_url(&settings.relay),
                ..Hop::default()
            },
            is_refused: false,
            engine: Hop {
                name: engine.name(),
                ..Hop::default()
            },
            carrier: None,
            totals: Totals::default(),
        };
        let table = Self {
            engine,
            slots: settings.slots.clamp(1, SLOTS_MAX),
            tuning: settings.tuning.clone(),
            activity: watch::Sender::new(state.activity()),
            state: Mutex::new(state),
            outgoing: Notify::new(),
            probe: Notify::new(),
            wake: Notify::new(),
            load: watch::Sender::default(),
            link: watch::Sender::default(),
            probed: watch::Sender::default(),
            looks: tokio::sync::Mutex::default(),
            jobs: TaskTracker::new(),
            stop_jobs: CancellationToken::new(),
        };
        Arc::new(table)
    }

    // Commands of the owner.

    pub(crate) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
        self.publish();
        self.outgoing.notify_one();
    }

    /// Cancels a running job on the owner's behalf. Returns `false` if it does not run here.
    pub(crate) fn cancel_job(&self, job: JobId) -> bool {
        let state = self.lock();
        let mut running = state.held.iter().filter(|(_, held)| held.is_running());
        let Some(token) = running
            .find(|(token, _)| token.job == job)
            .map(|(token, _)| *token)
        else {
            return false;
        };
        drop(state);
        let why = "the owner of the machine stopped the job";
        self.end(token, Ending::nack(Retry::Never, ErrorCode::Cancelled, why));
        true
    }

    /// Reconnects, because after a suspend or a change of network an old link may be dead without
    /// showing it.
    pub(crate) fn wake(&self) {
        self.wake.notify_waiters();
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.subscribe()
    }

    /// Stops leasing; running jobs continue.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
        self.outgoing.notify_one();
    }

    /// Gives back every running job at once.
    pub(crate) fn give_back(&self) {
        for token in self.held() {
            let why = "the worker is stopping";
            self.end(token, Ending::nack(Retry::Now, ErrorCode::Draining, why));
        }
    }

    pub(crate) fn load(&self) -> watch::Receiver<Load> {
        self.load.subscribe()
    }

    /// Stops all job tasks and waits until they have ended.
    pub(crate) async fn close(&self) {
        self.stop_jobs.cancel();
        self.jobs.close();
        self.jobs.wait().await;
        self.lock().held.clear();
        self.recount();
    }

    pub(crate) const fn stop_jobs(&self) -> &CancellationToken {
        &self.stop_jobs
    }

    /// The configured timeouts, clock and source of randomness.
    #[must_use]
    pub const fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    // Output of running jobs.

    /// Adds a line to the job's outbox; waits while too many lines are not acknowledged.
    pub(crate) async fn line(&self, token: LeaseToken, line: Bytes) {
        loop {
            let room = {
                let mut state = self.lock();
                let Some(held) = state.held.get_mut(&token) else {
                    return;
                };
                let kept = held.outbox.bytes();
                if kept == 0 || kept + line.len() <= limits::UNACKED_MAX {
                    held.push(line);
                    drop(state);
                    self.outgoing.notify_one();
                    return;
                }
                Arc::clone(&held.room)
            };
            room.notified().await;
        }
    }

    /// Whether the job has any line.
    pub(crate) fn has_lines(&self, token: LeaseToken) -> bool {
        let state = self.lock();
        let held = state.held.get(&token);
        held.is_some_and(|held| held.outbox.last() > 0)
    }

    pub(crate) fn end(&self, token: LeaseToken, ending: Ending) {
        let mut state = self.lock();
        if let Some(held) = state.held.get_mut(&token)
            && held.end(ending)
        {
            drop(state);
            self.recount();
            self.outgoing.notify_one();
        }
    }

    pub(crate) fn link(&self) -> watch::Receiver<bool> {
        self.link.subscribe()
    }

    // Helpers.

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn recount(&self) {
        let state = self.lock();
        let load = Load {
            running: state.running().count(),
            held: state.held.len(),
        };
        drop(state);
        self.load.send_if_modified(|now| {
            let changed = *now != load;
            *now = load;
            changed
        });
    }

    /// Publishes the current state as [`Activity`].
    pub(crate) fn publish(&self) {
        let now = self.lock().activity();
        self.activity.send_if_modified(|shown| {
            let changed = *shown != now;
            *shown = now;
            changed
        });
    }
}

impl State {
    fn running(&self) -> Running {
        let running = self.held.values().filter(|held| held.is_running());
        running.map(|held| held.is_urgent).collect()
    }

    const fn is_leasing(&self) -> bool {
        !self.paused && !self.draining && self.report.engine_up && !self.breaker.is_open()
    }

    fn activity(&self) -> Activity {
        let running = self.held.values().filter(|held| held.is_running());
        Activity {
            relay: self.relay.clone(),
            is_refused: self.is_refused,
            engine: self.engine.clone(),
            carrier: self.carrier,
            jobs: running.map(Held::live).collect(),
            paused: self.paused,
            totals: self.totals,
        }
    }
}
