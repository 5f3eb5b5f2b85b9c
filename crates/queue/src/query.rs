use std::fmt;

use async_trait::async_trait;
use proto::{Body, JobId, JobState, Timestamp};

use crate::{Job, NewJob, Owner, QueueError, UserId};

/// Names a query to its clients, who know numbers only.
pub type QueryId = u64;

/// Up to how many queries in some state are counted: more are of no interest to who lists them.
pub const COUNTED_MAX: u64 = 10_000;
/// Bytes of a question or of a draft that lists show; a longer one is empty there.
pub const LISTED_MAX: usize = 64 * 1024;
/// Most bytes of all entries of one query's log.
pub const LOGS_MAX: usize = 4 * 1024 * 1024;

/// A query to be queued: a job, and what its clients keep with it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewQuery {
    /// What is asked.
    pub job: NewJob,
    /// The clients' own.
    pub project: i64,
    /// Who asked, if he logged in.
    pub user: Option<UserId>,
}

/// Which client took a query, and with which lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Names the client, however often it logs in.
    pub by: String,
    /// The attempt of the lease.
    pub attempt: u32,
    /// When it was taken.
    pub at: Timestamp,
}

/// A query as stored. It lives exactly as long as its job.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Chosen by the store.
    pub id: QueryId,
    /// See [`NewQuery::project`].
    pub project: i64,
    /// See [`NewQuery::user`].
    pub user: Option<UserId>,
    /// The last claim.
    pub claim: Option<Claim>,
    /// What the claimant said the answer will be.
    pub draft: Option<Body>,
    /// How many entries its log has.
    pub logs: u64,
    /// The job, with its body.
    pub job: Job,
}

/// An entry of a query's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLog {
    /// Chosen by the store.
    pub id: u64,
    /// Of which query.
    pub query: QueryId,
    /// What was done; UTF-8.
    pub text: Body,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Queries, kept beside their jobs.
#[async_trait]
pub trait Queries: fmt::Debug + Send + Sync {
    /// Accepts a query and its job, both or neither.
    ///
    /// # Errors
    /// Those of [`crate::Queue::enqueue`].
    async fn create_query(&self, now: Timestamp, new: NewQuery) -> Result<QueryId, QueueError>;

    /// The query, if it exists and is the owner's.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn find_query(&self, owner: Owner<'_>, id: QueryId) -> Result<Option<Query>, QueueError>;

    /// The query of a job, if it is one.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn query_of(&self, job: JobId) -> Result<Option<QueryId>, QueueError>;

    /// How many queries of the owner are in one of these states (in any, if none is named; those in
    /// some may be counted up to [`COUNTED_MAX`] only), and
    /// the newest of them after the first `skip`, newest first, at most `limit`. Questions and
    /// drafts of more than [`LISTED_MAX`] bytes are empty in it: a list must fit into memory.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn list_queries(
        &self,
        owner: Owner<'_>,
        states: &[JobState],
        skip: u64,
        limit: usize,
    ) -> Result<(u64, Vec<Query>), QueueError>;

    /// Notes who took a query; forgets the draft of whoever had it before.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn claim_query(&self, id: QueryId, claim: Claim) -> Result<(), QueueError>;

    /// Keeps what the answer will be.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn draft_query(&self, id: QueryId, draft: Body) -> Result<(), QueueError>;

    /// Adds an entry to a query's log; `None` if there is no such query, or it has `most` already.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn log_query(
        &self,
        now: Timestamp,
        id: QueryId,
        text: Body,
        most: u64,
    ) -> Result<Option<QueryLog>, QueueError>;

    /// The entries of a query's log, oldest first.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn query_logs(&self, id: QueryId) -> Result<Vec<QueryLog>, QueueError>;

    /// Erases a query that has ended, with its job; `false` if it has not, or is not there.
    ///
    /// # Errors
    /// [`QueueError::Store`].
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
