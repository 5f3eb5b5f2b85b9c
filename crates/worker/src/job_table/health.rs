//! The part of the table that jobs and the engine's probe use.

use engine::{Engine, EngineError};
use proto::{ModelEntry, ModelName, WorkerReport, limits, status::HopState};
use serde_json::value::RawValue;

use super::{JobTable, State};

/// Scope of the next engine probe; later variants are more urgent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// The loaded models and their expiry, because a job has ended.
    #[default]
    Running,
    /// The whole report: a model was loaded, or one is missing.
    Models,
    /// The whole report, at once: the engine failed.
    AtOnce,
}

impl JobTable {
    // Results of jobs.

    /// Requests a probe because the engine's models may have changed.
    pub(crate) fn models_changed(&self) {
        self.want(Look::Models);
    }

    /// Records that the engine completed a job.
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

    /// Requests a probe of the engine.
    pub(crate) fn want(&self, look: Look) {
        let mut state = self.lock();
        state.look = state.look.max(look);
        drop(state);
        self.probe.notify_one();
    }

    /// Records that the engine failed a job: requests a probe, and stops leasing if the engine is
    /// down.
    pub(crate) fn engine_failed(&self, error: &EngineError) {
        let mut state = self.lock();
        match error {
            EngineError::Refused { .. } | EngineError::TooLong if !error.is_retryable() => return,
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

    // Results of probes.

    /// Lock held from asking the engine for its report until the report is recorded.
    pub(crate) const fn looks(&self) -> &tokio::sync::Mutex<()> {
        &self.looks
    }

    /// Makes links send the current report before anything that jobs send from now on.
    pub(crate) fn hurry_report(&self) {
        let mut state = self.lock();
        state.report_hurries = state.report_number;
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub(crate) fn engine_up(&self, report: WorkerReport) {
        let mut state = self.lock();
        // Set by the owner, not by the engine.
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

    /// Waits for the first probe of the engine.
    pub(crate) async fn probed(&self) {
        let mut probed = self.probed.subscribe();
        // The sender lives as long as `self`.
        drop(probed.wait_for(|probed| *probed).await);
    }

    /// Waits until a probe is requested.
    pub(crate) async fn wanted(&self) -> Look {
        self.probe.notified().await;
        std::mem::take(&mut self.lock().look)
    }

    /// Returns a model whose details are not known yet.
    pub(crate) fn unknown_model(&self) -> Option<ModelEntry> {
        let state = self.lock();
        if state.report.engine_up {
            state.details.unknown(&state.report)
        } else {
            None
        }
    }

    /// Records the details of a model.
    pub(crate) fn learned(&self, model: ModelEntry, show: Option<Box<RawValue>>) {
        self.lock().details.learned(model, show);
        self.outgoing.notify_one();
    }

    /// Records which models are in memory.
    pub(crate) fn running(&self, running: Vec<Box<RawValue>>) {
        if self.lock().details.set_running(running) {
            self.outgoing.notify_one();
        }
    }

    /// Returns how long not to ask an engine that failed too often; `None` if it did not.
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
