//! Reasons why a caller is refused, and their error messages.

use proto::ErrorCode;
use queue::Scope;

use crate::{error::ApiError, jwt};

/// Reason why a caller is refused.
#[derive(Debug)]
pub(crate) enum Denied {
    /// The request has no key or token.
    Nothing,
    /// The key is unknown or malformed.
    Key,
    /// The key was revoked.
    Revoked,
    /// The key has expired.
    Expired,
    /// A token of the query service is not valid.
    Token(jwt::TokenError),
    /// A session's token is not valid.
    Session(jwt::TokenError),
    /// The refresh token was used before.
    Reused,
    /// The token is valid, but its user was removed.
    Gone,
    /// The key lacks this scope.
    Scope(Scope),
    /// The key is in the path, which this route does not accept.
    KeyInPath,
    /// Authentication could not be completed.
    Failed(ApiError),
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let unauthorized = |message: &str| Self::new(ErrorCode::Unauthorized, message);
        match denied {
            Denied::Nothing => unauthorized(
                "no key was sent; send `Authorization: Bearer KEY` or `x-api-key: KEY` \
                 (`hearth`: --key-file)",
            ),
            Denied::Key => unauthorized(
                "the key is unknown; check it for typing errors, or ask the operator for a new one",
            ),
            Denied::Revoked => unauthorized("the key was revoked; ask the operator for a new one"),
            Denied::Expired => Self::new(
                ErrorCode::KeyExpired,
                "the key has expired; ask the operator for a new one",
            ),
            Denied::Token(jwt::TokenError::Expired) => {
                unauthorized("the token has expired; get a new one from /api/token/refresh/")
            }
            Denied::Token(
                jwt::TokenError::Invalid | jwt::TokenError::Void | jwt::TokenError::Kind,
            )
            | Denied::Gone => unauthorized("the token is invalid; log in again at /api/login/"),
            Denied::Session(jwt::TokenError::Expired) => Self::new(
                ErrorCode::TokenExpired,
                "the token has expired; get new ones from /api/sessions/renew, or log in again",
            ),
            Denied::Session(jwt::TokenError::Kind) => unauthorized(
                "wrong kind of token; send the refresh_token to /api/sessions/renew and \
                 /api/sessions/end, and the access_token to all other routes",
            ),
            Denied::Session(jwt::TokenError::Invalid | jwt::TokenError::Void) => {
                unauthorized("the token is invalid; log in again at /api/sessions")
            }
            Denied::Reused => Self::new(
                ErrorCode::TokenReused,
                "the refresh token was used before, so its session has ended; log in again at \
                 /api/sessions",
            ),
            Denied::Scope(scope) => {
                let scope = scope.as_str();
                let message = format!("the key lacks the scope `{scope}`; use one that has it");
                Self::new(ErrorCode::Forbidden, message)
            }
            Denied::KeyInPath => Self::new(
                ErrorCode::Forbidden,
                "a key in the URL path has only the scopes `enqueue` and `read`; send it as \
                 `Authorization: Bearer KEY` to use its other scopes",
            ),
            Denied::Failed(error) => error,
        }
    }
}
