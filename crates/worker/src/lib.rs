//! Leases jobs from a relay and runs them on an engine.
//!
//! A [`Worker`] has one [`Source`] of jobs and one engine. Between them is the [`JobTable`], the
//! table of all held jobs. A link only sends what the table contains, so it may break at any point:
//! what was not acknowledged is sent again over the next link, whichever carrier that uses.

mod activity;
mod backoff;
mod breaker;
mod details;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod held;
mod job;
mod job_table;
mod outbox;
mod probe;
mod relay;
mod settings;
mod source;
mod worker;

pub use activity::{Activity, Totals};
pub use backoff::Backoff;
pub use engine::{Clock, Url};
pub use held::Outgoing;
pub use job_table::JobTable;
pub use settings::{DRAIN, Random, Tuning, WorkerSettings};
pub use source::{LinkEnd, Source};
pub use worker::{Worker, WorkerHandle};
