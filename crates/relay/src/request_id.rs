//! Sets a request id on every response under `/v1`; clients of both APIs show it in error reports.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue};

use crate::{Relay, error_format::ErrorFormat, headers};

/// Header that Anthropic's clients read.
pub(crate) const ANTHROPIC: HeaderName = HeaderName::from_static("request-id");
/// Header that OpenAI's clients read.
const OPENAI: HeaderName = HeaderName::from_static("x-request-id");

/// Sets the id: the job's id for an answer, and a random one for a refusal.
pub(crate) async fn name(State(relay): State<Relay>, request: Request, next: Next) -> Response {
    let header = match ErrorFormat::of(request.uri().path()) {
        ErrorFormat::Anthropic => ANTHROPIC,
        ErrorFormat::Native | ErrorFormat::Ollama | ErrorFormat::OpenAi | ErrorFormat::Rest => {
            OPENAI
        }
    };
    let mut response = next.run(request).await;
    let job = response.headers().get(headers::JOB);
    let id = match job.and_then(|job| job.to_str().ok()) {
        Some(job) => dialect::anthropic::request_id(job),
        None => match relay.job_id() {
            Ok(id) => dialect::anthropic::request_id(id),
            Err(_) => return response,
        },
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(header, id);
    }
    response
}
