//! The relay's error type and its conversion to HTTP responses.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use proto::{ErrorCode, ErrorDetail, JobError};
use queue::QueueError;

/// Reason why a request was refused. The body's format depends on the route, see `error_format`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// Replaces the code's own status, for example with the engine's.
    status: Option<u16>,
    /// Replaces the code's own `Retry-After`, in seconds.
    wait: Option<u16>,
    /// Name of the invalid request field, if the error concerns one.
    pub(crate) param: Option<String>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            status: None,
            wait: None,
            param: None,
        }
    }

    /// Sets the time after which the request may be retried; rounded up to seconds.
    pub(crate) fn after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let wait = Some(u16::try_from(seconds).unwrap_or(u16::MAX));
        Self { wait, ..self }
    }

    /// Error for a job that does not exist or belongs to another account; the message does not tell
    /// which.
    pub(crate) fn unknown_job() -> Self {
        Self::new(
            ErrorCode::UnknownJob,
            "there is no such job; it may have expired, or belong to another account",
        )
    }

    pub(crate) fn draining() -> Self {
        Self::new(
            ErrorCode::Draining,
            "the relay is shutting down; send the request again in a moment",
        )
    }

    pub(crate) fn uri_too_long(max: usize) -> Self {
        let message = format!("the request target exceeds {max} bytes");
        Self {
            status: Some(414),
            ..Self::new(ErrorCode::BadRequest, message)
        }
    }

    /// Changes status 501 to 500, which Ollama's older embeddings route answers for the same
    /// failure.
    pub(crate) fn of_older_embeddings(mut self) -> Self {
        if self.status == Some(501) {
            self.status = Some(500);
        }
        self
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            ErrorCode::Internal,
            "internal error of the relay; its log has the reason",
        )
    }

    pub(crate) fn status(&self) -> StatusCode {
        let status = self.status.filter(|status| (400..600).contains(status));
        let status = status.unwrap_or_else(|| self.code.http_status());
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the same request may succeed if it is retried.
    pub(crate) fn is_worth_retrying(&self) -> bool {
        let broke = [ErrorCode::WorkerLost, ErrorCode::EngineFailed];
        self.retry_after().is_some() || broke.contains(&self.code)
    }

    /// Returns the number of seconds to wait before a retry.
    pub(crate) fn retry_after(&self) -> Option<u16> {
        let busy = [
            ErrorCode::Busy,
            ErrorCode::QueueFull,
            ErrorCode::AccountFull,
            ErrorCode::DiskFull,
            ErrorCode::RateLimited,
            ErrorCode::TooManyConnections,
            ErrorCode::StoreUnavailable,
            ErrorCode::EngineUnavailable,
        ];
        if self.wait.is_some() {
            self.wait
        } else if self.code == ErrorCode::Draining {
            Some(2)
        } else {
            busy.contains(&self.code).then_some(5)
        }
    }
}

impl From<ErrorDetail> for ApiError {
    fn from(detail: ErrorDetail) -> Self {
        Self {
            param: detail.param,
            ..Self::new(detail.code, detail.message)
        }
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        Self {
            code: error.code,
            message: error.message,
            status: error.engine_status,
            wait: None,
            param: None,
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match &error {
            QueueError::UnknownJob(_) => Self::unknown_job(),
            QueueError::Store(source) => {
                tracing::error!(
                    error = proto::causes(source.as_ref()),
                    "the queue store failed"
                );
                Self::new(
                    error.code(),
                    "the queue store failed; try again in a moment",
                )
            }
            QueueError::Unconfirmed(source) => {
                tracing::error!(
                    error = proto::causes(source.as_ref()),
                    "the queue store failed while it wrote"
                );
                Self::new(
                    error.code(),
                    "the queue store failed while it wrote; whether the change was saved is known \
                     when the relay has restarted, so check then before you send it again",
                )
            }
            QueueError::Full(_)
            | QueueError::AccountFull(_)
            | QueueError::DiskFull
            | QueueError::Erased(_)
            | QueueError::StaleLease(_)
            | QueueError::Ended(..)
            | QueueError::Gap { .. }
            | QueueError::Exists(_)
            | QueueError::OtherRequest => Self::new(error.code(), error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    /// Sets status and headers; `error_format` writes the body in the format of the route.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        // Stock OpenAI clients retry most of these twice, unless this header forbids it.
        let retry = if self.is_worth_retrying() {
            "true"
        } else {
            "false"
        };
        headers.insert("x-should-retry", HeaderValue::from_static(retry));
        if self.code == ErrorCode::TooManyConnections {
            // This connection is the one over the limit.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"hearth\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_known_is_told_how_to_prove_himself() {
        for code in ErrorCode::ALL.iter().copied() {
            let response = ApiError::new(code, "no").into_response();
            let is_told = response.headers().contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(is_told, code.http_status() == 401, "{code}");
        }
    }
}
