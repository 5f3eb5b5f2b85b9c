//! OpenAI's API.

use axum::{extract::State, response::Response};
use dialect::openai::{
    ChatRequest, Completion, EmbeddingRequest, ResponseAnswer, ResponseRequest, TextCompletion,
    TextRequest,
};
use http::HeaderMap;
use proto::{Dialect, ModelName, Op};

use super::{
    asked::{Asked, Asker},
    written,
};
use crate::{
    Relay,
    auth::MayRead,
    error::ApiError,
    payload::{Inference, Payload},
    target::{ModelInPath, unknown_model},
};

/// `POST /v1/chat/completions`.
pub(super) async fn chat(asker: Asker, Payload(body): Inference) -> Result<Response, ApiError> {
    let request = ChatRequest::parse(&body)?;
    drop(body);
    let asked = asked(Op::Chat, request.model.as_deref(), request.stream);
    let queued = asker.queue(asked, |model| request.native(model)).await?;
    let with_usage = request.include_usage;
    drop(request);
    let begin = move |named| Completion::new(named, with_usage);
    queued.answer(begin).await
}

/// `POST /v1/completions`.
pub(super) async fn completions(
    asker: Asker,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = TextRequest::parse(&body)?;
    drop(body);
    let asked = asked(Op::Generate, request.model.as_deref(), request.stream);
    let queued = asker.queue(asked, |model| request.native(model)).await?;
    let with_usage = request.include_usage;
    drop(request);
    let begin = move |named| TextCompletion::new(named, with_usage);
    queued.answer(begin).await
}

/// `POST /v1/embeddings`.
pub(super) async fn embeddings(
    asker: Asker,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = EmbeddingRequest::parse(&body)?;
    drop(body);
    let asked = asked(Op::Embed, request.model.as_deref(), false);
    let queued = asker.queue(asked, |model| request.native(model)).await?;
    let answer = queued.whole(move |named, lines| request.answer(&named.model, lines));
    answer.await
}

/// `POST /v1/responses`: nothing is stored, so each request contains the whole conversation.
pub(super) async fn responses(
    asker: Asker,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = ResponseRequest::parse(&body)?;
    drop(body);
    let asked = asked(Op::Chat, request.model.as_deref(), request.stream);
    let queued = asker.queue(asked, |model| request.native(model)).await?;
    let begin = move |named| ResponseAnswer::new(named, &request);
    queued.answer(begin).await
}

const fn asked(op: Op, model: Option<&str>, stream: bool) -> Asked<'_> {
    Asked {
        op,
        dialect: Dialect::OpenAi,
        model,
        stream,
    }
}

/// `GET /v1/models`, in the format of the API whose client asks.
pub(super) async fn models(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    headers: HeaderMap,
) -> Response {
    let catalog = relay.catalog(&caller);
    let reports = catalog.reports();
    let models = if headers.contains_key(ANTHROPIC_VERSION) {
        dialect::anthropic::models(reports)
    } else {
        dialect::openai::models(reports)
    };
    written("application/json", models)
}

/// `GET /v1/models/{id}`; the id may contain `:` and `/`.
pub(super) async fn model(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    ModelInPath(id): ModelInPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let unknown = || unknown_model(&id);
    let name = ModelName::new(id.clone()).map_err(|_| unknown())?;
    let catalog = relay.catalog(&caller);
    let reports = catalog.reports();
    let found = if headers.contains_key(ANTHROPIC_VERSION) {
        dialect::anthropic::model(reports, &name)
    } else {
        dialect::openai::model(reports, &name)
    };
    Ok(written("application/json", found.ok_or_else(unknown)?))
}

/// Header that only Anthropic's clients send.
const ANTHROPIC_VERSION: &str = "anthropic-version";
