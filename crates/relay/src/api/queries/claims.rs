//! The query service's routes for workers: claim, follow and answer a query. A claim is an ordinary
//! lease: every request of the worker renews it, and when it expires the query is queued again.

use std::collections::BTreeSet;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use dialect::queries::{Fields, Patch, Refusal, Status, Text};
use http::{HeaderMap, StatusCode};
use proto::{End, ErrorCode, JobError, LeaseToken, WorkerId, worker::Retry};
use queue::{Claim, LeaseQuery, Models, Owner, QueryId, QueueError};

use super::{ANSWER_MAX, JSON, entry, held, number, shown};
use crate::{
    Relay,
    api::{
        login::fields,
        rest::{Claims, RestError},
        written,
    },
    auth::{Caller, serves},
    carrier::arrivals::Arrivals,
    error::ApiError,
    payload::{Control, Inference, Payload},
    target::InPath,
};

/// Maximum number of log entries of one query.
const LOGS_MAX: u64 = 1000;

/// `POST /api/queries/claim_next/`.
pub(crate) async fn claim_next(
    State(relay): State<Relay>,
    Claims(caller): Claims,
    _: Control,
) -> Result<Response, RestError> {
    let worker = WorkerId::new(format!("queries-{}", caller.key_id()));
    let wanted = LeaseQuery {
        worker: worker.map_err(|_| ApiError::internal())?,
        serve: caller.serve.clone(),
        models: Models::AnyForQueries,
        allowed_models: caller.ceiling.models.clone(),
        excluded_models: BTreeSet::new(),
        accepts_model_changes: false,
        request_max: usize::MAX,
    };
    let length = relay.settings.legacy_lease;
    let asker = Arrivals::of(&relay, caller.claimant());
    let lent = relay.lease_many(&asker, wanted, length, 1).await?;
    let token = lent.leases().first().map(|lease| lease.token);
    let token = token.ok_or_else(Refusal::nothing_queued)?;
    let id = relay.store.query_of(token.job).await?;
    let id = id.ok_or_else(ApiError::internal)?;
    let claim = Claim {
        by: caller.claimant(),
        attempt: token.attempt,
        at: relay.now(),
    };
    relay.store.claim_query(id, claim).await?;
    // If the worker cannot be told, dropping `lent` gives the query back at once.
    let response = present(&relay, &caller, id).await?;
    drop(lent.take());
    tracing::info!(job.id = %token.job, job.attempt = token.attempt, "claimed as a query");
    Ok(response)
}

/// `PATCH /api/queries/{id}/`.
pub(crate) async fn patch(
    State(relay): State<Relay>,
    Claims(caller): Claims,
    InPath(id): InPath<String>,
    headers: HeaderMap,
    Payload(body): Inference,
) -> Result<Response, RestError> {
    let patch = fields(&headers, &body)?.patch()?;
    let found = visible(&relay, &caller, number(&id)?).await?;
    let Some(token) = held_by(&caller, &found) else {
        return Err(Refusal::forbidden().into());
    };
    match apply(&relay, &found, token, patch).await {
        Ok(()) => {}
        // A late answer is acknowledged and dropped, as for other legacy workers.
        Err(error) if error.is_late() => {
            tracing::info!(job.id = %token.job, job.attempt = token.attempt, "late answer dropped");
        }
        Err(error) => return Err(error.into()),
    }
    present(&relay, &caller, found.id).await
}

async fn apply(
    relay: &Relay,
    query: &queue::Query,
    token: LeaseToken,
    patch: Patch,
) -> Result<(), QueueError> {
    let (now, store) = (relay.now(), &relay.store);
    let text = match (patch.answer_text, &query.draft) {
        (Some(text), _) => Some(text),
        (None, Some(draft)) => Some(Text(String::from_utf8_lossy(&draft.0).into_owned())),
        (None, None) => None,
    };
    match patch.status {
        None | Some(Status::InProgress) => {
            store
                .extend(now, token, relay.settings.legacy_lease)
                .await?;
            match text {
                Some(text) => {
                    store
                        .draft_query(query.id, Bytes::from(text.0).into())
                        .await
                }
                None => Ok(()),
            }
        }
        Some(Status::Queued) => {
            let why = JobError::new(
                ErrorCode::WorkerLost,
                "the worker returned the query to the queue",
            );
            store.nack(now, token, Retry::Now, why).await
        }
        Some(Status::Done) => finish(relay, query, token, text.as_deref(), End::Completed).await,
        Some(Status::Failed) => {
            let reason = text.as_deref().filter(|text| !text.trim().is_empty());
            let reason = reason.unwrap_or("the worker gave no reason");
            let error = JobError::new(ErrorCode::EngineFailed, reason).bounded();
            finish(relay, query, token, text.as_deref(), End::Failed { error }).await
        }
    }
}

/// Writes the answer as native lines, and ends the job.
async fn finish(
    relay: &Relay,
    query: &queue::Query,
    token: LeaseToken,
    text: Option<&str>,
    end: End,
) -> Result<(), QueueError> {
    let (now, new) = (relay.now(), &query.job.new);
    let lines = dialect::relay_polling::lines(new.op, &new.model, text.unwrap_or_default(), now);
    let count = lines.len() as u64;
    if !query.job.state.is_final() {
        relay.store.append(now, token, 1, lines.into()).await?;
    }
    relay.store.complete(now, token, count, end).await
}

/// `POST /api/logs/`.
pub(crate) async fn log(
    State(relay): State<Relay>,
    Claims(caller): Claims,
    headers: HeaderMap,
    Payload(body): Inference,
) -> Result<Response, RestError> {
    let new = fields(&headers, &body)?.new_log()?;
    let found = visible(&relay, &caller, new.query).await;
    let Ok(found) = found else {
        return Err(Fields::no_such("query", new.query).into());
    };
    let (now, text) = (relay.now(), Bytes::from(new.log_data.0).into());
    if let Some(token) = held_by(&caller, &found) {
        let renewed = relay.store.extend(now, token, relay.settings.legacy_lease);
        if let Err(error) = renewed.await {
            tracing::debug!(job.id = %token.job, error = proto::causes(&error), "a log entry did not renew the lease");
        }
    }
    let written_entry = relay.store.log_query(now, found.id, text, LOGS_MAX).await?;
    let Some(log) = written_entry else {
        let text = "The log of the query is full: it has 1000 entries or 4 MiB, the maximum.";
        return Err(Refusal::detail(400, text).into());
    };
    let entry = entry(found.project, &log);
    let mut response = written(JSON, dialect::queries::log(&entry));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Returns the query if the caller may see it or could have claimed it.
async fn visible(relay: &Relay, caller: &Caller, id: QueryId) -> Result<queue::Query, RestError> {
    let found = relay.store.find_query(Owner::Anyone, id).await?;
    let found = found.filter(|query| {
        let account = &query.job.new.account;
        caller.owner().owns(account) || serves(&caller.serve, account)
    });
    found.ok_or_else(|| Refusal::no_query().into())
}

/// Returns the lease of the caller's claim, even if it has expired.
fn held_by(caller: &Caller, query: &queue::Query) -> Option<LeaseToken> {
    let claim = query.claim.as_ref();
    let claim = claim.filter(|claim| claim.by == caller.claimant())?;
    Some(LeaseToken {
        job: query.job.new.id,
        attempt: claim.attempt,
    })
}

/// Returns the query in its current state.
async fn present(relay: &Relay, caller: &Caller, id: QueryId) -> Result<Response, RestError> {
    let now = relay.store.find_query(Owner::Anyone, id).await?;
    let now = now.ok_or_else(Refusal::no_query)?;
    let mut share = relay.gathered.share(&caller.claimant());
    let query = shown(relay, &now, ANSWER_MAX, &mut share).await?;
    Ok(held(share, dialect::queries::query(&query)))
}
