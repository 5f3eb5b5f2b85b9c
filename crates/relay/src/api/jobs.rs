//! The native API: submit a job, get its state, follow its log, fetch its answer, cancel it.

mod answer;
mod events;
mod list;
mod retry;
mod submit;

use axum::{Json, extract::State};
use http::StatusCode;
use proto::{JobId, JobView, WebhookView};
use queue::{IdempotencyKey, Job, QueuePosition, Webhook};

pub(super) use self::{
    answer::answer,
    events::events,
    list::{ListQuery, list, page},
    retry::{again, retry},
    submit::submit,
};
use crate::{
    Relay,
    auth::{Caller, MayEnqueue, MayRead},
    concurrency::Repeat,
    error::ApiError,
    position::millis,
    target::InPath,
};

/// `GET /api/jobs/{id}`.
pub(super) async fn get(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InPath(id): InPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let shown = shown(&relay, &caller, id).await?;
    relay.orphans.claim(id);
    Ok(Json(shown))
}

/// Returns the view of a job that the caller may see.
pub(super) async fn shown(relay: &Relay, caller: &Caller, id: JobId) -> Result<JobView, ApiError> {
    let job = relay.store.get(caller.owner(), id).await?;
    let job = job.ok_or_else(ApiError::unknown_job)?;
    let place = relay.place(&job.new.account, &job.new.model, id);
    let webhook = relay.store.webhook(id).await?;
    let retry = IdempotencyKey::retry(id).key;
    let retried = relay.store.submitted(&job.new.account, &retry).await?;
    Ok(JobView {
        retried_as: retried.map(|(id, _)| id),
        webhook: webhook.map(webhook_view),
        ..placed(view(job), place)
    })
}

/// `DELETE /api/jobs/{id}`: cancels the job.
pub(super) async fn cancel(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    InPath(id): InPath<JobId>,
) -> Result<StatusCode, ApiError> {
    withdraw(&relay, &caller, id).await
}

/// Cancels a job that the caller may see.
pub(super) async fn withdraw(
    relay: &Relay,
    caller: &Caller,
    id: JobId,
) -> Result<StatusCode, ApiError> {
    caller.if_repeated(Repeat::Finds);
    relay.store.cancel(relay.now(), caller.owner(), id).await?;
    tracing::info!(job.id = %id, by = caller.in_log(), "cancelled by request");
    Ok(StatusCode::NO_CONTENT)
}

/// Converts a job to its public view.
pub(crate) fn view(job: Job) -> JobView {
    JobView {
        id: job.new.id,
        state: job.state,
        account: job.new.account,
        op: job.new.op,
        model: job.new.model,
        worker: job.new.worker,
        priority: job.new.priority,
        attempt: job.attempt,
        created_at: job.created_at,
        finished_at: job.finished_at,
        deadline: job.new.deadline,
        error: job.error.map(Into::into),
        position: None,
        expected_wait_ms: None,
        retried_as: None,
        webhook: None,
    }
}

fn webhook_view(webhook: Webhook) -> WebhookView {
    WebhookView {
        state: webhook.state,
        tries: webhook.tries,
        error: webhook.error,
        secret: None,
    }
}

/// Adds the queue position to a job's view.
fn placed(job: JobView, place: Option<QueuePosition>) -> JobView {
    JobView {
        position: place.map(|place| place.before as u64),
        expected_wait_ms: place.and_then(|place| place.wait).map(millis),
        ..job
    }
}
