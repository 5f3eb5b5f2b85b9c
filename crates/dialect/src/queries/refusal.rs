//! Refusals in the words and with the codes that its clients know.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::ollama::json;

/// An HTTP status and the body that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The JSON.
    pub body: Bytes,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is not one, or not any more.
    Invalid,
    /// Its time has passed.
    Expired,
    /// It is for something else.
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

    /// `{"detail":"…"}`.
    #[must_use]
    pub fn detail(status: u16, text: &str) -> Self {
        Self::new(status, &json!({"detail": text}))
    }

    /// The login of nobody, or with a wrong password: the two are never told apart.
    #[must_use]
    pub fn bad_login() -> Self {
        Self::new(401, &json!({"error": "Invalid credentials"}))
    }

    /// Nothing was shown that could be looked at.
    #[must_use]
    pub fn nothing_shown() -> Self {
        Self::detail(401, "Authentication credentials were not provided.")
    }

    /// What was shown opens nothing.
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

    /// The token is good, but its user was removed.
    #[must_use]
    pub fn no_user() -> Self {
        Self::new(
            401,
            &json!({"detail": "User not found", "code": "user_not_found"}),
        )
    }

    /// The refresh token gets no new one.
    #[must_use]
    pub fn bad_refresh(why: Why) -> Self {
        Self::new(
            401,
            &json!({"detail": why.text(), "code": "token_not_valid"}),
        )
    }

    /// The refresh token is good, but its user was removed.
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

    /// The caller is known, but may not do this.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::detail(403, "You do not have permission to perform this action.")
    }

    /// No such query, or not the caller's: the two are never told apart.
    #[must_use]
    pub fn no_query() -> Self {
        Self::detail(404, "No Query matches the given query.")
    }

    /// Nothing to claim.
    #[must_use]
    pub fn nothing_queued() -> Self {
        Self::detail(404, "No queued queries available")
    }

    /// A page beyond the last.
    #[must_use]
    pub fn no_page() -> Self {
        Self::detail(404, "Invalid page.")
    }

    /// Some fields are wrong: `{"field":["why"]}`.
    #[must_use]
    pub fn fields<'a>(wrong: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let wrong = wrong
            .into_iter()
            .map(|(name, why)| (name.to_owned(), json!([why])));
        Self::new(400, &Value::Object(wrong.collect::<Map<_, _>>()))
    }
}
