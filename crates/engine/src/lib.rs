//! Engines: the trait, and the clients of engines that run in other processes.

mod answer;
mod clock;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod host;
mod http;
mod lines;
mod ollama;
mod openai;
mod request;
mod spec;
mod times;

use std::{fmt, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use proto::{
    Body, EngineKind, ErrorCode, JobError, ModelEntry, Op, WorkerReport, worker::may_succeed_later,
};
pub use reqwest::Url;
use serde_json::value::RawValue;

pub use clock::Clock;
pub use host::{Host, InvalidHost, parse_host};
pub use http::{client_builder, is_loopback};
pub use lines::{LineSplitter, LineTooLong};
pub use ollama::{CHANGE_PAUSE, Ollama};
pub use openai::OpenAiCompatible;
pub use spec::{InvalidSpec, Spec};
pub use times::EngineTimes;

/// The lines an engine writes for one job, in the format of Ollama's native API, without line
/// feeds.
///
/// The stream ends after a line with `"done":true` (for [`Op::Embed`]: after its one line), or with
/// one `Err`. Dropping it stops the engine within a second.
pub type Lines = Pin<Box<dyn Stream<Item = Result<Bytes, EngineError>> + Send>>;

/// A program that answers requests with a language model.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync {
    /// Name for the owner, without secrets: `ollama at http://127.0.0.1:11434`.
    fn name(&self) -> String;

    /// Kind of the engine, as its reports name it; known before the engine has ever answered.
    fn kind(&self) -> EngineKind;

    /// Asks the engine for its version and models. Fast, and never loads a model.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if it cannot be reached.
    async fn report(&self) -> Result<WorkerReport, EngineError>;

    /// Returns the details of one model of its report in the format of Ollama's `/api/show`, at
    /// most [`proto::limits::SHOW_MAX`] bytes; `None` if it has none. Never loads the model.
    ///
    /// # Errors
    /// [`EngineError`] if the engine fails or refuses.
    async fn show(&self, model: &ModelEntry) -> Result<Option<Box<RawValue>>, EngineError> {
        let _ = model;
        Ok(None)
    }

    /// Returns the entries of its `/api/ps`: the models in memory, and until when.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if it cannot be reached.
    async fn running(&self) -> Result<Vec<Box<RawValue>>, EngineError> {
        Ok(Vec::new())
    }

    /// Starts one request. `body` is Ollama's request for `op`, passed on byte for byte to an
    /// Ollama. Returns when the engine has accepted or refused the request or, if the engine does
    /// not tell, with the first line.
    ///
    /// # Errors
    /// [`EngineError`]; nothing was generated.
    async fn start(&self, op: Op, body: Body) -> Result<Lines, EngineError>;
}

/// Reasons why an engine gave no answer, named by what the worker does about them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine does not respond: stop leasing, give the job back.
    #[error("the engine cannot be reached: {0}")]
    Unavailable(String),
    /// The engine is too busy to start: give the job back for a later attempt.
    #[error("the engine is busy: {0}")]
    Busy(String),
    /// The engine answered with an error status, which is passed on to the requester.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Message, unwrapped.
        message: String,
    },
    /// The engine reported a failure in the middle of its answer, which is passed on to the
    /// requester.
    #[error("{0}")]
    Failed(String),
    /// The engine broke off, or violated its own protocol.
    #[error("the engine broke off: {0}")]
    Broken(String),
    /// The engine works, but the model's output is unusable: another attempt may succeed.
    #[error("{0}")]
    Unusable(String),
    /// A line of the answer exceeds the maximum length: another attempt would fail, too.
    #[error(
        "the engine's answer has a line of more than 8 MiB, which cannot be forwarded; ask for \
         less at once"
    )]
    TooLong,
}

impl EngineError {
    /// Whether the same request may succeed later, or at another engine; for a refusal, see
    /// [`may_succeed_later`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, message } => may_succeed_later(*status, message),
            Self::Unavailable(_)
            | Self::Busy(_)
            | Self::Failed(_)
            | Self::Broken(_)
            | Self::Unusable(_) => true,
            Self::TooLong => false,
        }
    }
}

impl From<EngineError> for JobError {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::Unavailable(_) | EngineError::Busy(_) => ErrorCode::EngineUnavailable,
            EngineError::Refused { status: 404, .. } => ErrorCode::UnknownModel,
            EngineError::Refused { .. } => ErrorCode::EngineRefused,
            EngineError::Failed(_) | EngineError::Broken(_) | EngineError::Unusable(_) => {
                ErrorCode::EngineFailed
            }
            EngineError::TooLong => ErrorCode::TooLarge,
        };
        let engine_status = match &error {
            EngineError::Refused { status, .. } => Some(*status),
            EngineError::Unavailable(_)
            | EngineError::Busy(_)
            | EngineError::Failed(_)
            | EngineError::Broken(_)
            | EngineError::Unusable(_)
            | EngineError::TooLong => None,
        };
        Self {
            code,
            message: error.to_string(),
            engine_status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_engines_own_may_pass_and_a_fault_of_the_request_does_not() {
        let refused = |status, message: &str| EngineError::Refused {
            status,
            message: message.into(),
        };
        for (status, message) in [
            (
                500,
                "model requires more system memory (8 GiB) than is available (2 GiB)",
            ),
            (500, "llama runner process has terminated: exit status 2"),
            (507, "disk full"),
        ] {
            assert!(
                refused(status, message).is_retryable(),
                "{status} {message}"
            );
        }
        for (status, message) in [
            (400, "invalid JSON"),
            (404, "model 'x' not found"),
            (
                501,
                "This server does not support embeddings. Start it with `--embeddings`",
            ),
            (500, "option \"temperature\" must be of type float32"),
            (
                500,
                "invalid format: \"5\"; expected \"json\" or a valid JSON Schema object",
            ),
            (500, "template: :1: unclosed action"),
        ] {
            assert!(
                !refused(status, message).is_retryable(),
                "{status} {message}"
            );
        }
        assert!(EngineError::Broken("it hung up".into()).is_retryable());
        assert!(!EngineError::TooLong.is_retryable());
    }
}
