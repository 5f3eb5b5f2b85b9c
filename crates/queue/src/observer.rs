//! The observer of a queue, from which metrics are counted.

use std::{fmt, time::Duration};

use bytes::Bytes;
use proto::Timestamp;

use crate::Job;

/// Receives what happens to jobs, once it is on disk. Called under the store's lock:
/// implementations count, and never block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A job was accepted.
    fn queued(&self, job: &Job);

    /// A job was leased; its `attempt` says how many times so far.
    fn lent(&self, now: Timestamp, job: &Job);

    /// The first line of an answer arrived.
    fn first_line(&self, now: Timestamp, job: &Job);

    /// A job ended; `last` is the last line of its answer, if there is one.
    fn ended(&self, job: &Job, last: Option<&Bytes>);

    /// A group of `decisions` decisions was committed, which took `took`.
    fn committed(&self, took: Duration, decisions: usize);
}
