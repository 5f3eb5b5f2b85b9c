//! What the workers online can do for an account.

use std::sync::Arc;

use proto::{ModelName, WorkerReport};
use queue::ModelPatterns;

/// What an account can have done now.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The reports of workers whose engine is up.
    pub(crate) reports: Vec<Arc<WorkerReport>>,
    /// Those of workers whose engine is down, with the models it had.
    pub(crate) down: Vec<Arc<WorkerReport>>,
    /// Which of all models workers run that did not say which.
    pub(crate) any: Vec<ModelPatterns>,
}

/// What becomes of a job for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Somebody can do it now.
    Served,
    /// Only engines that are down could.
    EngineDown,
    /// Nobody has the model.
    Unknown,
    /// Nobody is online.
    NobodyOnline,
}

impl Offer {
    pub(crate) fn outlook(&self, model: &ModelName) -> Outlook {
        if self.any.iter().any(|any| any.allow(model)) || has(&self.reports, model) {
            Outlook::Served
        } else if has(&self.down, model) || self.has_unseen() {
            Outlook::EngineDown
        } else if self.reports.is_empty() && self.down.is_empty() && self.any.is_empty() {
            Outlook::NobodyOnline
        } else {
            Outlook::Unknown
        }
    }

    /// What becomes of a job when no model can be told.
    pub(crate) fn without_model(&self) -> Outlook {
        if !self.any.is_empty() || !self.reports.is_empty() {
            Outlook::Unknown
        } else if self.down.is_empty() {
            Outlook::NobodyOnline
        } else {
            Outlook::EngineDown
        }
    }

    /// For requests that name no model: what can be served now comes first.
    pub(crate) fn first_model(&self, within: &ModelPatterns) -> Option<&ModelName> {
        let reports = self.reports.iter().chain(&self.down);
        let models = reports.flat_map(|report| &report.models);
        let mut names = models.map(|model| &model.name);
        names.find(|name| within.allow(name))
    }

    /// An engine was down all the time: it may have any model.
    fn has_unseen(&self) -> bool {
        self.down.iter().any(|report| report.models.is_empty())
    }
}

/// Takes out of a report what a key may not ask for.
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
