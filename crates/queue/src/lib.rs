//! The job queue: its rules, and the traits that every store implements.
//!
//! The rules are one pure state machine that reads no clock and does no I/O. `MemoryQueue` is that
//! machine behind a lock; a durable store is the machine plus a log of its decisions.

mod batch;
mod ceiling;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod history;
mod job;
mod key;
mod live;
mod log;
pub mod machine;
mod memory;
mod memory_keys;
mod memory_users;
mod observer;
mod overview;
mod position;
mod query;
mod queue_limits;
mod session;
mod store;
mod submission;
mod user;
mod webhook;

use std::time::Duration;

pub use batch::{BatchRecord, BatchState, Batches, DocumentId, FileRecord, LineResult, ResultFile};
pub use ceiling::{Ceiling, InvalidPattern, ModelPattern, ModelPatterns};
pub use error::QueueError;
pub use history::Minute;
pub use job::{
    Extended, Job, Lease, LeaseQuery, LogHead, LogPage, Models, NewJob, Owner, QueueCounts,
};
pub use key::{KeyId, KeyRecord, Keys, Scope, Serve};
pub use live::{Appended, Live, end_too_long};
pub use log::{LeaseHolder, LiveLog, LogBytes};
pub use memory::MemoryQueue;
pub use memory_keys::MemoryKeys;
pub use memory_users::MemoryUsers;
pub use observer::Observer;
pub use overview::{Holder, Overview, RUNNING_SHOWN_MAX, Running};
pub use position::{QueuePosition, expected_wait};
pub use query::{
    COUNTED_MAX, Claim, LISTED_MAX, LOGS_MAX, NewQuery, Queries, Query, QueryId, QueryLog,
};
pub use queue_limits::QueueLimits;
pub use session::{Renewal, Renewed, SESSIONS_MAX, Session, SessionId, Sessions};
pub use store::{JobLog, Queue, Store};
pub use submission::{
    Cursor, Extras, IdempotencyKey, JobFilter, JobPage, KEY_RETENTION, LOOKED_AT_MAX,
    RETRY_KEY_PREFIX, Submissions, Submitted,
};
pub use user::{NewUser, PasswordHash, Role, User, UserChange, UserId, Users};
pub use webhook::{DeliveryOutcome, DueWebhooks, NewWebhook, Webhook, Webhooks};

/// Time for which prompt and answer are kept after the answer was fetched, see [`Queue::fetched`].
pub const FETCHED_RETENTION: Duration = Duration::from_secs(60 * 60);

/// Time from its start for which a finished batch is kept if its input file was erased before.
pub const BATCH_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Maximum time a job without a deadline waits for a worker; doubled once a worker leased it.
pub const DEFAULT_QUEUE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Time for which an ended job is kept with its prompt and answer; then `reap` erases it.
pub const RESULT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
