//! `/ws/tunnel`: messages in JSON, one a frame. Unknown ones are ignored.

use bytes::Bytes;
use proto::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Answer, EngineRequest, request::Http};
use crate::{clock::rfc3339, ollama::json};

/// Maximum length of the id of a ping that is answered, in bytes.
const ID_MAX: usize = 256;

/// A message from a desktop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelMessage {
    /// `http_response`, or `error` for one request.
    Answer(Answer),
    /// A ping with its id, which expects a pong.
    Ping(String),
    /// Anything else, such as a pong.
    Other,
}

impl TunnelMessage {
    /// Parses a message. Timestamps are not looked at: clients differ in how they write them.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            id: Option<String>,
            #[serde(default, borrow)]
            status: Option<&'a RawValue>,
            #[serde(default, borrow)]
            body: Option<&'a RawValue>,
            #[serde(default, borrow)]
            error: Option<&'a RawValue>,
            #[serde(default, borrow)]
            code: Option<&'a RawValue>,
        }
        let Ok(message) = serde_json::from_str::<Message<'_>>(text) else {
            return Self::Other;
        };
        let Message {
            id,
            status,
            body,
            error,
            code,
            ..
        } = message;
        match message.kind.as_str() {
            "http_response" => Self::Answer(Answer::new(id, status, body, error)),
            // The field is required, so any value of it counts as an error.
            "error" => Self::Answer(Answer::failed(id, code, error)),
            "ping" => match id.filter(|id| !id.is_empty() && id.len() <= ID_MAX) {
                Some(id) => Self::Ping(id),
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

impl EngineRequest<'_> {
    /// Returns it as the message `http_request`.
    #[must_use]
    pub fn http_request(&self) -> Bytes {
        #[derive(Serialize)]
        struct Message<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            id: &'a str,
            #[serde(flatten)]
            http: &'a Http<'a>,
        }
        json(&Message {
            kind: "http_request",
            id: &self.id,
            http: &self.http,
        })
    }
}

/// Returns a ping with this id.
#[must_use]
pub fn ping(id: &str, now: Timestamp) -> Bytes {
    signal("ping", id, now)
}

/// Returns the answer to a ping with this id.
#[must_use]
pub fn pong(id: &str, now: Timestamp) -> Bytes {
    signal("pong", id, now)
}

fn signal(kind: &'static str, id: &str, now: Timestamp) -> Bytes {
    #[derive(Serialize)]
    struct Signal<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        id: &'a str,
        timestamp: String,
    }
    json(&Signal {
        kind,
        id,
        timestamp: rfc3339(now),
    })
}
