//! `POST /api/jobs`: a job is accepted once it is on disk, and once for each idempotency key.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use proto::{Dialect, ErrorCode, SubmitJob};

use super::view;
use crate::{
    Relay,
    auth::{Caller, MayEnqueue},
    error::ApiError,
    intake::Patience,
    payload::{Inference, Payload},
    ticket::{Order, fingerprint},
    wishes,
};

/// `POST /api/jobs`.
pub(in crate::api) async fn submit(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let job: SubmitJob = serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::BadRequest
        } else {
            ErrorCode::MalformedJson
        };
        ApiError::new(code, error.to_string())
    })?;
    let wanted_for = job.deadline_ms.map(Duration::from_millis);
    let wanted_for = wanted_for.map(wishes::deadline).transpose()?;
    let native = Bytes::from(String::from(Box::<str>::from(job.body)));
    let head = dialect::ollama::request_head(job.op, &native)?;
    let asked = head.model.as_deref();
    let once = caller.once(|| fingerprint(job.op, asked.unwrap_or_default(), &native));
    if let Some(once) = &once
        && let Some((id, before)) = relay.store.submitted(&caller.account, &once.key).await?
    {
        // Known already: it matters no longer who could serve it now.
        once.is_same(&before)?;
        return accepted(&relay, &caller, id, true).await;
    }
    let model = relay.choose_model(&caller.account, job.op, asked, Patience::Kept)?;
    let native = match asked {
        Some(_) => native,
        None => dialect::ollama::with_model(&native, &model)?,
    };
    let order = Order {
        op: job.op,
        model,
        body: native,
        dialect: Dialect::Native,
        priority: job.priority,
        wanted_for,
    };
    let (id, is_repeat) = relay.submit_once(&caller, order, once).await?;
    accepted(&relay, &caller, id, is_repeat).await
}

async fn accepted(
    relay: &Relay,
    caller: &Caller,
    id: proto::JobId,
    is_repeat: bool,
) -> Result<Response, ApiError> {
    let job = relay.store.get(caller.owner(), id).await?;
    let job = job.ok_or_else(ApiError::unknown_job)?;
    let mut response = (StatusCode::ACCEPTED, Json(view(job))).into_response();
    if is_repeat {
        let headers = response.headers_mut();
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}
