//! Takes jobs from a relay and answers them with an engine.
//!
//! A [`Worker`] has one [`Source`] of jobs and one engine; between them stands the [`Desk`], the
//! ledger of every job that is held. A source only moves what the desk tells it to move, so that
//! a link may break at any point: what was not acknowledged is still on the desk and is sent
//! again over the next link, whichever carrier that uses.

mod activity;
mod backoff;
mod breaker;
mod desk;
mod details;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod held;
mod job;
mod outbox;
mod probe;
mod relay;
mod settings;
mod source;
mod worker;

pub use activity::{Activity, Totals};
pub use backoff::Backoff;
pub use desk::Desk;
pub use engine::{Clock, Url};
pub use held::Outgoing;
pub use settings::{Random, Tuning, WorkerSettings};
pub use source::{LinkEnd, Source};
pub use worker::{Worker, WorkerHandle};
