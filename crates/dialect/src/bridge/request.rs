//! A leased job as a request of the engine's API.

use proto::{LeaseToken, Op};
use serde::Serialize;

use crate::relay_polling::poll_id;

/// A request that a desktop passes on to its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRequest<'a> {
    /// Job and attempt.
    pub(super) id: String,
    pub(super) http: Http<'a>,
}

/// Method, path, headers and body, in the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Http<'a> {
    method: &'static str,
    path: &'static str,
    headers: Headers,
    body: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Headers {
    #[serde(rename = "content-type")]
    content_type: &'static str,
}

impl<'a> EngineRequest<'a> {
    /// Converts a job. `None` if a desktop cannot be asked for it: its body is not UTF-8, or it
    /// changes models.
    #[must_use]
    pub fn of(token: LeaseToken, op: Op, body: &'a [u8]) -> Option<Self> {
        let path = match op {
            Op::Chat => "/api/chat",
            Op::Generate => "/api/generate",
            Op::Embed => "/api/embed",
            Op::Pull | Op::Copy | Op::Delete | Op::Create => return None,
        };
        Some(Self {
            id: poll_id(token),
            http: Http {
                method: "POST",
                path,
                headers: Headers {
                    content_type: "application/json",
                },
                body: std::str::from_utf8(body).ok()?,
            },
        })
    }
}
