use std::{fmt, time::Duration};

use bytes::Bytes;
use proto::Timestamp;

use crate::Job;

/// Hears what becomes of jobs once it is on disk. It is called under the store's lock: it counts,
/// and never waits.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A job was accepted.
    fn queued(&self, job: &Job);

    /// A job was lent; its `attempt` says for which time.
    fn lent(&self, now: Timestamp, job: &Job);

    /// The first line of an answer is there.
    fn first_line(&self, now: Timestamp, job: &Job);

    /// A job ended, with this as the last line of its answer, if there is one.
    fn ended(&self, job: &Job, last: Option<&Bytes>);

    /// So many decisions were committed, which took so long on the disk.
    fn committed(&self, took: Duration, decisions: usize);
}
