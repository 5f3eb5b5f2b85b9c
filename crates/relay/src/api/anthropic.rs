//! Anthropic's API.

use axum::response::Response;
use dialect::anthropic::{CountRequest, Message, MessagesRequest};
use proto::{Dialect, Op};

use super::asked::{Asked, Asker};
use crate::{
    error::ApiError,
    payload::{Inference, Payload},
};

/// `POST /v1/messages`.
pub(super) async fn messages(asker: Asker, Payload(body): Inference) -> Result<Response, ApiError> {
    let request = MessagesRequest::parse(&body)?;
    drop(body);
    let asked = asked(request.model.as_deref(), request.stream);
    let queued = asker.queue(asked, |model| request.native(model)).await?;
    drop(request);
    queued.answer(Message::new).await
}

/// `POST /v1/messages/count_tokens`: only an engine can count tokens, so this runs a job that
/// generates one token.
pub(super) async fn count_tokens(
    asker: Asker,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = CountRequest::parse(&body)?;
    drop(body);
    let asked = asked(request.model.as_deref(), false);
    let queued = asker.queue(asked, |model| request.native(model)).await?;
    queued.whole(move |_, lines| request.answer(lines)).await
}

const fn asked(model: Option<&str>, stream: bool) -> Asked<'_> {
    Asked {
        op: Op::Chat,
        dialect: Dialect::Anthropic,
        model,
        stream,
    }
}
