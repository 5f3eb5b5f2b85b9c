//! Refusals with the messages and codes that clients of the query service know.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::ollama::json;

/// An HTTP status with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Body, in JSON.
    pub body: Bytes,
}

/// Reason why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The token is invalid or was revoked.
    Invalid,
    /// The token has expired.
    Expired,
    /// The token is of another type.
    WrongType,
}

impl Why {
    const fn text(self) -> &'static str {
        match self {
            Self::Invalid => "Token is invalid",
            Self::Expired => "Token is expired",
            Self::WrongType => "Token has wrong type",
        }
    }
}

impl Refusal {
    fn new(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: json(body),
        }
    }

    /// Returns `{"detail":"…"}`.
    #[must_use]
    pub fn detail(status: u16, text: &str) -> Self {
        Self::new(status, &json!({"detail": text}))
    }

    /// Refusal of an unknown user or a wrong password; the two are not distinguished.
    #[must_use]
    pub fn bad_login() -> Self {
        Self::new(401, &json!({"error": "Invalid credentials"}))
    }

    /// Refusal of a request without credentials.
    #[must_use]
    pub fn nothing_shown() -> Self {
        Self::detail(401, "Authentication credentials were not provided.")
    }

    /// Refusal of the given token.
    #[must_use]
    pub fn bad_token(why: Why) -> Self {
        Self::new(
            401,
            &json!({
                "detail": "Given token not valid for any token type",
                "code": "token_not_valid",
                "messages": [{
                    "token_class": "AccessToken",
                    "token_type": "access",
                    "message": why.text(),
                }],
            }),
        )
    }

    /// Refusal of a valid token whose user was removed.
    #[must_use]
    pub fn no_user() -> Self {
        Self::new(
            401,
            &json!({"detail": "User not found", "code": "user_not_found"}),
        )
    }

    /// Refusal of a refresh token.
    #[must_use]
    pub fn bad_refresh(why: Why) -> Self {
        Self::new(
            401,
            &json!({"detail": why.text(), "code": "token_not_valid"}),
        )
    }

    /// Refusal of a valid refresh token whose user was removed.
    #[must_use]
    pub fn no_account() -> Self {
        Self::new(
            401,
            &json!({
                "detail": "No active account found for the given token.",
                "code": "no_active_account",
            }),
        )
    }

    /// Refusal of an authenticated caller without permission.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::detail(403, "You do not have permission to perform this action.")
    }

    /// Refusal for a query that does not exist or belongs to another caller; the two are not
    /// distinguished.
    #[must_use]
    pub fn no_query() -> Self {
        Self::detail(404, "No Query matches the given query.")
    }

    /// The answer when there is no query to claim.
    #[must_use]
    pub fn nothing_queued() -> Self {
        Self::detail(404, "No queued queries available")
    }

    /// Refusal of a page beyond the last one.
    #[must_use]
    pub fn no_page() -> Self {
        Self::detail(404, "Invalid page.")
    }

    /// Refusal of wrong fields: `{"field":["why"]}`.
    #[must_use]
    pub fn fields<'a>(wrong: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let wrong = wrong
            .into_iter()
            .map(|(name, why)| (name.to_owned(), json!([why])));
        Self::new(400, &Value::Object(wrong.collect::<Map<_, _>>()))
    }
}
