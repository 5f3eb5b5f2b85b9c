//! What the online workers offer an account.

use proto::{Account, ModelName, Timestamp, WorkerId};
use queue::{Models, Serve};

use super::{
    OnlineId, OnlineWorker, Workers,
    catalog::{EngineCatalog, EngineInfo},
    registry::name,
};
use crate::{auth::serves, offer::Offer, position::combined};

impl Workers {
    /// Returns what the online workers can run for an account, in the order they registered; or
    /// only the workers of one name.
    pub(crate) fn offer(
        &self,
        account: &Account,
        only: Option<&WorkerId>,
        now: Timestamp,
    ) -> Offer {
        let mut registry = self.lock();
        registry.settle(now);
        let mut offer = Offer::default();
        let is_it = |id: &OnlineId, online: &OnlineWorker| {
            only.is_none_or(|only| name(id, online) == Some(only))
        };
        let online = registry.online.iter();
        let online = online.filter(|(id, (online, _))| is_it(id, online));
        let online = online.map(|(_, (online, _))| online);
        for worker in online.filter(|online| serves(&online.serve, account)) {
            match &worker.report {
                None => offer.any.push(worker.allowed_models.clone()),
                Some(report) if report.engine_up => offer.reports.push(report.clone()),
                Some(report) => offer.down.push(report.clone()),
            }
        }
        offer
    }

    /// Returns the combined accounts and models of the online workers that may be leased a job of
    /// this account and model.
    pub(crate) fn line(
        &self,
        account: &Account,
        model: &ModelName,
        now: Timestamp,
    ) -> (Serve, Models) {
        let mut registry = self.lock();
        registry.settle(now);
        let online = registry.online.values().map(|(online, _)| online);
        let workers = online.filter(|worker| worker.serve.includes(account));
        let workers = workers.filter_map(|worker| {
            let models = match &worker.report {
                None => Models::Any,
                Some(report) if report.engine_up => {
                    Models::Only(report.models.iter().map(|m| m.name.clone()).collect())
                }
                Some(_) => return None,
            };
            let runs = match &models {
                Models::Any | Models::AnyBut(_) => worker.allowed_models.allow(model),
                Models::AnyForQueries => false,
                Models::Only(names) | Models::OnlyUrgent(names) => {
                    names.iter().any(|name| name.is_same(model))
                }
            };
            runs.then(|| (worker.serve.clone(), models))
        });
        combined(account, model, workers)
    }

    /// Returns what is known of the engines that serve an account: those that are up, those that
    /// are down, and those whose worker disconnected recently.
    pub(crate) fn catalog(&self, account: &Account, now: Timestamp) -> EngineCatalog {
        let mut registry = self.lock();
        registry.settle(now);
        let here = registry.online.values();
        let here = here.filter(|(online, _)| serves(&online.serve, account));
        let here = here.filter_map(|(online, told)| {
            Some(EngineInfo {
                report: online.report.clone()?,
                details: told.details.clone(),
            })
        });
        let (up, down): (Vec<EngineInfo>, Vec<EngineInfo>) =
            here.partition(|known| known.report.engine_up);
        let gone = registry.gone.values();
        let gone = gone.filter(|gone| serves(&gone.serve, account));
        let gone = gone.map(|gone| EngineInfo {
            report: gone.report.clone(),
            details: gone.told.details.clone(),
        });
        let is_up = up.len();
        EngineCatalog::new(up.into_iter().chain(down).chain(gone).collect(), is_up)
    }
}
