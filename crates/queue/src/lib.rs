//! The job queue: what may happen to a job, and the trait every store fulfils.
//!
//! The rules live in one pure state machine that reads no clock and does no I/O; `MemoryQueue`
//! is that machine behind a lock, a durable store is the machine plus a log of what it decided.

mod error;
mod key;
mod store;

pub use error::QueueError;
pub use key::{KeyId, KeyRecord, Keys, Scope, Serve};
pub use store::{
    Job, JobLog, Lease, LeaseQuery, Leased, LogHead, LogPage, Models, NewJob, Owner, Queue,
    QueueCounts, Store,
};
