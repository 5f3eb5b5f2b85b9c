//! Models and engines that the online workers provide for an account.

use std::sync::Arc;

use proto::{ModelName, WorkerReport};
use queue::ModelPatterns;

/// Models and engines available to an account now.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// Reports of workers whose engine is up.
    pub(crate) reports: Vec<Arc<WorkerReport>>,
    /// Reports of workers whose engine is down, with the models it last had.
    pub(crate) down: Vec<Arc<WorkerReport>>,
    /// Models that workers without a list of models are allowed to run.
    pub(crate) any: Vec<ModelPatterns>,
}

/// Prospect of a job for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// A worker can run it now.
    Served,
    /// Only workers whose engine is down could run it.
    EngineDown,
    /// No worker has the model.
    Unknown,
    /// No worker is online.
    NobodyOnline,
}

impl Offer {
    pub(crate) fn availability(&self, model: &ModelName) -> Availability {
        if self.any.iter().any(|any| any.allow(model)) || has(&self.reports, model) {
            Availability::Served
        } else if has(&self.down, model) || self.has_unseen() {
            Availability::EngineDown
        } else if self.reports.is_empty() && self.down.is_empty() && self.any.is_empty() {
            Availability::NobodyOnline
        } else {
            Availability::Unknown
        }
    }

    /// Returns the prospect of a job for which no model can be determined.
    pub(crate) fn without_model(&self) -> Availability {
        if !self.any.is_empty() || !self.reports.is_empty() {
            Availability::Unknown
        } else if self.down.is_empty() {
            Availability::NobodyOnline
        } else {
            Availability::EngineDown
        }
    }

    /// Returns the model for requests that name none; models that can be served now come first.
    pub(crate) fn first_model(&self, within: &ModelPatterns) -> Option<&ModelName> {
        let reports = self.reports.iter().chain(&self.down);
        let models = reports.flat_map(|report| &report.models);
        let mut names = models.map(|model| &model.name);
        names.find(|name| within.allow(name))
    }

    /// Whether an engine was never seen up: it may have any model.
    fn has_unseen(&self) -> bool {
        self.down.iter().any(|report| report.models.is_empty())
    }
}

/// Removes from a report the models that a key may not use.
pub(crate) fn narrow(report: &mut Arc<WorkerReport>, within: &ModelPatterns) {
    if !within.are_all() {
        let report = Arc::make_mut(report);
        report.models.retain(|model| within.allow(&model.name));
    }
}

fn has(reports: &[Arc<WorkerReport>], model: &ModelName) -> bool {
    let mut models = reports.iter().flat_map(|report| &report.models);
    models.any(|known| known.name.is_same(model))
}
