//! What the workers online can do for an account.

use std::sync::Arc;

use proto::{ModelName, WorkerReport};

/// What an account can have done now.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The reports of workers whose engine is up.
    pub(crate) reports: Vec<Arc<WorkerReport>>,
    /// Those of workers whose engine is down, with the models it had.
    pub(crate) down: Vec<Arc<WorkerReport>>,
    /// Some worker runs any model.
    pub(crate) any: bool,
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
        if self.any || has(&self.reports, model) {
            Outlook::Served
        } else if has(&self.down, model) || self.has_unseen() {
            Outlook::EngineDown
        } else if self.reports.is_empty() && self.down.is_empty() {
            Outlook::NobodyOnline
        } else {
            Outlook::Unknown
        }
    }

    /// What becomes of a job when no model can be told.
    pub(crate) fn without_model(&self) -> Outlook {
        if self.any || !self.reports.is_empty() {
            Outlook::Unknown
        } else if self.down.is_empty() {
            Outlook::NobodyOnline
        } else {
            Outlook::EngineDown
        }
    }

    /// For requests that name no model: what can be served now comes first.
    pub(crate) fn first_model(&self) -> Option<&ModelName> {
        let reports = self.reports.iter().chain(&self.down);
        let mut models = reports.flat_map(|report| &report.models);
        models.next().map(|model| &model.name)
    }

    /// An engine was down all the time: it may have any model.
    fn has_unseen(&self) -> bool {
        self.down.iter().any(|report| report.models.is_empty())
    }
}

fn has(reports: &[Arc<WorkerReport>], model: &ModelName) -> bool {
    let mut models = reports.iter().flat_map(|report| &report.models);
    models.any(|known| known.name.is_same(model))
}
