mod link;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use engine::{Engine, EngineError};
use proto::{
    EngineKind, ErrorCode, JobId, LeaseToken, ModelEntry, ModelName, WorkerReport, limits,
    status::{CarrierKind, Hop, HopState},
    worker::{Retry, Running},
};
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Activity, Totals, Tuning,
    breaker::Breaker,
    details::Details,
    held::{Ending, Held},
};

/// Most jobs that run at once: each is a lease that is held.
#[expect(clippy::cast_possible_truncation, reason = "it is 64")]
const SLOTS_MAX: u32 = limits::HELD_MAX as u32;

/// The ledger of every job this worker holds: what runs, what has to be sent, what may be taken.
///
/// Sources, jobs and the engine's probe all meet here, under one lock that is never held across
/// a wait.
pub struct Desk {
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
    /// The number of the report that must be told before anything a job says after it.
    report_hurries: u64,
    details: Details,
    look: Look,
    relay: Hop,
    is_refused: bool,
    engine: Hop,
    carrier: Option<CarrierKind>,
    totals: Totals,
}

/// What should be looked at in the engine, the more urgent the later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// Which models are in memory, and until when: a job ended.
    #[default]
    Running,
    /// Everything: a model came into memory, or one is missing.
    Models,
    /// Everything, at once: it failed.
    AtOnce,
}

/// How many jobs are on the desk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) held: usize,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = *self.load.borrow();
        write!(f, "Desk({} of {} slots held)", load.held, self.slots)
    }
}

impl Desk {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        slots: u32,
        start_paused: bool,
        allow_model_changes: bool,
        relay: String,
        tuning: Tuning,
    ) -> Arc<Self> {
        let report = WorkerReport {
            engine: engine.kind(),
            engine_version: String::new(),
            engine_up: false,
            model_changes: allow_model_changes && engine.kind() == EngineKind::Ollama,
            models: Vec::new(),
        };
        let state = State {
            held: BTreeMap::new(),
            turn: LeaseToken {
                job: JobId([0; 16]),
                attempt: 0,
            },
            paused: start_paused,
            draining: false,
            breaker: Breaker::new(tuning.breaker),
            report_json: String::new(),
            report,
            report_number: 1,
            report_hurries: 0,
            details: Details::default(),
            look: Look::Running,
            relay: Hop {
                name: relay,
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
        let desk = Self {
            engine,
            slots: slots.clamp(1, SLOTS_MAX),
            tuning,
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
        Arc::new(desk)
    }

    // What the owner asks of it.

    pub(crate) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
        self.publish();
        self.outgoing.notify_one();
    }

    /// Ends a running job on the owner's word. False if no such job runs here.
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

    /// The machine woke up, or its network changed: links that look alive may be dead.
    pub(crate) fn wake(&self) {
        self.wake.notify_waiters();
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.subscribe()
    }

    /// Takes no more jobs from now on; those that run go on.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
        self.outgoing.notify_one();
    }

    /// Gives every running job back at once.
    pub(crate) fn give_back(&self) {
        for token in self.held() {
            let why = "the worker is stopping";
            self.end(token, Ending::nack(Retry::Now, ErrorCode::Draining, why));
        }
    }

    pub(crate) fn load(&self) -> watch::Receiver<Load> {
        self.load.subscribe()
    }

    /// Stops every job task and waits until they are gone.
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

    /// Times, the clock and chance, as they were set.
    #[must_use]
    pub const fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    // What a running job says.

    /// Puts one line on the desk; waits while the relay is behind by more than it may.
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

    /// The engine may have other models now.
    pub(crate) fn models_changed(&self) {
        self.want(Look::Models);
    }

    /// The engine answered a job to its end.
    pub(crate) fn engine_succeeded(&self, model: &ModelName) {
        let mut state = self.lock();
        state.breaker.succeeded();
        let is_loaded = |entry: &ModelEntry| entry.loaded && entry.name.is_same(model);
        let is_loaded = state.report.models.iter().any(is_loaded);
        drop(state);
        self.want(if is_loaded {
            Look::Running
        } else {
            Look::Models
        });
    }

    /// The engine should be looked at.
    pub(crate) fn want(&self, look: Look) {
        let mut state = self.lock();
        state.look = state.look.max(look);
        drop(state);
        self.probe.notify_one();
    }

    /// The engine failed a job: look at it again, and stop leasing if it is down.
    pub(crate) fn engine_failed(&self, error: &EngineError) {
        let mut state = self.lock();
        match error {
            EngineError::Refused { .. } | EngineError::TooLong if !error.may_pass() => return,
            EngineError::Unavailable(_) => state.set_engine_down(error.to_string()),
            EngineError::Refused { .. }
            | EngineError::Busy(_)
            | EngineError::Failed(_)
            | EngineError::Broken(_)
            | EngineError::Unusable(_)
            | EngineError::TooLong => {}
        }
        if state.breaker.failed() {
            state.engine.state = HopState::Down;
            state.engine.problem = format!("it failed several jobs, the last with: {error}");
        } else if !matches!(error, EngineError::Unavailable(_)) {
            return;
        }
        drop(state);
        self.want(Look::AtOnce);
        self.publish();
        self.outgoing.notify_one();
    }

    // What the engine's probe finds.

    /// Held by whoever asks the engine what it offers, until that is noted.
    pub(crate) const fn looks(&self) -> &tokio::sync::Mutex<()> {
        &self.looks
    }

    /// The report as it is now goes before anything a job says from now on.
    pub(crate) fn hurry_report(&self) {
        let mut state = self.lock();
        state.report_hurries = state.report_number;
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub(crate) fn engine_up(&self, report: WorkerReport) {
        let mut state = self.lock();
        // The owner says it, not the engine.
        let report = WorkerReport {
            model_changes: state.report.model_changes,
            ..report
        };
        if state.breaker.is_open() {
            state.breaker.close();
        }
        state.engine.state = HopState::Up;
        state.engine.problem.clear();
        state.set_report(report);
        drop(state);
        self.after_probe();
    }

    pub(crate) fn engine_down(&self, problem: String) {
        self.lock().set_engine_down(problem);
        self.after_probe();
    }

    fn after_probe(&self) {
        self.probed.send_replace(true);
        self.publish();
        self.outgoing.notify_one();
    }

    /// Waits until the engine was looked at once.
    pub(crate) async fn probed(&self) {
        let mut probed = self.probed.subscribe();
        // The sender lives as long as `self`.
        drop(probed.wait_for(|probed| *probed).await);
    }

    /// Waits until something of the engine should be looked at.
    pub(crate) async fn wanted(&self) -> Look {
        self.probe.notified().await;
        std::mem::take(&mut self.lock().look)
    }

    /// A model of which the engine has not said all that it can say.
    pub(crate) fn unknown_model(&self) -> Option<ModelEntry> {
        let state = self.lock();
        if state.report.engine_up {
            state.details.unknown(&state.report)
        } else {
            None
        }
    }

    /// What the engine said of it.
    pub(crate) fn learned(&self, model: ModelEntry, show: Option<Box<RawValue>>) {
        self.lock().details.learned(model, show);
        self.outgoing.notify_one();
    }

    /// Which models are in memory.
    pub(crate) fn running(&self, running: Vec<Box<RawValue>>) {
        if self.lock().details.set_running(running) {
            self.outgoing.notify_one();
        }
    }

    /// How long nothing is to be asked of an engine that failed too often, if it did.
    pub(crate) fn breaker_wait(&self) -> Option<std::time::Duration> {
        let mut state = self.lock();
        let random = self.tuning.random.draw();
        state.breaker.is_open().then(|| state.breaker.wait(random))
    }

    pub(crate) fn link(&self) -> watch::Receiver<bool> {
        self.link.subscribe()
    }

    // Shared by all.

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Shows the owner how things are now.
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

    fn set_engine_down(&mut self, problem: String) {
        self.engine.state = HopState::Down;
        self.engine.problem = problem;
        let models = std::mem::take(&mut self.report.models);
        self.set_report(WorkerReport {
            engine: self.report.engine,
            engine_version: self.report.engine_version.clone(),
            engine_up: false,
            model_changes: self.report.model_changes,
            models,
        });
    }

    fn set_report(&mut self, mut report: WorkerReport) {
        report.models.truncate(limits::MODELS_MAX);
        let json = serde_json::to_string(&report).unwrap_or_default();
        self.details.keep(&report);
        self.report = report;
        if json != self.report_json {
            self.report_json = json;
            self.report_number += 1;
        }
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
