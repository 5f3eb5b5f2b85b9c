//! What both carriers of the tunnel service's desktops share: which jobs they get, and what becomes
//! of their answers.

use std::{collections::BTreeSet, time::Duration};

use dialect::bridge::{Answer, Failure, Outcome};
use proto::{End, LeaseToken, Op, WorkerId, WorkerReport, worker::Retry};
use queue::{LeaseQuery, Models, QueueError};

use super::query_of;
use crate::{Relay, auth::Caller};

/// Time for which signs of life of a desktop renew its lease. A native worker waits as long for an
/// answer in one piece.
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
            let retry = Retry::after_failure(token.attempt, fraction(relay));
            return relay.store.nack(now, token, retry, error.bounded()).await;
        }
        Err(Failure { error, .. }) => End::Failed {
            error: error.bounded(),
        },
    };
    relay.store.complete(now, token, count, end).await
}

/// Whether this error only says that the answer came too late.
pub(crate) const fn is_late(error: &QueueError) -> bool {
    matches!(
        error,
        QueueError::StaleLease(_) | QueueError::Ended(..) | QueueError::Gap { .. }
    )
}

/// Returns a random number from 0 to 1; 1 if the system provides none.
fn fraction(relay: &Relay) -> f64 {
    let random = relay.random();
    random.map_or(1.0, |random| f64::from(random[0]) / f64::from(u8::MAX))
}
