//! Ollama's native API. Request bodies and answer lines are passed on unchanged.

use std::time::Duration;

use axum::{extract::State, response::Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use dialect::ollama::EmbeddingsRequest;
use proto::{Dialect, EngineKind, ErrorCode, ErrorDetail, ModelName, Op, Priority};

use super::written;
use crate::{
    Relay,
    auth::{Caller, MayEnqueue, MayRead},
    error::ApiError,
    error_format::ErrorFormat,
    headers,
    payload::{Control, Inference, Payload},
    stream::{StreamFormat, streamed},
    submission::Submission,
    target::unknown_model,
    whole_answer::whole,
};

const JSON: &str = "application/json; charset=utf-8";

/// Maximum wait for a model to be loaded; Ollama itself gives up after five minutes.
const LOAD: Duration = Duration::from_secs(310);

/// `POST /api/chat`.
pub(super) async fn chat(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    answer(&relay, &caller, Op::Chat, body).await
}

/// `POST /api/generate`.
pub(super) async fn generate(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    answer(&relay, &caller, Op::Generate, body).await
}

/// `POST /api/embed`.
pub(super) async fn embed(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    answer(&relay, &caller, Op::Embed, body).await
}

/// `POST /api/embeddings`, the older form of `embed`.
pub(super) async fn embeddings(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = EmbeddingsRequest::parse(&body)?;
    let asked = request.model.as_deref();
    let model = relay.choose_model(&caller, Op::Embed, asked, caller.attendance())?;
    let body = request.native(asked.unwrap_or(model.as_str()));
    let attended = relay
        .submit_attended(&caller, submission(&caller, Op::Embed, model, body)?)
        .await?;
    let write = |lines: &[Bytes]| {
        let answer = dialect::ollama::joined(lines)?;
        dialect::ollama::first_embedding(&answer)
    };
    let answer = whole(&relay, attended, ErrorFormat::Ollama, write).await;
    answer.map_err(ApiError::of_older_embeddings)
}

fn submission(
    caller: &Caller,
    op: Op,
    model: ModelName,
    body: Bytes,
) -> Result<Submission, ApiError> {
    Ok(Submission {
        op,
        model,
        body,
        dialect: Dialect::Ollama,
        priority: caller.priority(None, Priority::DEFAULT)?,
        wanted_for: None,
    })
}

async fn answer(relay: &Relay, caller: &Caller, op: Op, body: Bytes) -> Result<Response, ApiError> {
    let head = dialect::ollama::request_head(op, &body)?;
    let asked = head.model.as_deref();
    let model = relay.choose_model(caller, op, asked, caller.attendance())?;
    let body = match asked {
        Some(_) => body,
        None => dialect::ollama::with_model(&body, &model)?,
    };
    if head.loads {
        let submission = Submission {
            priority: Priority::URGENT,
            wanted_for: Some(caller.wanted_for.unwrap_or(LOAD).min(LOAD)),
            ..submission(caller, op, model, body)?
        };
        let attended = relay.submit_attended(caller, submission).await?;
        return whole(
            relay,
            attended,
            ErrorFormat::Ollama,
            dialect::ollama::joined,
        )
        .await;
    }
    let submission = submission(caller, op, model.clone(), body)?;
    let attended = relay.submit_attended(caller, submission).await?;
    if head.stream && op != Op::Embed {
        let format = Ndjson {
            relay: relay.clone(),
            op,
            model,
        };
        return streamed(relay, attended, format).await;
    }
    whole(
        relay,
        attended,
        ErrorFormat::Ollama,
        dialect::ollama::joined,
    )
    .await
}

struct Ndjson {
    relay: Relay,
    op: Op,
    model: ModelName,
}

impl StreamFormat for Ndjson {
    const CONTENT_TYPE: &str = "application/x-ndjson";

    fn line(&mut self, line: Bytes) -> Result<Bytes, ErrorDetail> {
        Ok(with_line_feed(&line))
    }

    fn heartbeat(&mut self) -> Option<Bytes> {
        let line = dialect::ollama::heartbeat(self.op, &self.model, self.relay.now());
        line.map(|line| with_line_feed(&line))
    }

    fn failure(&mut self, _: ErrorCode, message: &str) -> Bytes {
        with_line_feed(&dialect::ollama::error(message))
    }
}

/// Appends a line feed, so that each HTTP chunk is one whole line: some clients parse each chunk
/// alone.
pub(super) fn with_line_feed(line: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(line.len() + 1);
    out.put_slice(line);
    out.put_u8(b'\n');
    out.freeze()
}

/// `GET /api/tags`.
pub(super) async fn tags(State(relay): State<Relay>, MayRead(caller): MayRead) -> Response {
    let catalog = relay.catalog(&caller);
    let mut response = written(JSON, dialect::ollama::tags(catalog.reports()));
    // Models stay listed for a while after their worker has gone offline.
    let headers = response.headers_mut();
    headers.insert(headers::WORKERS_UP, catalog.up().into());
    response
}

/// `GET /api/ps`.
pub(super) async fn ps(State(relay): State<Relay>, MayRead(caller): MayRead) -> Response {
    let now = relay.now();
    let catalog = relay.catalog(&caller);
    written(JSON, catalog.running(now))
}

/// `POST /api/show`; `verbose` has no effect.
pub(super) async fn show(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    Payload(body): Control,
) -> Result<Response, ApiError> {
    let bad = |message: &str| ApiError::new(ErrorCode::BadRequest, message);
    let named = dialect::ollama::named_model("ShowRequest", &body)?;
    let named = named.ok_or_else(|| bad("model is required"))?;
    let model = ModelName::new(named.as_str()).map_err(|_| bad("invalid model name"))?;
    let catalog = relay.catalog(&caller);
    let show = catalog.show(&model);
    let show = show.ok_or_else(|| {
        if catalog.is_empty() {
            return ApiError::new(
                ErrorCode::NoWorker,
                "no worker was online recently, so its models are unknown; start the agent",
            );
        }
        unknown_model(&named)
    });
    Ok(written(JSON, show?))
}

/// `GET /api/version`: the lowest version of the online Ollama engines, so that no client expects
/// too much.
pub(super) async fn version(State(relay): State<Relay>, MayRead(caller): MayRead) -> Response {
    let catalog = relay.catalog(&caller);
    let ollamas = catalog
        .reports()
        .filter(|report| report.engine == EngineKind::Ollama)
        .map(|report| report.engine_version.as_str());
    written(JSON, dialect::ollama::version(ollamas))
}
