//! Jobs as requesters see them: operations, priorities, states, submission and view.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de};

use crate::{Account, ErrorDetail, JobId, ModelName, Secret, Timestamp, WorkerId};

/// Operation of the engine. Never a method and a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Ollama's `POST /api/chat`.
    Chat,
    /// Ollama's `POST /api/generate`.
    Generate,
    /// Ollama's `POST /api/embed`.
    Embed,
    /// Ollama's `POST /api/pull`.
    Pull,
    /// Ollama's `POST /api/copy`.
    Copy,
    /// Ollama's `DELETE /api/delete`.
    Delete,
    /// Ollama's `POST /api/create`.
    Create,
}

impl Op {
    /// The name used on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Generate => "generate",
            Self::Embed => "embed",
            Self::Pull => "pull",
            Self::Copy => "copy",
            Self::Delete => "delete",
            Self::Create => "create",
        }
    }

    /// Whether it changes the engine's models, which its owner must have allowed.
    #[must_use]
    pub const fn changes_models(self) -> bool {
        match self {
            Self::Chat | Self::Generate | Self::Embed => false,
            Self::Pull | Self::Copy | Self::Delete | Self::Create => true,
        }
    }

    /// Whether it requires an engine that already has the model.
    #[must_use]
    pub const fn needs_model(self) -> bool {
        match self {
            Self::Chat | Self::Generate | Self::Embed | Self::Copy | Self::Delete => true,
            Self::Pull | Self::Create => false,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Wire format of the requester; the relay answers in the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Hearth's own `/api/jobs`.
    Native,
    /// Ollama's `/api/*`.
    Ollama,
    /// OpenAI's `/v1/*`.
    OpenAi,
    /// Anthropic's `/v1/messages`.
    Anthropic,
    /// The polling relay's `/api/ollama/request`.
    RelayPolling,
    /// The query service's `/api/queries/`.
    Queries,
}

/// Priority: 1 is the highest, 10 the lowest, 5 the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Serialize for Priority {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(self.0.max(1))
    }
}

impl Priority {
    /// For operations that are not inference, such as loading a model: needs no slot. Cannot be
    /// requested by number.
    pub const URGENT: Self = Self(0);
    /// Priority of a job that names none.
    pub const DEFAULT: Self = Self(5);

    /// Returns `None` outside `1..=10`.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level >= 1 && level <= 10 {
            Some(Self(level))
        } else {
            None
        }
    }

    /// Converts a stored value; `None` if it is not a priority.
    #[must_use]
    pub const fn stored(level: u8) -> Option<Self> {
        if level == Self::URGENT.0 {
            Some(Self::URGENT)
        } else {
            Self::new(level)
        }
    }

    /// Whether it needs no slot.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        self.0 == Self::URGENT.0
    }

    /// The number: 1 (highest) to 10, or 0 for [`Priority::URGENT`].
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let level = u8::deserialize(from)?;
        Self::new(level)
            .ok_or_else(|| de::Error::custom("a priority must be a number from 1 to 10"))
    }
}

/// State of a job. `Leased` may return to `Queued`; the last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// Leased by a worker.
    Leased,
    /// Completed; the answer never changes again.
    Completed,
    /// Failed; the reason is kept.
    Failed,
    /// Cancelled by its requester.
    Cancelled,
}

impl JobState {
    /// Whether this state can never change again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// A prompt or an answer: bytes that `Debug` and logs never show.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Body(pub Bytes);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

/// `POST /api/jobs`: a job submitted by a native requester.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// Operation.
    pub op: Op,
    /// Ollama's request for this operation, with its `model`; passed on byte for byte.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "serde_json::Map<String, serde_json::Value>")
    )]
    pub body: Box<serde_json::value::RawValue>,
    /// Priority. When absent: 5, or the highest that the key permits.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Priority"))]
    pub priority: Option<Priority>,
    /// Milliseconds from now after which the answer is no longer wanted.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Webhook to call when the job has ended.
    #[serde(default)]
    pub webhook: Option<WebhookRequest>,
}

/// A webhook to call when a job has ended, signed according to <https://www.standardwebhooks.com>.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// An https URL with a public address.
    pub url: String,
    /// `whsec_` and base64 of 24 to 64 bytes; when absent, one is generated and shown once.
    #[serde(default)]
    pub secret: Option<Secret>,
}

impl fmt::Debug for WebhookRequest {
    /// Hides the secret, and the URL, which may contain one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookRequest").finish_non_exhaustive()
    }
}

/// Delivery state of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum WebhookState {
    /// Pending: the job has not ended, or another attempt follows.
    Waiting,
    /// Accepted by its receiver.
    Delivered,
    /// Failed too many times, or for good.
    GivenUp,
}

/// State of a job's webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct WebhookView {
    /// Delivery state.
    pub state: WebhookState,
    /// Number of attempts.
    pub tries: u32,
    /// Error of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub error: Option<String>,
    /// The secret, if the relay generated it; only in the response to the submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "string"))]
    pub secret: Option<Secret>,
}

/// `GET /api/jobs/{id}`: a job as its requester sees it. Never contains the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct JobView {
    /// Identifier.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: JobId,
    /// Current state.
    pub state: JobState,
    /// Account that owns the job.
    #[cfg_attr(test, ts(type = "string"))]
    pub account: Account,
    /// Operation.
    pub op: Op,
    /// Model.
    #[cfg_attr(test, ts(type = "string"))]
    pub model: ModelName,
    /// The only worker that may answer, if the requester chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "string"))]
    pub worker: Option<WorkerId>,
    /// Priority.
    #[cfg_attr(test, ts(type = "number"))]
    pub priority: Priority,
    /// Number of times it has been leased.
    pub attempt: u32,
    /// Time of acceptance.
    #[cfg_attr(test, ts(type = "number"))]
    pub created_at: Timestamp,
    /// Time of its end, if it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub finished_at: Option<Timestamp>,
    /// Time after which the answer is no longer wanted, if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub deadline: Option<Timestamp>,
    /// Reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub error: Option<ErrorDetail>,
    /// The job that retries this failed or cancelled one; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "string"))]
    pub retried_as: Option<JobId>,
    /// Its webhook and delivery state; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub webhook: Option<WebhookView>,
    /// Number of jobs before it, while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub position: Option<u64>,
    /// Estimated waiting time in milliseconds, while it is queued and if it can be estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub expected_wait_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_never_printed() {
        assert_eq!(format!("{:?}", Body::from("secret")), "Body(6 bytes)");
    }

    #[test]
    fn a_priority_outside_one_to_ten_is_refused_by_name() {
        let error = serde_json::from_str::<Priority>("11")
            .unwrap_err()
            .to_string();
        assert!(error.contains("from 1 to 10"), "{error}");
        assert!(serde_json::from_str::<Priority>("0").is_err());
        assert_eq!(serde_json::to_string(&Priority::URGENT).unwrap(), "1");
    }

    #[test]
    fn a_submission_keeps_its_body_byte_for_byte() {
        let json = r#"{"op":"chat","body":{"model":"m",  "x":1.50}}"#;
        let submit: SubmitJob = serde_json::from_str(json).unwrap();
        assert_eq!(submit.body.get(), r#"{"model":"m",  "x":1.50}"#);
        assert!(serde_json::from_str::<SubmitJob>(r#"{"op":"chat","body":{},"prio":1}"#).is_err());
    }
}
