//! Queries of the query service: jobs with a number, claims, drafts and log entries.

use std::fmt;

use async_trait::async_trait;
use proto::{Body, JobId, JobState, Timestamp};

use crate::{Job, NewJob, Owner, QueueError, UserId};

/// Number of a query; the clients of the query service know no other identifier.
pub type QueryId = u64;

/// Maximum number up to which the queries in some state are counted.
pub const COUNTED_MAX: u64 = 10_000;
/// Maximum size in bytes of a question or draft in a list; a longer one is left empty there.
pub const LISTED_MAX: usize = 64 * 1024;
/// Maximum size in bytes of all log entries of one query.
pub const LOGS_MAX: usize = 4 * 1024 * 1024;

/// A query to be queued: a job, and what the query service keeps with it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewQuery {
    /// The job.
    pub job: NewJob,
    /// Project number, chosen by the client.
    pub project: i64,
    /// User who asked; `None` for a caller with an API key.
    pub user: Option<UserId>,
}

/// The client that claimed a query, and its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Identity of the client, the same after each login.
    pub by: String,
    /// Attempt of the lease.
    pub attempt: u32,
    /// Time of the claim.
    pub at: Timestamp,
}

/// A query as stored. It is erased together with its job.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Number, chosen by the store.
    pub id: QueryId,
    /// See [`NewQuery::project`].
    pub project: i64,
    /// See [`NewQuery::user`].
    pub user: Option<UserId>,
    /// The latest claim.
    pub claim: Option<Claim>,
    /// The answer so far, as sent by the claimant before it completes the query.
    pub draft: Option<Body>,
    /// Number of its log entries.
    pub logs: u64,
    /// The job, with its body.
    pub job: Job,
}

/// An entry of a query's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLog {
    /// Number, chosen by the store.
    pub id: u64,
    /// The query it belongs to.
    pub query: QueryId,
    /// Text of the entry, UTF-8.
    pub text: Body,
    /// Time of writing.
    pub created_at: Timestamp,
}

/// Storage of queries, beside their jobs.
///
/// Every method fails with [`QueueError::Store`] if the store cannot be read or written, and with
/// [`QueueError::Unconfirmed`] if it is not known whether it was written.
#[async_trait]
pub trait Queries: fmt::Debug + Send + Sync {
    /// Accepts a query and its job, both or neither.
    ///
    /// # Errors
    /// Those of [`crate::Queue::enqueue`].
    async fn create_query(&self, now: Timestamp, new: NewQuery) -> Result<QueryId, QueueError>;

    /// Returns the query, if it exists and belongs to `owner`.
    async fn find_query(&self, owner: Owner<'_>, id: QueryId) -> Result<Option<Query>, QueueError>;

    /// Returns the number of the query that a job belongs to, if there is one.
    async fn query_of(&self, job: JobId) -> Result<Option<QueryId>, QueueError>;

    /// Lists the owner's queries in one of these states, or in any if `states` is empty: their
    /// number, and the newest of them after the first `skip`, at most `limit`. With states, the
    /// count may stop at [`COUNTED_MAX`]. Questions and drafts of more than [`LISTED_MAX`] bytes
    /// are empty, so that a list fits into memory.
    async fn list_queries(
        &self,
        owner: Owner<'_>,
        states: &[JobState],
        skip: u64,
        limit: usize,
    ) -> Result<(u64, Vec<Query>), QueueError>;

    /// Records a claim and drops the draft of the previous claimant.
    async fn claim_query(&self, id: QueryId, claim: Claim) -> Result<(), QueueError>;

    /// Stores the draft of the answer.
    async fn draft_query(&self, id: QueryId, draft: Body) -> Result<(), QueueError>;

    /// Adds an entry to the log of a query. Returns `None` if the query does not exist or has
    /// `most` entries already.
    async fn log_query(
        &self,
        now: Timestamp,
        id: QueryId,
        text: Body,
        most: u64,
    ) -> Result<Option<QueryLog>, QueueError>;

    /// Returns the log entries of a query, oldest first.
    async fn query_logs(&self, id: QueryId) -> Result<Vec<QueryLog>, QueueError>;

    /// Erases an ended query with its job. Returns `false` if it has not ended or does not exist.
    async fn delete_query(&self, id: QueryId) -> Result<bool, QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_64_kib_of_a_text_and_a_log_keeps_4_mib() {
        assert_eq!((LISTED_MAX, LOGS_MAX), (65_536, 4_194_304));
    }
}
