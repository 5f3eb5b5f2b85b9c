//! Ollama's routes that change an engine's models. They need the scope `admin` and an agent whose
//! owner allows changes. Files are never uploaded through the relay.

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use proto::{Dialect, ErrorCode, ErrorDetail, ModelName, Op, Priority, limits};

use super::ollama::with_line_feed;
use crate::{
    Relay,
    auth::{Caller, MayChangeModels, MayRead},
    error::ApiError,
    error_format::ErrorFormat,
    payload::{Inference, Payload},
    stream::{StreamFormat, streamed},
    submission::Submission,
    whole_answer::{finished, whole},
};

/// `POST /api/pull`.
pub(super) async fn pull(
    State(relay): State<Relay>,
    MayChangeModels(caller): MayChangeModels,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    change(&relay, &caller, Op::Pull, body).await
}

/// `POST /api/create`.
pub(super) async fn create(
    State(relay): State<Relay>,
    MayChangeModels(caller): MayChangeModels,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    change(&relay, &caller, Op::Create, body).await
}

/// `POST /api/copy`.
pub(super) async fn copy(
    State(relay): State<Relay>,
    MayChangeModels(caller): MayChangeModels,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    change(&relay, &caller, Op::Copy, body).await
}

/// `DELETE /api/delete`.
pub(super) async fn delete(
    State(relay): State<Relay>,
    MayChangeModels(caller): MayChangeModels,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    change(&relay, &caller, Op::Delete, body).await
}

/// `POST /api/push` and `/api/blobs/{digest}`.
pub(super) async fn refuse(MayRead(_): MayRead) -> ApiError {
    ApiError::new(
        ErrorCode::Forbidden,
        "models cannot be uploaded through the relay; run `ollama push` or `ollama create` on the \
         machine that has them",
    )
}

async fn change(relay: &Relay, caller: &Caller, op: Op, body: Bytes) -> Result<Response, ApiError> {
    let head = dialect::ollama::change_head(op, &body)?;
    let dialect::ollama::ChangeHead { model, stream, .. } = head;
    caller.permit(&model)?;
    if let Some(other) = &head.other {
        // Otherwise a copy could bring a forbidden model under a permitted name.
        let other = ModelName::new(other.as_str());
        let invalid = |_| ApiError::new(ErrorCode::BadRequest, "invalid model name");
        caller.permit(&other.map_err(invalid)?)?;
    }
    if head.needs_files {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            "files cannot be uploaded through the relay; create the model from another one \
             (`from`), or run `ollama create` on the machine",
        ));
    }
    let offer = relay
        .workers
        .offer(&caller.account, caller.worker.as_ref(), relay.now());
    let up = || offer.reports.iter().filter(|report| report.model_changes);
    if up().next().is_none() {
        return Err(if offer.down.iter().any(|report| report.model_changes) {
            let message = "the engine of the agent that allows changes is down; start the engine";
            ApiError::new(ErrorCode::EngineUnavailable, message)
        } else {
            let message = "no online agent allows changes of its models; start one with \
                           `hearth agent --allow-model-changes`, or change them on its machine";
            ApiError::new(ErrorCode::Forbidden, message)
        });
    }
    let mut models = up().flat_map(|report| &report.models);
    if op.needs_model() && !models.any(|entry| entry.name.is_same(&model)) {
        let message = dialect::ollama::model_not_found(op, model.as_str());
        return Err(ApiError::new(ErrorCode::UnknownModel, message));
    }
    let longest = limits::MODEL_CHANGE;
    let submission = Submission {
        op,
        model,
        body,
        dialect: Dialect::Ollama,
        priority: Priority::URGENT,
        wanted_for: Some(
            caller
                .wanted_for
                .map_or(longest, |wanted| wanted.min(longest)),
        ),
    };
    let attended = relay.submit_attended(caller, submission).await?;
    if !has_progress(op) {
        finished(relay, attended).await?;
        return Ok(Response::new(Body::empty()));
    }
    if stream {
        return streamed(relay, attended, Progress).await;
    }
    whole(
        relay,
        attended,
        ErrorFormat::Ollama,
        dialect::ollama::joined,
    )
    .await
}

const fn has_progress(op: Op) -> bool {
    matches!(op, Op::Pull | Op::Create)
}

/// Progress of a model change, as NDJSON.
struct Progress;

impl StreamFormat for Progress {
    const CONTENT_TYPE: &str = "application/x-ndjson";

    fn line(&mut self, line: Bytes) -> Result<Bytes, ErrorDetail> {
        Ok(with_line_feed(&line))
    }

    fn was_last(&self, line: &[u8]) -> bool {
        dialect::ollama::is_success(line)
    }

    /// Returns a status line; clients accept any status any number of times.
    fn heartbeat(&mut self) -> Option<Bytes> {
        Some(with_line_feed(br#"{"status":"working"}"#))
    }

    fn failure(&mut self, _: ErrorCode, message: &str) -> Bytes {
        with_line_feed(&dialect::ollama::error(message))
    }
}
