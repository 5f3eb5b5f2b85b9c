//! OpenAI's API over the same queue.

use axum::{extract::State, response::Response};
use bytes::Bytes;
use dialect::openai::{ChatRequest, Completion, Named};
use proto::{Dialect, ErrorCode, ErrorDetail, ModelName, Op, Priority};

use super::written;
use crate::{
    Relay,
    auth::{MayEnqueue, MayRead},
    error::ApiError,
    payload::{Inference, Payload},
    stream::{Voice, name_job, streamed, whole},
    target::{ModelInPath, unknown_model},
    ticket::Order,
};

/// `POST /v1/chat/completions`.
pub(super) async fn chat(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = ChatRequest::parse(&body)?;
    let asked = request.model.as_deref();
    let model = relay.choose_model(&caller.account, Op::Chat, asked, caller.patience())?;
    let order = Order {
        op: Op::Chat,
        body: request.native(&model),
        model: model.clone(),
        dialect: Dialect::OpenAi,
        priority: Priority::default(),
        wanted_for: None,
    };
    let ticket = relay.attend(&caller, order).await?;
    let job = ticket.guard.job;
    let named = Named {
        id: format!("chatcmpl-{job}"),
        model: request.model.clone().unwrap_or_else(|| model.to_string()),
        created: relay.now(),
    };
    let completion = Completion::new(named, request.include_usage);
    if request.stream {
        return streamed(&relay, ticket, Events(completion)).await;
    }
    let lines = whole(&relay, ticket).await?;
    let mut response = written("application/json", completion.whole(&lines)?);
    name_job(&mut response, job);
    Ok(response)
}

struct Events(Completion);

impl Voice for Events {
    const CONTENT_TYPE: &str = "text/event-stream";

    fn line(&mut self, line: Bytes) -> Result<Bytes, ErrorDetail> {
        self.0.events(&line)
    }

    fn heartbeat(&mut self) -> Option<Bytes> {
        Some(Bytes::from_static(b": ping\n"))
    }

    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes {
        dialect::openai::error_event(code, message)
    }

    fn end(&mut self) -> Result<(), ErrorDetail> {
        if self.0.is_finished() {
            return Ok(());
        }
        Err(ErrorDetail {
            code: ErrorCode::EngineFailed,
            message: "the engine ended without a complete answer; send the request again".into(),
        })
    }
}

/// `GET /v1/models`.
pub(super) async fn models(State(relay): State<Relay>, MayRead(caller): MayRead) -> Response {
    let offer = relay.workers.offer(&caller.account, relay.now());
    let reports = offer.reports.iter().map(AsRef::as_ref);
    written("application/json", dialect::openai::models(reports))
}

/// `GET /v1/models/{id}`; the id may hold `:` and `/`.
pub(super) async fn model(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    ModelInPath(id): ModelInPath,
) -> Result<Response, ApiError> {
    let unknown = || unknown_model(&id);
    let name = ModelName::new(id.clone()).map_err(|_| unknown())?;
    let offer = relay.workers.offer(&caller.account, relay.now());
    let reports = offer.reports.iter().map(AsRef::as_ref);
    let found = dialect::openai::model(reports, &name).ok_or_else(unknown)?;
    Ok(written("application/json", found))
}
