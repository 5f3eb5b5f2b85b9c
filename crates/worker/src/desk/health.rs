//! The desk as those see it who ask the engine: jobs, and the probe.

use engine::{Engine, EngineError};
use proto::{ModelEntry, ModelName, WorkerReport, limits, status::HopState};
use serde_json::value::RawValue;

use super::{Desk, State};

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

impl Desk {
    // What jobs find.

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

    // What the probe finds.

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
}

impl State {
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
}
