//! Hearth's own wire types, shared by requesters, relay, workers and overlays.
//!
//! This crate does no I/O, reads no clock and draws no random numbers. The files under `fixtures/`
//! are the contract; the tests beside each type and the pages under `ui/` read the same bytes.

pub mod admin;
#[cfg(all(test, feature = "schema"))]
mod asyncapi;
mod cause;
mod error;
pub mod hex;
mod id;
mod job;
pub mod limits;
mod log;
mod report;
#[cfg(feature = "schema")]
mod schema;
mod secret;
pub mod status;
mod structure;
mod time;
#[cfg(test)]
mod typescript;
pub mod worker;

pub use cause::{cause, causes, innermost};
pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use id::{Account, InvalidId, JobId, LeaseToken, MODEL_NAME_MAX, ModelName, WorkerId};
pub use job::{
    Body, Dialect, JobState, JobView, Op, Priority, SubmitJob, WebhookRequest, WebhookState,
    WebhookView,
};
pub use log::{Chunk, End, EventId, JobError};
pub use report::{Detail, EngineKind, ModelEntry, ModelShow, WorkerReport};
pub use secret::{Secret, SecretBytes};
pub use structure::{refuse_intricate, structure};
pub use time::Timestamp;
