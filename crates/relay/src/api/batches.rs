//! OpenAI's batches: many requests in one file, answered within a day.

use axum::{Json, extract::State};
use proto::{ErrorCode, Timestamp};
use queue::{BatchRecord, BatchState, FileRecord};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::files::{Page, listed, unknown};
use crate::{
    Relay,
    auth::{MayEnqueue, MayRead},
    batch::{self, BATCHES_MAX, ENDPOINTS, FILE_KEPT, WINDOW},
    error::ApiError,
    payload::{Control, Payload},
    target::{InPath, InQuery},
};

#[derive(Deserialize)]
struct Create {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

/// `POST /v1/batches`.
pub(super) async fn create(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Control,
) -> Result<Json<Value>, ApiError> {
    if caller.worker.is_some() {
        let message = "a batch's lines go to any agent that has their model; leave \
                       x-hearth-worker and x-device-id out";
        return Err(bad(message.into()));
    }
    let asked: Create = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    if !ENDPOINTS.contains(&asked.endpoint.as_str()) {
        return Err(bad(format!("endpoint is one of {}", ENDPOINTS.join(", "))));
    }
    if asked.completion_window != "24h" {
        return Err(bad("completion_window is 24h".into()));
    }
    let alone = relay.batches.alone.lock().await;
    let input = relay
        .store
        .file((&caller.account).into(), &asked.input_file_id);
    let input = input.await?.ok_or_else(unknown)?;
    if input.purpose != "batch" {
        return Err(bad(
            "the file was not uploaded with the purpose batch".into()
        ));
    }
    let batches = relay.store.batches((&caller.account).into()).await?;
    let running = batches.iter().filter(|batch| !batch.state.is_final());
    if running.count() >= BATCHES_MAX {
        let message = format!("an account has at most {BATCHES_MAX} unfinished batches");
        return Err(ApiError::new(ErrorCode::AccountFull, message));
    }
    let now = relay.now();
    // A batch that waits must not lose the lines it has not read.
    let input = FileRecord {
        expires_at: input.expires_at.max(now + FILE_KEPT),
        ..input
    };
    relay.store.put_file(input.clone()).await?;
    let batch = BatchRecord {
        id: format!("batch_{}", relay.job_id()?),
        account: caller.account.clone(),
        who: caller.name.clone(),
        ceiling: caller.ceiling.clone(),
        endpoint: asked.endpoint,
        input: input.id,
        state: BatchState::Validating,
        created_at: now,
        expires_at: now + WINDOW,
        times: vec![],
        total: 0,
        counts: None,
        output: None,
        errors: None,
        refusals: vec![],
        metadata: json!(asked.metadata).to_string(),
    };
    relay.store.put_batch(batch.clone()).await?;
    drop(alone);
    tracing::info!(batch = batch.id, "accepted");
    let told = view(&relay, &batch).await?;
    batch::start(&relay, batch);
    Ok(Json(told))
}

/// `GET /v1/batches?after=&limit=`: newest first.
pub(super) async fn list(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InQuery(page): InQuery<Page>,
) -> Result<Json<Value>, ApiError> {
    let batches = relay.store.batches((&caller.account).into()).await?;
    let mut views = Vec::with_capacity(batches.len());
    for batch in &batches {
        views.push((batch.id.as_str(), view(&relay, batch).await?));
    }
    Ok(Json(listed(views.into_iter(), &page)))
}

/// `GET /v1/batches/{id}`.
pub(super) async fn get(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InPath(id): InPath<String>,
) -> Result<Json<Value>, ApiError> {
    let batch = relay.store.batch((&caller.account).into(), &id).await?;
    Ok(Json(view(&relay, &batch.ok_or_else(unknown)?).await?))
}

/// `POST /v1/batches/{id}/cancel`: what runs is stopped, what is answered is kept.
pub(super) async fn cancel(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    InPath(id): InPath<String>,
    _: Control,
) -> Result<Json<Value>, ApiError> {
    let alone = relay.batches.alone.lock().await;
    let batch = relay.store.batch((&caller.account).into(), &id).await?;
    let mut batch = batch.ok_or_else(unknown)?;
    if batch.state.is_final() {
        let message = "the batch has ended; nothing about it can change";
        return Err(ApiError::new(ErrorCode::JobEnded, message));
    }
    if batch.state != BatchState::Cancelling && batch.state != BatchState::Finalizing {
        batch.enter(relay.now(), BatchState::Cancelling);
        relay.store.put_batch(batch.clone()).await?;
    }
    drop(alone);
    relay.batches.cancel(&id);
    Ok(Json(view(&relay, &batch).await?))
}

async fn view(relay: &Relay, batch: &BatchRecord) -> Result<Value, ApiError> {
    let (completed, failed) = match batch.counts {
        Some(counts) => counts,
        None => {
            let results = relay.store.results(&batch.id).await?;
            let failed = results.iter().filter(|(_, is_error)| *is_error).count();
            let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
            (count(results.len() - failed), count(failed))
        }
    };
    let seconds = |at: Timestamp| at.0 / 1000;
    let at = |state| batch.entered(state).map(seconds);
    let refusals = batch.refusals.iter().map(|(line, message)| {
        json!({"code": "invalid_line", "message": message, "line": line, "param": null})
    });
    let errors = (!batch.refusals.is_empty())
        .then(|| json!({"object": "list", "data": refusals.collect::<Vec<_>>()}));
    Ok(json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": batch.input,
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": batch.output,
        "error_file_id": batch.errors,
        "created_at": seconds(batch.created_at),
        "expires_at": seconds(batch.expires_at),
        "in_progress_at": at(BatchState::InProgress),
        "finalizing_at": at(BatchState::Finalizing),
        "completed_at": at(BatchState::Completed),
        "failed_at": at(BatchState::Failed),
        "expired_at": at(BatchState::Expired),
        "cancelling_at": at(BatchState::Cancelling),
        "cancelled_at": at(BatchState::Cancelled),
        "request_counts": {"total": batch.total, "completed": completed, "failed": failed},
        "metadata": serde_json::from_str::<Value>(&batch.metadata).unwrap_or_default(),
    }))
}

fn bad(message: String) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}
