//! In whose words a route's errors are written.

use axum::{body::Body, response::Response};
use http::{HeaderValue, header};
use proto::ErrorBody;

use crate::error::ApiError;

/// Whose error format a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Native,
    Ollama,
    OpenAi,
}

impl Shape {
    fn of(path: &str) -> Self {
        let native = ["/api/jobs", "/api/worker"];
        if path == "/v1" || path.starts_with("/v1/") {
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
    let (content_type, body) = match Shape::of(path) {
        Shape::Native => {
            let body = ErrorBody::new(error.code, error.message);
            let json = serde_json::to_vec(&body).unwrap_or_default();
            ("application/json", json.into())
        }
        Shape::Ollama => (
            "application/json; charset=utf-8",
            dialect::ollama::error(&error.message),
        ),
        Shape::OpenAi => (
            "application/json",
            dialect::openai::error(error.status().as_u16(), error.code, &error.message),
        ),
    };
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
