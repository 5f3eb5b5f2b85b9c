use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de};

use crate::{Account, ErrorDetail, JobId, ModelName, Timestamp, WorkerId};

/// What is asked of the engine: a typed operation, never a method and a path.
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
    /// The word used on the wire and in the store.
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

    /// Whether it changes which models the engine has, which its owner must have allowed.
    #[must_use]
    pub const fn changes_models(self) -> bool {
        match self {
            Self::Chat | Self::Generate | Self::Embed => false,
            Self::Pull | Self::Copy | Self::Delete | Self::Create => true,
        }
    }

    /// Whether only an engine can do it that has the model already.
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

/// Which wire format the requester spoke; the relay answers in the same one.
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

/// 1 is the most urgent, 10 the least; 5 when nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Serialize for Priority {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(self.0.max(1))
    }
}

impl Priority {
    /// For what is no question to a model: it waits for no slot. Nobody can ask for it by number.
    pub const URGENT: Self = Self(0);
    /// What a job has when nothing is said.
    pub const DEFAULT: Self = Self(5);

    /// `None` outside `1..=10`.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level >= 1 && level <= 10 {
            Some(Self(level))
        } else {
            None
        }
    }

    /// What a store kept; `None` for what is no priority.
    #[must_use]
    pub const fn stored(level: u8) -> Option<Self> {
        if level == Self::URGENT.0 {
            Some(Self::URGENT)
        } else {
            Self::new(level)
        }
    }

    /// Whether it waits for no slot.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        self.0 == Self::URGENT.0
    }

    /// 1 (most urgent) to 10, or 0 for [`Priority::URGENT`].
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
        Self::new(level).ok_or_else(|| de::Error::custom("a priority is a number from 1 to 10"))
    }
}

/// Where a job is in its life. `Leased` may fall back to `Queued`; the last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// A worker holds it.
    Leased,
    /// Answered; the answer never changes again.
    Completed,
    /// Given up; the reason is kept.
    Failed,
    /// Withdrawn by its requester.
    Cancelled,
}

impl JobState {
    /// Whether the job can never change again.
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

/// `POST /api/jobs`: what a native requester sends.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// The operation.
    pub op: Op,
    /// Ollama's request for that operation, with its `model`; passed on byte for byte.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "serde_json::Map<String, serde_json::Value>")
    )]
    pub body: Box<serde_json::value::RawValue>,
    /// Urgency. When absent 5, or the most urgent that the key allows.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Priority"))]
    pub priority: Option<Priority>,
    /// Milliseconds from now after which nobody wants the answer any more.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Whom to tell when the job has ended.
    #[serde(default)]
    pub webhook: Option<WebhookRequest>,
}

/// Where the end of a job is told, signed as <https://www.standardwebhooks.com> describes.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WebhookRequest {
    /// An https URL on a public address.
    pub url: String,
    /// `whsec_` and base64 of 24 to 64 bytes; when absent, one is made and shown once.
    #[serde(default)]
    pub secret: Option<String>,
}

impl fmt::Debug for WebhookRequest {
    /// Neither the secret nor the URL, which may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookRequest").finish_non_exhaustive()
    }
}

/// How far a webhook has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WebhookState {
    /// For the end of its job, or for the next try.
    Waiting,
    /// Its receiver accepted it.
    Delivered,
    /// It failed too often, or for good.
    GivenUp,
}

/// What has become of a job's webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookView {
    /// How far it has got.
    pub state: WebhookState,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The secret, if the relay made it; only in the answer to the submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// `GET /api/jobs/{id}`: a job as its requester sees it. Never holds the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// Where it is in its life.
    pub state: JobState,
    /// Whose it is.
    pub account: Account,
    /// What was asked.
    pub op: Op,
    /// Of which model.
    pub model: ModelName,
    /// The only worker that shall answer, if the requester chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// Urgency.
    pub priority: Priority,
    /// How often it has been leased.
    pub attempt: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When its answer stops being wanted, if that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
    /// The job that was made anew from this one, which failed or was withdrawn; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_as: Option<JobId>,
    /// Whom it tells of its end, and how that went; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookView>,
    /// How many jobs come before it, while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// How long it may still wait, while it is queued and if that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
