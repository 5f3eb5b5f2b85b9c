//! In whose words a route's errors are written.

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use proto::{ErrorBody, ErrorCode};

use crate::{error::ApiError, request_id};

/// Whose error format a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Native,
    Ollama,
    OpenAi,
    Anthropic,
}

impl Shape {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[Self::Native, Self::Ollama, Self::OpenAi, Self::Anthropic];

    pub(crate) fn of(path: &str) -> Self {
        let native = ["/api/jobs", "/api/worker"];
        if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Self::Anthropic
        } else if path == "/v1" || path.starts_with("/v1/") {
            Self::OpenAi
        } else if path.starts_with("/api/") && !native.iter().any(|n| path.starts_with(n)) {
            Self::Ollama
        } else {
            Self::Native
        }
    }
}

/// Writes the body of a refusal, if the response is one.
pub(crate) fn dress(path: &str, mut response: Response) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    let shape = Shape::of(path);
    let (content_type, body) = match shape {
        Shape::Native => {
            let body = ErrorBody::new(error.code, dialect::ollama::sentence(&error.message));
            let json = serde_json::to_vec(&body).unwrap_or_default();
            ("application/json", json.into())
        }
        Shape::Ollama => (
            "application/json; charset=utf-8",
            dialect::ollama::error(&error.message),
        ),
        Shape::OpenAi => (
            "application/json",
            dialect::openai::error(
                error.status().as_u16(),
                error.code,
                &dialect::ollama::sentence(&error.message),
            ),
        ),
        Shape::Anthropic => {
            let id = response.headers().get(request_id::ANTHROPIC);
            let id = id.and_then(|id| id.to_str().ok());
            let status = error.status().as_u16();
            (
                "application/json",
                dialect::anthropic::error(status, error.code, &error.message, id),
            )
        }
    };
    if shape == Shape::Anthropic && error.code == ErrorCode::QueueFull {
        *response.status_mut() = StatusCode::from_u16(dialect::anthropic::OVERLOADED)
            .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        "x-hearth-error",
        HeaderValue::from_static(error.code.as_str()),
    );
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_errs_in_its_own_words() {
        for (path, shape) in [
            ("/v1/chat/completions", Shape::OpenAi),
            ("/v1/messages", Shape::Anthropic),
            ("/v1/messages/count_tokens", Shape::Anthropic),
            ("/v1/models", Shape::OpenAi),
            ("/api/chat", Shape::Ollama),
            ("/api/ollama/poll", Shape::Ollama),
            ("/api/jobs/1", Shape::Native),
            ("/api/worker/v1/poll", Shape::Native),
            ("/nowhere", Shape::Native),
        ] {
            assert_eq!(Shape::of(path), shape, "{path}");
        }
    }
}
