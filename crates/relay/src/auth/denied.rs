//! Why somebody is not let in, and what he is told to do.

use proto::ErrorCode;
use queue::Scope;

use crate::{error::ApiError, jwt};

/// Why a caller is not let in.
#[derive(Debug)]
pub(crate) enum Denied {
    /// He showed nothing.
    Nothing,
    /// He showed a key that is not one.
    Key,
    /// His key was good until it was revoked.
    Revoked,
    /// His key was good until its time had passed.
    Expired,
    /// He showed a token that is not one, or not any more.
    Token(jwt::Refused),
    /// The same of a session's token.
    Session(jwt::Refused),
    /// His token renewed a session before.
    Reused,
    /// His token is good, but he himself was removed.
    Gone,
    /// He is known, but may not do this.
    Scope(Scope),
    /// He may, but not with a key in the path.
    Place,
    /// It could not be found out.
    Failed(ApiError),
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let unauthorized = |message: &str| Self::new(ErrorCode::Unauthorized, message);
        match denied {
            Denied::Nothing => unauthorized(
                "no key was sent; send `Authorization: Bearer KEY` or `x-api-key: KEY`",
            ),
            Denied::Key => unauthorized("the key is unknown or mistyped; ask for a new one"),
            Denied::Revoked => unauthorized("the key was revoked; ask for a new one"),
            Denied::Expired => Self::new(
                ErrorCode::KeyExpired,
                "the key has expired; ask for a new one",
            ),
            Denied::Token(jwt::Refused::Expired) => {
                unauthorized("the token has expired; get a new one from /api/token/refresh/")
            }
            Denied::Token(jwt::Refused::Invalid | jwt::Refused::Void | jwt::Refused::Kind)
            | Denied::Gone => unauthorized("the token is void; log in again at /api/login/"),
            Denied::Session(jwt::Refused::Expired) => Self::new(
                ErrorCode::TokenExpired,
                "the token has expired; get new ones from /api/sessions/renew, or log in again",
            ),
            Denied::Session(jwt::Refused::Kind) => unauthorized(
                "the token is for another purpose; the access_token opens routes, and the \
                 refresh_token is for /api/sessions/renew and /api/sessions/end",
            ),
            Denied::Session(jwt::Refused::Invalid | jwt::Refused::Void) => {
                unauthorized("the token is void; log in again at /api/sessions")
            }
            Denied::Reused => Self::new(
                ErrorCode::TokenReused,
                "the refresh token was shown before, so its session has ended; log in again at \
                 /api/sessions",
            ),
            Denied::Scope(scope) => {
                let scope = scope.as_str();
                let message = format!("the key lacks the scope `{scope}`; use one that has it");
                Self::new(ErrorCode::Forbidden, message)
            }
            Denied::Place => Self::new(
                ErrorCode::Forbidden,
                "a key in the path may only ask and read, whatever else it may do; \
                 send it as `Authorization: Bearer KEY`",
            ),
            Denied::Failed(error) => error,
        }
    }
}
