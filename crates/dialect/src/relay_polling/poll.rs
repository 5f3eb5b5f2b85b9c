//! `GET /api/ollama/poll`: a job in the format of a polling worker, if it can express the job.

use bytes::Bytes;
use proto::{LeaseToken, ModelName, Op, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{clock::rfc3339, ollama::json};

/// A job as a polling worker receives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolledRequest {
    /// Job and attempt, as written by [`poll_id`].
    pub id: String,
    /// Prompt of the user.
    pub prompt: String,
    /// System prompt, or null.
    pub system_prompt: Option<String>,
    /// The model.
    pub model: ModelName,
    /// Temperature; null if the requester set none.
    pub temperature: Option<f64>,
    /// Token limit; null if the requester set none.
    pub max_tokens: Option<i64>,
    /// Time of the poll.
    pub created_at: String,
}

/// Returns the 200 body of `GET /api/ollama/poll` with a job.
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
    /// Converts a native job. `None` if the format cannot express it: such a worker can only get
    /// one text prompt with at most one system text before it.
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
            Op::Embed | Op::Pull | Op::Copy | Op::Delete | Op::Create => return None,
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

/// The fields of a native request that can be converted, or that must be refused.
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

/// Returns the identifier for a poller: the job's own for the first attempt, followed by the
/// attempt for later ones, so that a late answer can be told from a current one.
#[must_use]
pub fn poll_id(token: LeaseToken) -> String {
    match token.attempt {
        1 => token.job.to_string(),
        attempt => format!("{}-{attempt}", token.job),
    }
}

/// Parses an identifier written by [`poll_id`].
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
