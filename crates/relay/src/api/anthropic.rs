//! Anthropic's API over the same queue.

use axum::{extract::State, response::Response};
use dialect::anthropic::{CountRequest, Message, MessagesRequest};
use proto::{Dialect, Op};

use super::asked::Asked;
use crate::{
    Relay,
    auth::{Caller, MayEnqueue},
    error::ApiError,
    payload::{Inference, Payload},
};

/// `POST /v1/messages`.
pub(super) async fn messages(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = MessagesRequest::parse(&body)?;
    let asked = asked(&relay, &caller, request.model.as_deref());
    let queued = asked.queue(|model| request.native(model)).await?;
    queued.answer(request.stream, Message::new).await
}

/// `POST /v1/messages/count_tokens`: only an engine can tell, so it is a job of one token.
pub(super) async fn count_tokens(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = CountRequest::parse(&body)?;
    let asked = asked(&relay, &caller, request.model.as_deref());
    let queued = asked.queue(|model| request.native(model)).await?;
    queued.whole(|_, lines| request.answer(lines)).await
}

fn asked<'a>(relay: &'a Relay, caller: &'a Caller, model: Option<&'a str>) -> Asked<'a> {
    Asked {
        relay,
        caller,
        op: Op::Chat,
        dialect: Dialect::Anthropic,
        model,
    }
}
