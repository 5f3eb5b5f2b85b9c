//! The polling relay (`/api/ollama/*`, its documented dialect): a prompt in, a text out, no stream.

use bytes::Bytes;
use proto::{ErrorDetail, JobId, LeaseToken, ModelName, Op, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clock::rfc3339,
    line::Line,
    ollama::{json, parse},
};

/// Filled in when a request says nothing of it.
pub const TEMPERATURE: f64 = 0.7;
/// See [`TEMPERATURE`].
pub const MAX_TOKENS: i64 = 2000;

/// `POST /api/ollama/request`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Request {
    /// What the user says.
    pub prompt: String,
    /// What the system says.
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// Which model; the relay's choice when absent.
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
    /// Reads a request.
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
        Err(crate::ollama::refuse(proto::ErrorCode::BadRequest, wrong))
    }

    /// The same as a native `chat` request.
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

/// The inside of a poll's answer: what the worker is to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolledRequest {
    /// The job and the attempt, as [`poll_id`] writes them.
    pub id: String,
    /// What the user says.
    pub prompt: String,
    /// What the system says, or null.
    pub system_prompt: Option<String>,
    /// The model.
    pub model: ModelName,
    /// Null where the requester left it to the engine.
    pub temperature: Option<f64>,
    /// Null where the requester set no limit.
    pub max_tokens: Option<i64>,
    /// When the job was handed out.
    pub created_at: String,
}

/// The 200 of `GET /api/ollama/poll` with work in it.
#[must_use]
pub fn polled(request: &PolledRequest) -> Bytes {
    #[derive(Serialize)]
    struct Polled<'a> {
        has_request: bool,
        request: &'a PolledRequest,
    }
    json(&Polled {
        has_request: true,
        request,
    })
}

impl PolledRequest {
    /// A native job in these words. `None` if they cannot say it: only one prompt with at most
    /// one system text before it can be handed to such a worker, and nothing but text.
    #[must_use]
    pub fn of(
        token: LeaseToken,
        op: Op,
        model: &ModelName,
        body: &[u8],
        now: Timestamp,
    ) -> Option<Self> {
        let native: Native = serde_json::from_slice(body).ok()?;
        let (system_prompt, prompt) = match op {
            Op::Chat => native.one_exchange()?,
            Op::Generate => (native.system.clone(), native.prompt.clone()?),
            Op::Embed => return None,
        };
        if !native.is_plain() || prompt.trim().is_empty() {
            return None;
        }
        let option = |name: &str| native.options.get(name);
        Some(Self {
            id: poll_id(token),
            prompt,
            system_prompt,
            model: model.clone(),
            temperature: option("temperature").and_then(Value::as_f64),
            max_tokens: option("num_predict").and_then(Value::as_i64),
            created_at: rfc3339(now),
        })
    }
}

/// As much of a native request as can be said, or must be refused, in the poller's words.
#[derive(Deserialize)]
struct Native {
    #[serde(default)]
    messages: Vec<NativeMessage>,
    #[serde(default)]
    system: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    options: serde_json::Map<String, Value>,
    #[serde(default)]
    tools: Value,
    #[serde(default)]
    format: Value,
    #[serde(default)]
    images: Value,
    #[serde(default)]
    suffix: Value,
    #[serde(default)]
    raw: Value,
    #[serde(default)]
    context: Value,
    #[serde(default)]
    template: Value,
}

#[derive(Deserialize)]
struct NativeMessage {
    role: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    images: Value,
}

impl Native {
    fn one_exchange(&self) -> Option<(Option<String>, String)> {
        let (system, user) = match self.messages.as_slice() {
            [user] => (None, user),
            [system, user] if system.role.eq_ignore_ascii_case("system") => (Some(system), user),
            _ => return None,
        };
        if !user.role.eq_ignore_ascii_case("user") || !is_unset(&user.images) {
            return None;
        }
        Some((
            system.and_then(|s| s.content.clone()),
            user.content.clone()?,
        ))
    }

    fn is_plain(&self) -> bool {
        [
            &self.tools,
            &self.format,
            &self.images,
            &self.suffix,
            &self.raw,
            &self.context,
            &self.template,
        ]
        .into_iter()
        .all(is_unset)
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// The id a poller is given: the job's own for its first attempt, with the attempt behind it for
/// later ones, so that a late answer can be told from a current one.
#[must_use]
pub fn poll_id(token: LeaseToken) -> String {
    match token.attempt {
        1 => token.job.to_string(),
        attempt => format!("{}-{attempt}", token.job),
    }
}

/// Reads what [`poll_id`] wrote.
#[must_use]
pub fn token(id: &str) -> Option<LeaseToken> {
    let (job, attempt) = match id.split_once('-') {
        None => (id, 1),
        Some((job, attempt)) => (job, attempt.parse().ok()?),
    };
    Some(LeaseToken {
        job: job.parse().ok()?,
        attempt,
    })
}

/// `POST /api/ollama/response`. Failure bodies of the real client have no `response` and no
/// `model`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// The id of the poll.
    pub id: String,
    /// The text; absent from failures.
    #[serde(default)]
    pub response: Option<String>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// Taken from the rest when absent.
    #[serde(default)]
    pub success: Option<bool>,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// `malformed_json` or `bad_request`, naming the field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        parse(body)
    }

    /// The text, or why there is none.
    ///
    /// # Errors
    /// The worker's own words for its failure.
    pub fn outcome(&self) -> Result<&str, &str> {
        let succeeded = self.success.unwrap_or(self.error.is_none());
        match (&self.response, succeeded) {
            (Some(text), true) => Ok(text),
            (text, _) => Err(self
                .error
                .as_deref()
                .or(text.as_deref())
                .unwrap_or("the worker gave no answer and no reason")),
        }
    }
}

/// A poller's text as the native lines a streaming engine would have written.
#[must_use]
pub fn lines(op: Op, model: &ModelName, text: &str, now: Timestamp) -> [Bytes; 2] {
    #[derive(Serialize)]
    struct Line<'a> {
        model: &'a ModelName,
        created_at: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<Message<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a str>,
        done: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        done_reason: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        role: &'a str,
        content: &'a str,
    }
    let created_at = rfc3339(now);
    let line = |text, done: bool| {
        let message = Message {
            role: "assistant",
            content: text,
        };
        json(&Line {
            model,
            created_at: &created_at,
            message: matches!(op, Op::Chat).then_some(message),
            response: (!matches!(op, Op::Chat)).then_some(text),
            done,
            done_reason: done.then_some("stop"),
        })
    };
    [line(text, false), line("", true)]
}

/// The 202 of `POST /api/ollama/request`.
#[must_use]
pub fn queued(id: JobId) -> Bytes {
    status(id, &Progress::Queued)
}

/// The 200 of `POST /api/ollama/response`.
pub const ACKNOWLEDGED: &str = r#"{"success":true}"#;

/// How far a request has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Nobody has it yet.
    Queued,
    /// A worker has it.
    Processing,
    /// Answered.
    Completed {
        /// The text.
        response: String,
        /// By which model.
        model: &'a ModelName,
    },
    /// Given up or withdrawn.
    Error(&'a str),
    /// No such request, or not yours.
    NotFound,
}

/// The body of `GET /api/ollama/status/{id}`.
#[must_use]
pub fn status(id: impl std::fmt::Display, progress: &Progress<'_>) -> Bytes {
    #[derive(Serialize, Default)]
    struct Status<'a> {
        id: String,
        status: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a ModelName>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    }
    let id = id.to_string();
    json(&match progress {
        Progress::Queued => Status {
            id,
            status: "queued",
            ..Status::default()
        },
        Progress::Processing => Status {
            id,
            status: "processing",
            ..Status::default()
        },
        Progress::Completed { response, model } => Status {
            id,
            status: "completed",
            response: Some(response),
            model: Some(model),
            ..Status::default()
        },
        Progress::Error(error) => Status {
            id,
            status: "error",
            error: Some(error),
            ..Status::default()
        },
        Progress::NotFound => Status {
            id,
            status: "not_found",
            ..Status::default()
        },
    })
}

/// The whole text of a job's lines.
#[must_use]
pub fn text<'a>(lines: impl IntoIterator<Item = &'a Bytes>) -> String {
    lines
        .into_iter()
        .filter_map(|bytes| Line::parse(bytes).map(|line| line.text().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
