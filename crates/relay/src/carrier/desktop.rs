//! What both carriers of the tunnel service's desktops share: which jobs they get, and what becomes
//! of their answers.

use std::{collections::BTreeSet, time::Duration};

use dialect::bridge::{Answer, Failure, Outcome};
use proto::{End, ErrorCode, JobError, LeaseToken, Op, WorkerId, WorkerReport, worker::Retry};
use queue::{LeaseQuery, Models, QueueError};

use super::query_of;
use crate::{Relay, auth::Caller};

/// Time for which signs of life of a desktop renew its lease. The default limit of a job on an agent
/// is as long (`--job-limit`).
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30 * 60);

/// Returns the request for leases of a desktop: jobs of the models that it reported, or of any.
pub(crate) fn query(
    caller: &Caller,
    worker: &WorkerId,
    report: Option<&WorkerReport>,
) -> LeaseQuery {
    match report {
        Some(report) => query_of(caller, worker, report),
        None => LeaseQuery {
            worker: worker.clone(),
            serve: caller.serve.clone(),
            models: Models::Any,
            allowed_models: caller.ceiling.models.clone(),
            excluded_models: BTreeSet::new(),
            accepts_model_changes: false,
            request_max: usize::MAX,
        },
    }
}

/// Ends a job with the answer of its desktop, or gives it back if another try may succeed.
pub(crate) async fn settle(
    relay: &Relay,
    token: LeaseToken,
    op: Op,
    answer: &Answer,
) -> Result<(), QueueError> {
    let Outcome { lines, end } = answer.outcome(op);
    let (now, count) = (relay.now(), lines.len() as u64);
    if count > 0 {
        relay.store.append(now, token, 1, lines).await?;
    }
    let end = match end {
        Ok(()) => End::Completed,
        Err(Failure {
            error,
            is_retryable: true,
        }) => {
            let retry = Retry::after_failure(token.attempt, relay.fraction());
            return relay.store.nack(now, token, retry, error.bounded()).await;
        }
        Err(Failure { error, .. }) => End::Failed {
            error: error.bounded(),
        },
    };
    relay.store.complete(now, token, count, end).await
}

/// Ends a job that its requester has cancelled; `Ok` also if its lease has ended otherwise.
///
/// # Errors
/// Fails if the store does.
pub(crate) async fn end_cancelled(relay: &Relay, token: LeaseToken) -> Result<(), QueueError> {
    let why = JobError::new(ErrorCode::Cancelled, "the requester cancelled the job");
    match relay
        .store
        .nack(relay.now(), token, Retry::Never, why)
        .await
    {
        Err(error) if error.is_of_store() => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::JobState;
    use queue::{
        MemoryQueue, Owner,
        conformance::sample::{LEASE, anyone, id, job},
    };

    use super::*;
    use crate::{RelaySettings, carrier::arrivals::Arrivals, world::SystemWorld};

    #[tokio::test]
    async fn a_cancelled_job_that_was_answered_first_is_no_error() {
        let store = Arc::new(MemoryQueue::default());
        let relay = Relay::new(store, RelaySettings::default(), Arc::new(SystemWorld));
        let (store, now) = (&relay.store, relay.now());
        store.enqueue(now, job(1)).await.unwrap();
        let token = relay
            .lease(&Arrivals::of(&relay, "a".into()), &anyone(), LEASE)
            .await
            .unwrap()
            .unwrap()
            .token;
        store.cancel(now, Owner::Anyone, id(1)).await.unwrap();
        store.complete(now, token, 0, End::Cancelled).await.unwrap();
        end_cancelled(&relay, token).await.unwrap();
        let ended = store.get(Owner::Anyone, id(1)).await.unwrap().unwrap();
        assert_eq!(ended.state, JobState::Cancelled);
    }
}
