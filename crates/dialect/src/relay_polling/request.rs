//! `POST /api/ollama/request`: the request of a requester.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, ModelName};
use serde::{Deserialize, Serialize};

use crate::ollama::{json, parse, refuse};

/// Temperature of a request that names none.
pub const TEMPERATURE: f64 = 0.7;
/// Token limit of a request that names none.
pub const MAX_TOKENS: i64 = 2000;

/// `POST /api/ollama/request`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Request {
    /// Prompt of the user.
    #[serde(alias = "user")]
    pub prompt: String,
    /// System prompt.
    #[serde(default, alias = "system")]
    pub system_prompt: Option<String>,
    /// Name of the model; chosen by the relay when absent.
    #[serde(default)]
    pub model: Option<String>,
    /// [`TEMPERATURE`] when absent.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// [`MAX_TOKENS`] when absent.
    #[serde(default)]
    pub max_tokens: Option<i64>,
}

impl Request {
    /// Parses a request.
    ///
    /// # Errors
    /// `malformed_json` or `bad_request`, naming the field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let request: Self = parse(body)?;
        let wrong = if request.prompt.trim().is_empty() {
            "prompt is required and must not be blank"
        } else if request
            .temperature
            .is_some_and(|t| !(0.0..=2.0).contains(&t))
        {
            "temperature is a number from 0 to 2"
        } else if request.max_tokens.is_some_and(|n| !(1..=8000).contains(&n)) {
            "max_tokens is a number from 1 to 8000"
        } else {
            return Ok(request);
        };
        Err(refuse(ErrorCode::BadRequest, wrong))
    }

    /// Returns it as a native `chat` request.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        #[derive(Serialize)]
        struct Native<'a> {
            model: &'a ModelName,
            messages: Vec<Message<'a>>,
            stream: bool,
            options: Options,
        }
        #[derive(Serialize)]
        struct Message<'a> {
            role: &'a str,
            content: &'a str,
        }
        #[derive(Serialize)]
        struct Options {
            temperature: f64,
            num_predict: i64,
        }
        let system = self.system_prompt.iter().map(|content| Message {
            role: "system",
            content,
        });
        let user = Message {
            role: "user",
            content: &self.prompt,
        };
        json(&Native {
            model,
            messages: system.chain([user]).collect(),
            stream: true,
            options: Options {
                temperature: self.temperature.unwrap_or(TEMPERATURE),
                num_predict: self.max_tokens.unwrap_or(MAX_TOKENS),
            },
        })
    }
}
