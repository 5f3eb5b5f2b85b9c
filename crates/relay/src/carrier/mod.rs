//! The worker's side of the relay: one contract over a WebSocket or over plain requests.

pub(crate) mod http;
mod open;
mod session;
pub(crate) mod socket;
mod writer;

use std::time::Duration;

use proto::{ErrorCode, JobError, LeaseToken, WorkerId, WorkerReport, worker::Retry};
use queue::{Lease, LeaseQuery, Models, Owner, QueueError};
use tokio::sync::oneshot;

use crate::{
    Relay,
    auth::{Caller, serves},
    error::ApiError,
};

impl Relay {
    /// Leases a job. If the caller is gone by the time there is one, it is given back at once
    /// instead of waiting for the lease to end.
    pub(crate) async fn lease(
        &self,
        query: &LeaseQuery,
        length: Duration,
    ) -> Result<Option<Lease>, QueueError> {
        let (answer, leased) = oneshot::channel();
        let (relay, query) = (self.clone(), query.clone());
        self.tasks.spawn(async move {
            let lease = relay.store.lease(relay.now(), &query, length).await;
            let Err(Ok(Some(lease))) = answer.send(lease) else {
                return;
            };
            let why = JobError::new(ErrorCode::WorkerLost, "the worker left before it began");
            let back = relay
                .store
                .nack(relay.now(), lease.token, Retry::Now, why)
                .await;
            if let Err(error) = back {
                tracing::warn!(job.id = %lease.token.job, %error, "not given back");
            }
        });
        leased.await.unwrap_or(Ok(None))
    }

    /// Whether this worker may hold this lease at all: the job's account is one it serves.
    async fn may_hold(&self, caller: &Caller, token: LeaseToken) -> Result<(), ApiError> {
        let job = self.store.get(Owner::Anyone, token.job).await?;
        job.filter(|job| serves(&caller.serve, &job.new.account))
            .map(|_| ())
            .ok_or_else(ApiError::unknown_job)
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
    }
}
