//! Error bodies in the format of the API that a route belongs to.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use proto::{Dialect, ErrorBody, ErrorCode};

use crate::{error::ApiError, headers, request_id};

/// Error format of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    Native,
    Ollama,
    OpenAi,
    Anthropic,
    /// `{"detail":"…"}`.
    Rest,
}

impl ErrorFormat {
    /// Every error format.
    pub(crate) const ALL: &[Self] = &[
        Self::Native,
        Self::Ollama,
        Self::OpenAi,
        Self::Anthropic,
        Self::Rest,
    ];

    pub(crate) fn of(path: &str) -> Self {
        let behind = path.strip_prefix("/api/ollama");
        let path = behind
            .filter(|rest| rest.starts_with("/v1/"))
            .unwrap_or(path);
        let native = ["/api/admin", "/api/jobs", "/api/sessions", "/api/worker"];
        let rest = ["/api/login", "/api/token", "/api/queries", "/api/logs"];
        if rest.iter().any(|route| path.starts_with(route)) {
            Self::Rest
        } else if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Self::Anthropic
        } else if path == "/v1" || path.starts_with("/v1/") {
            Self::OpenAi
        } else if path.starts_with("/api/") && !native.iter().any(|n| path.starts_with(n)) {
            Self::Ollama
        } else {
            Self::Native
        }
    }

    /// Returns the error format for requesters of a dialect.
    pub(crate) const fn of_dialect(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Native => Self::Native,
            Dialect::Ollama | Dialect::RelayPolling => Self::Ollama,
            Dialect::OpenAi => Self::OpenAi,
            Dialect::Anthropic => Self::Anthropic,
            Dialect::Queries => Self::Rest,
        }
    }

    /// Returns the media type of its objects, errors included.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Native | Self::OpenAi | Self::Anthropic | Self::Rest => "application/json",
            Self::Ollama => "application/json; charset=utf-8",
        }
    }

    /// Returns the body of an error; Anthropic's contains the request id.
    pub(crate) fn body(self, error: &ApiError, request_id: Option<&str>) -> Bytes {
        let (code, message) = (error.code, error.message.as_str());
        let status = error.status().as_u16();
        let sentence = dialect::ollama::sentence(message);
        match self {
            Self::Native => serde_json::to_vec(&ErrorBody::new(code, sentence))
                .unwrap_or_default()
                .into(),
            Self::Ollama => dialect::ollama::error(message),
            Self::OpenAi => dialect::openai::error(status, code, &sentence, error.param.as_deref()),
            Self::Anthropic => dialect::anthropic::error(status, code, &sentence, request_id),
            Self::Rest => dialect::queries::Refusal::detail(status, &sentence).body,
        }
    }
}

/// Header with the error code, whatever the format of the body.
pub(crate) const CODE: HeaderName = HeaderName::from_static(headers::CODE);

/// Returns the error code of a response, if it is an error.
pub(crate) fn code(response: &Response) -> Option<ErrorCode> {
    let code = response.headers().get(CODE)?;
    let codes = ErrorCode::ALL.iter().copied();
    codes.into_iter().find(|known| code == known.as_str())
}

/// Writes the body of an error, if the response is one.
pub(crate) fn write_error(path: &str, mut response: Response) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    let shape = ErrorFormat::of(path);
    let id = response.headers().get(request_id::ANTHROPIC);
    let id = id.and_then(|id| id.to_str().ok());
    let body = shape.body(&error, id);
    if shape == ErrorFormat::Anthropic && error.code == ErrorCode::QueueFull {
        *response.status_mut() = StatusCode::from_u16(dialect::anthropic::OVERLOADED)
            .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    }
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(shape.content_type()),
    );
    headers.insert(CODE, HeaderValue::from_static(error.code.as_str()));
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_wrapped_is_unwrapped_for_all_but_ollamas_clients() {
        let wrapped = r#"{"error":{"code":400,"message":"it is too long"}}"#;
        let error = ApiError::new(ErrorCode::EngineRefused, wrapped);
        for shape in ErrorFormat::ALL {
            let body = shape.body(&error, None);
            let body = String::from_utf8_lossy(&body);
            let is_unwrapped = body.contains(r#""it is too long""#);
            assert_eq!(is_unwrapped, *shape != ErrorFormat::Ollama, "{body}");
        }
    }

    #[test]
    fn each_route_errs_in_its_own_words() {
        for (path, shape) in [
            ("/v1/chat/completions", ErrorFormat::OpenAi),
            ("/v1/messages", ErrorFormat::Anthropic),
            ("/v1/messages/count_tokens", ErrorFormat::Anthropic),
            ("/v1/models", ErrorFormat::OpenAi),
            ("/api/chat", ErrorFormat::Ollama),
            ("/api/ollama/poll", ErrorFormat::Ollama),
            ("/api/ollama/api/chat", ErrorFormat::Ollama),
            ("/api/ollama/v1/models", ErrorFormat::OpenAi),
            ("/api/ollama/v1/messages", ErrorFormat::Anthropic),
            ("/api/jobs/1", ErrorFormat::Native),
            ("/api/worker/v1/poll", ErrorFormat::Native),
            ("/api/admin/keys", ErrorFormat::Native),
            ("/api/queries/1/", ErrorFormat::Rest),
            ("/api/login/", ErrorFormat::Rest),
            ("/nowhere", ErrorFormat::Native),
        ] {
            assert_eq!(ErrorFormat::of(path), shape, "{path}");
        }
    }
}
