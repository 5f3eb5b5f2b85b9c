//! OpenAI's batches: many requests in one file, answered within a day.

use axum::{Json, extract::State};
use proto::{ErrorCode, Timestamp};
use queue::{BatchRecord, BatchState, FileRecord};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::files::{Page, listed, unknown};
use crate::{
    Relay,
    auth::{Caller, MayEnqueue, MayRead},
    batch::{self, BATCHES_MAX, ENDPOINTS, FILE_KEPT, WINDOW},
    concurrency::Repeat,
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
        let message = "a batch cannot be limited to one agent; leave out the headers \
                       x-hearth-worker and x-device-id";
        return Err(bad(message.into()));
    }
    let asked = wanted(&body)?;
    caller.if_repeated(Repeat::Doubles);
    let accepted = accept(relay.clone(), caller, asked);
    let batch = relay.run_to_completion(accepted).await?;
    Ok(Json(shown(&batch, (0, 0))))
}

fn wanted(body: &[u8]) -> Result<Create, ApiError> {
    let asked: Create = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if !ENDPOINTS.contains(&asked.endpoint.as_str()) {
        return Err(bad(format!(
            "endpoint must be one of {}",
            ENDPOINTS.join(", ")
        )));
    }
    if asked.completion_window != "24h" {
        return Err(bad("completion_window must be 24h".into()));
    }
    Ok(asked)
}

/// Stores a batch and starts it.
async fn accept(relay: Relay, caller: Caller, asked: Create) -> Result<BatchRecord, ApiError> {
    let _alone = relay.batches.alone.lock().await;
    let (store, owner) = (&relay.store, (&caller.account).into());
    let input = store.file(owner, &asked.input_file_id).await?;
    let input = input.ok_or_else(unknown)?;
    if input.purpose != "batch" {
        return Err(bad(
            "the input file must have been uploaded with the purpose batch".into(),
        ));
    }
    let batches = store.batches(owner).await?;
    let running = batches.iter().filter(|batch| !batch.state.is_final());
    if running.count() >= BATCHES_MAX {
        let message = format!(
            "the account has {BATCHES_MAX} unfinished batches, the maximum; wait until one ends, \
             or cancel one"
        );
        return Err(ApiError::new(ErrorCode::AccountFull, message));
    }
    let now = relay.now();
    // The input file must not expire while the batch still reads it.
    let input = FileRecord {
        expires_at: input.expires_at.max(now + FILE_KEPT),
        ..input
    };
    store.put_file(input.clone()).await?;
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
    store.put_batch(batch.clone()).await?;
    tracing::info!(batch = batch.id, "batch accepted");
    batch::start(&relay, batch.clone());
    Ok(batch)
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

/// `POST /v1/batches/{id}/cancel`: stops running lines and keeps the results so far.
pub(super) async fn cancel(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    InPath(id): InPath<String>,
    _: Control,
) -> Result<Json<Value>, ApiError> {
    caller.if_repeated(Repeat::Finds);
    let batch = relay
        .run_to_completion(withdraw(relay.clone(), caller, id))
        .await?;
    Ok(Json(view(&relay, &batch).await?))
}

/// Stores the cancellation and signals the running batch.
async fn withdraw(relay: Relay, caller: Caller, id: String) -> Result<BatchRecord, ApiError> {
    let _alone = relay.batches.alone.lock().await;
    let batch = relay.store.batch((&caller.account).into(), &id).await?;
    let mut batch = batch.ok_or_else(unknown)?;
    if batch.state.is_final() {
        let message = "the batch has already ended";
        return Err(ApiError::new(ErrorCode::JobEnded, message));
    }
    if batch.state != BatchState::Cancelling && batch.state != BatchState::Finalizing {
        batch.enter(relay.now(), BatchState::Cancelling);
        relay.store.put_batch(batch.clone()).await?;
    }
    relay.batches.cancel(&id);
    Ok(batch)
}

async fn view(relay: &Relay, batch: &BatchRecord) -> Result<Value, ApiError> {
    let counts = match batch.counts {
        Some(counts) => counts,
        None => {
            let results = relay.store.results(&batch.id).await?;
            batch::counted(&results)
        }
    };
    Ok(shown(batch, counts))
}

/// Formats a batch as OpenAI does, with the numbers of completed and failed lines.
fn shown(batch: &BatchRecord, (completed, failed): (u32, u32)) -> Value {
    let seconds = |at: Timestamp| at.0 / 1000;
    let at = |state| batch.entered(state).map(seconds);
    let refusals = batch.refusals.iter().map(|(line, message)| {
        json!({"code": "invalid_line", "message": message, "line": line, "param": null})
    });
    let errors = (!batch.refusals.is_empty())
        .then(|| json!({"object": "list", "data": refusals.collect::<Vec<_>>()}));
    json!({
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
    })
}

fn bad(message: String) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

    use axum::body::Body;
    use bytes::Bytes;
    use http::Request;
    use proto::Account;
    use queue::{Batches as _, Owner, Queue as _};
    use queue_sqlite::SqliteQueue;
    use tokio::time::timeout;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{RelaySettings, SystemWorld};

    async fn within<T>(work: impl Future<Output = T>) -> T {
        let done = timeout(Duration::from_secs(10), work).await;
        done.expect("nothing happened for ten seconds")
    }

    /// A relay without agents, over a store on disk that holds a file.
    async fn relay(folder: &tempfile::TempDir, lines: &str) -> (Relay, Arc<SqliteQueue>) {
        let path = folder.path().join("queue.db");
        let store = Arc::new(SqliteQueue::open(&path, Timestamp(0)).unwrap());
        let settings = RelaySettings {
            insecure_dev: true,
            ..RelaySettings::default()
        };
        let relay = Relay::new(store.clone(), settings, Arc::new(SystemWorld));
        let file = FileRecord {
            id: "file-1".into(),
            account: Account::new("default").unwrap(),
            name: "in.jsonl".into(),
            purpose: "batch".into(),
            bytes: lines.len() as u64,
            created_at: relay.now(),
            expires_at: relay.now() + FILE_KEPT,
        };
        let lines = Bytes::copy_from_slice(lines.as_bytes());
        store.put_part(&file.id, 0, lines).await.unwrap();
        store.put_file(file).await.unwrap();
        (relay, store)
    }

    /// Sends a request and drops it after `looks` polls of its future; returns whether it had been
    /// answered by then.
    async fn leave_after(relay: &Relay, path: &str, looks: usize) -> bool {
        let body = json!({
            "input_file_id": "file-1",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        });
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_string())).unwrap();
        let mut answer = pin!(crate::api::routes(relay.clone()).oneshot(request));
        let mut looked = 0;
        let looking = poll_fn(|context| {
            looked += 1;
            match answer.as_mut().poll(context) {
                Poll::Ready(Ok(response)) => {
                    assert!(response.status().is_success(), "{response:?}");
                    Poll::Ready(true)
                }
                Poll::Pending if looked == looks => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        within(looking).await
    }

    async fn until_final(store: &SqliteQueue, id: &str) -> BatchState {
        within(async {
            loop {
                let batch = store.batch(Owner::Anyone, id).await.unwrap().unwrap();
                if batch.state.is_final() {
                    return batch.state;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_batch_whose_requester_leaves_is_kept_and_begun_or_neither() {
        let folder = tempfile::tempdir().unwrap();
        let (relay, store) = relay(&folder, "this is no request\n").await;
        for looks in 1.. {
            let is_answered = leave_after(&relay, "/v1/batches", looks).await;
            relay.tasks.close();
            within(relay.tasks.wait()).await;
            relay.tasks.reopen();
            for batch in store.batches(Owner::Anyone).await.unwrap() {
                assert_eq!(batch.state, BatchState::Failed, "after {looks} looks");
            }
            if is_answered {
                break;
            }
        }
        let kept = store.batches(Owner::Anyone).await.unwrap();
        assert!(!kept.is_empty());
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_batch_is_withdrawn_also_if_who_wished_it_leaves() {
        let line = json!({
            "custom_id": "1",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        });
        let folder = tempfile::tempdir().unwrap();
        let (relay, store) = relay(&folder, &format!("{line}\n")).await;
        for looks in 1.. {
            assert!(leave_after(&relay, "/v1/batches", usize::MAX).await);
            let batches = store.batches(Owner::Anyone).await.unwrap();
            let running = batches.iter().find(|batch| !batch.state.is_final());
            let path = format!("/v1/batches/{}/cancel", running.unwrap().id);
            let is_answered = leave_after(&relay, &path, looks).await;
            assert_eq!(
                until_final(&store, &running.unwrap().id).await,
                BatchState::Cancelled,
                "after {looks} looks"
            );
            if is_answered {
                break;
            }
        }
        relay.drain.cancel();
        relay.tasks.close();
        within(relay.tasks.wait()).await;
        store.close().await.unwrap();
    }
}
