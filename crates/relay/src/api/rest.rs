//! Errors and scopes shared by the routes of the query service.

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use dialect::queries::{Refusal, Why};
use http::{HeaderValue, StatusCode, header, request::Parts};
use proto::ErrorCode;
use queue::{QueueError, Scope};

use super::{login::said, written};
use crate::{
    Relay,
    auth::{Caller, Denied, KeyLocation, admit},
    error::ApiError,
    error_format::CODE,
    jwt, request_options,
};

/// An error in the format of the query service.
#[derive(Debug)]
pub(crate) struct RestError {
    refusal: Refusal,
    /// Whether a 401 has a `WWW-Authenticate` header.
    challenges: bool,
    /// Source of the error code and of `Retry-After`, which the relay's own clients read.
    error: Option<ApiError>,
}

impl RestError {
    /// Creates a 401 with a `WWW-Authenticate` header.
    pub(super) const fn challenge(refusal: Refusal) -> Self {
        Self {
            refusal,
            challenges: true,
            error: None,
        }
    }
}

impl From<Refusal> for RestError {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            challenges: false,
            error: None,
        }
    }
}

impl From<ApiError> for RestError {
    fn from(error: ApiError) -> Self {
        let refusal = if error.code == ErrorCode::UnknownJob {
            Refusal::no_query()
        } else {
            Refusal::detail(error.status().as_u16(), &error.message)
        };
        Self {
            refusal,
            challenges: false,
            error: Some(error),
        }
    }
}

impl From<QueueError> for RestError {
    fn from(error: QueueError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<Denied> for RestError {
    fn from(denied: Denied) -> Self {
        let refusal = match &denied {
            Denied::Nothing => Refusal::nothing_shown(),
            Denied::Key | Denied::Revoked => Refusal::bad_token(Why::Invalid),
            Denied::Expired => Refusal::bad_token(Why::Expired),
            Denied::Token(why) => Refusal::bad_token(said(*why)),
            // A session's token, in whatever state, is not a token of the query service.
            Denied::Session(_) | Denied::Reused => Refusal::bad_token(Why::Invalid),
            Denied::Gone => Refusal::no_user(),
            Denied::Scope(_) | Denied::KeyInPath => Refusal::forbidden(),
            Denied::Failed(error) => return error.clone().into(),
        };
        Self {
            challenges: refusal.status == 401,
            refusal,
            error: Some(denied.into()),
        }
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let mut response = written("application/json", self.refusal.body);
        let code = match &self.error {
            Some(error) => error.code,
            None => code_of(self.refusal.status),
        };
        let code = HeaderValue::from_static(code.as_str());
        response.headers_mut().insert(CODE, code);
        if let Some(error) = self.error {
            let mut dressed = error.into_response();
            for name in [header::RETRY_AFTER, header::CONNECTION] {
                if let Some(value) = dressed.headers_mut().remove(&name) {
                    response.headers_mut().insert(name, value);
                }
            }
        }
        let status = StatusCode::from_u16(self.refusal.status);
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if self.challenges {
            let challenge = HeaderValue::from_static("Bearer realm=\"api\"");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Returns the error code for a status that the query service defines itself.
const fn code_of(status: u16) -> ErrorCode {
    match status {
        401 => ErrorCode::Unauthorized,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::UnknownJob,
        _ => ErrorCode::BadRequest,
    }
}

macro_rules! caller {
    ($(#[$doc:meta])* $name:ident, $scope:expr, $place:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name(pub(super) Caller);

        impl FromRequestParts<Relay> for $name {
            type Rejection = RestError;

            async fn from_request_parts(parts: &mut Parts, relay: &Relay) -> Result<Self, RestError> {
                let mut caller = admit(parts, relay, $scope, $place).await?;
                if caller.is_of_session() {
                    return Err(Denied::Session(jwt::TokenError::Kind).into());
                }
                caller.wanted_priority = request_options::priority(&parts.headers)?;
                caller.worker = request_options::worker(&parts.headers)?;
                Ok(Self(caller))
            }
        }
    };
}

caller! {
    /// Caller that may create and delete queries.
    Asks, Scope::Enqueue, KeyLocation::Anywhere
}
caller! {
    /// Caller that may read queries.
    Reads, Scope::Read, KeyLocation::Anywhere
}
caller! {
    /// Caller that may claim and answer queries.
    Claims, Scope::Work, KeyLocation::Header
}
