//! The worker's side of the relay: one contract over a WebSocket or over plain requests.

pub(crate) mod http;
mod lending;
mod open;
mod session;
pub(crate) mod socket;
mod writer;

use std::time::Duration;

use futures_util::future::join_all;
use proto::{ErrorCode, JobError, LeaseToken, WorkerId, WorkerReport, worker::Retry};
use queue::{Lease, LeaseQuery, Models, QueueError};
use tokio::sync::oneshot;

use crate::{
    Relay,
    auth::{Caller, serves},
    error::ApiError,
};

impl Relay {
    /// Leases a job, see [`Relay::lease_many`].
    pub(crate) async fn lease(
        &self,
        query: &LeaseQuery,
        length: Duration,
    ) -> Result<Option<Lease>, QueueError> {
        let mut leases = self.lease_many(query.clone(), length, 1).await?;
        Ok(leases.pop())
    }

    /// Leases jobs. If the caller is gone by the time there are some, they are given back at once
    /// instead of waiting for their leases to end.
    pub(crate) async fn lease_many(
        &self,
        query: LeaseQuery,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Lease>, QueueError> {
        let (answer, leased) = oneshot::channel();
        let relay = self.clone();
        self.tasks.spawn(async move {
            let store = &relay.store;
            let leases = store.lease_many(relay.now(), &query, length, max).await;
            if let Err(Ok(leases)) = answer.send(leases) {
                relay.give_back(leases).await;
            }
        });
        leased.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Gives back leases that no worker has heard of, all in one group.
    async fn give_back(&self, leases: Vec<Lease>) {
        let back = leases.into_iter().map(|lease| async move {
            let why = JobError::new(ErrorCode::WorkerLost, "the worker left before it began");
            let token = lease.token;
            if let Err(error) = self.store.nack(self.now(), token, Retry::Now, why).await {
                tracing::warn!(job.id = %token.job, %error, "not given back");
            }
        });
        join_all(back).await;
    }

    /// Whether this worker may hold this lease at all: the job's account is one it serves.
    async fn may_hold(&self, caller: &Caller, token: LeaseToken) -> Result<(), ApiError> {
        let account = self.store.account(token.job).await?;
        account
            .filter(|account| serves(&caller.serve, account))
            .map(|_| ())
            .ok_or_else(ApiError::unknown_job)
    }
}

/// The same, but only for what waits for no slot.
fn only_urgent(query: LeaseQuery) -> LeaseQuery {
    let models = match query.models {
        Models::Only(models) => Models::OnlyUrgent(models),
        other @ (Models::Any
        | Models::AnyBut(_)
        | Models::AnyForQueries
        | Models::OnlyUrgent(_)) => other,
    };
    LeaseQuery { models, ..query }
}

impl Caller {
    /// The report, without the models that the worker's key does not allow it.
    pub(crate) fn permitted(&self, mut report: WorkerReport) -> WorkerReport {
        let models = &self.ceiling.models;
        report.models.retain(|model| models.allow(&model.name));
        report
    }
}

/// What a worker asks for, from what it reported: models in memory first.
fn query_of(caller: &Caller, worker: &WorkerId, report: &WorkerReport) -> LeaseQuery {
    let (loaded, others): (Vec<_>, Vec<_>) = report.models.iter().partition(|m| m.loaded);
    let names = loaded.into_iter().chain(others).map(|m| m.name.clone());
    LeaseQuery {
        worker: worker.clone(),
        serve: caller.serve.clone(),
        models: Models::Only(names.collect()),
        within: caller.ceiling.models.clone(),
    }
}
