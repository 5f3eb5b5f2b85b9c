//! The job queue in one SQLite file.
//!
//! Decisions are made in memory by [`queue::machine::Machine`]; SQLite is the log of them. One
//! writer thread drains its inbox into one transaction and answers after the COMMIT, so that one
//! fsync serves all concurrent callers. Lines of running jobs never wait for it.

mod batches;
mod erasure;
mod error;
mod files;
mod group;
mod inbox;
mod keys;
mod pieces;
mod queries;
mod reader;
mod reserve;
mod restart;
mod row;
mod schema;
mod sessions;
mod sqlite;
mod submissions;
#[cfg(test)]
mod tests;
mod users;
mod webhooks;
mod writer;

pub use error::OpenError;
pub use keys::SqliteKeys;
pub use sqlite::SqliteQueue;
