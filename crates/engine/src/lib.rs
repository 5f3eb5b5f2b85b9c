//! What runs a model. One trait, and the clients of engines that live in other processes.

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

use std::{fmt, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use proto::{Body, EngineKind, ErrorCode, JobError, ModelEntry, Op, WorkerReport};
pub use reqwest::Url;
use serde_json::value::RawValue;

pub use answer::EngineTimes;
pub use clock::Clock;
pub use host::{Host, InvalidHost, parse_host};
pub use http::{client_builder, is_loopback};
pub use lines::{LineSplitter, LineTooLong};
pub use ollama::Ollama;
pub use openai::OpenAiCompatible;
pub use spec::{InvalidSpec, Spec};

/// The lines an engine writes for one job, as Ollama's native API writes them, without line feeds.
///
/// The stream ends after a line with `"done":true` (for [`Op::Embed`]: after its one line), or
/// with one `Err`. Dropping it stops the engine within a second.
pub type Lines = Pin<Box<dyn Stream<Item = Result<Bytes, EngineError>> + Send>>;

/// Something that answers requests with a language model.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync {
    /// Its name for the owner's eyes, without secrets: `ollama at http://127.0.0.1:11434`.
    fn name(&self) -> String;

    /// Which kind it is, known before it has ever answered.
    fn kind(&self) -> EngineKind {
        EngineKind::Ollama
    }

    /// Asks it for its version and models. Quick, and never loads a model.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if it cannot be reached.
    async fn report(&self) -> Result<WorkerReport, EngineError>;

    /// What it says of one model of its report, as Ollama's `/api/show` does, in at most
    /// [`proto::limits::SHOW_MAX`] bytes; `None` if it says nothing. Never loads the model.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn show(&self, model: &ModelEntry) -> Result<Option<Box<RawValue>>, EngineError> {
        let _ = model;
        Ok(None)
    }

    /// The entries of its `/api/ps`: which models are in memory, and until when.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if it cannot be reached.
    async fn running(&self) -> Result<Vec<Box<RawValue>>, EngineError> {
        Ok(Vec::new())
    }

    /// Starts one request. `body` is Ollama's request for `op`, passed on byte for byte where the
    /// engine is Ollama. Resolves when the engine has accepted or refused it, or with the first
    /// line, whichever the engine lets one know.
    ///
    /// # Errors
    /// [`EngineError`]; nothing was generated.
    async fn start(&self, op: Op, body: Body) -> Result<Lines, EngineError>;
}

/// Why an engine gave no answer, named by what the worker does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Not there, or not answering: stop leasing, give the job back.
    #[error("the engine cannot be reached: {0}")]
    Unavailable(String),
    /// There, but too busy to begin: give the job back for later.
    #[error("the engine is busy: {0}")]
    Busy(String),
    /// It answered with an error status: the requester is told just that.
    #[error("{message}")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// Its message, unwrapped.
        message: String,
    },
    /// It said in the middle of its answer that it failed: the requester is told just that.
    #[error("{0}")]
    Failed(String),
    /// It broke off, or said something that is not its own protocol.
    #[error("the engine broke off: {0}")]
    Broken(String),
    /// It works, but what its model wrote is of use to nobody: another try may go better.
    #[error("{0}")]
    Unusable(String),
    /// A line of its answer is longer than any that is passed on: it would be so again.
    #[error(
        "the engine answers in a line of more than 8 MiB, which is passed on to nobody; ask for less at once"
    )]
    TooLong,
}

/// How Ollama begins when it answers 500 to a request that is wrong in itself.
const FAULTS_OF_REQUESTS: [&str; 4] = [
    "option \"",
    "invalid format:",
    "template:",
    "image input is not supported",
];

impl EngineError {
    /// Whether the same request may go well at another time, or at another engine. A refusal is
    /// final, except a failure of the engine's own, which it tells with 500 or above; 501 is what
    /// it cannot do.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { status, message } => {
                let is_requests = FAULTS_OF_REQUESTS
                    .iter()
                    .any(|fault| message.starts_with(fault));
                *status >= 500 && *status != 501 && !is_requests
            }
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
            assert!(refused(status, message).may_pass(), "{status} {message}");
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
            assert!(!refused(status, message).may_pass(), "{status} {message}");
        }
        assert!(EngineError::Broken("it hung up".into()).may_pass());
        assert!(!EngineError::TooLong.may_pass());
    }
}
