//! Submitting jobs under an idempotency key, and searching them page by page.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use proto::{Account, JobId, JobState, ModelName, Op, Timestamp};

use crate::{Job, NewJob, NewWebhook, Owner, QueueError};

/// Maximum number of jobs that are examined for one page, so that a search for something rare stays
/// short.
pub const LOOKED_AT_MAX: usize = 10_000;

/// Minimum time for which an idempotency key is kept, from the submission of its job. A job that is
/// kept longer keeps its key.
pub const KEY_RETENTION: Duration = Duration::from_secs(48 * 60 * 60);

const MINUTE_MS: i64 = 60_000;

/// Prefix of the key made by [`IdempotencyKey::retry`]; the id follows in lower-case hexadecimal.
pub const RETRY_KEY_PREFIX: &str = "retry\n";

/// An idempotency key: a name that always identifies the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key, unique within the account.
    pub key: String,
    /// Digest of the request.
    pub fingerprint: [u8; 32],
}

impl IdempotencyKey {
    /// Returns the key of the job that retries a failed one, so that concurrent or repeated retries
    /// make only one job. No requester's own key contains a line feed.
    #[must_use]
    pub fn retry(of: JobId) -> Self {
        Self {
            key: format!("{RETRY_KEY_PREFIX}{of}"),
            fingerprint: [0; 32],
        }
    }

    /// Returns until when a key is kept although its job, submitted at `submitted`, is erased at
    /// `now`; `None` if it goes with the job. So do the keys of retries and of batches, which
    /// contain a line feed: a repeat of those shall make a new job.
    #[must_use]
    pub fn outlives_job(key: &str, submitted: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let until = Self::kept_until(submitted);
        (until > now && !key.contains('\n')).then_some(until)
    }

    /// Returns until when a key is kept at least: [`KEY_RETENTION`], up to a full minute, so that
    /// the keys of a minute are erased together.
    #[must_use]
    pub fn kept_until(submitted: Timestamp) -> Timestamp {
        let until = submitted + KEY_RETENTION;
        Timestamp(until.0.saturating_add(MINUTE_MS - 1) / MINUTE_MS * MINUTE_MS)
    }

    /// Checks that an earlier request under the same key is this one.
    ///
    /// # Errors
    /// [`QueueError::OtherRequest`] if it is not.
    pub fn check_same(&self, before: &[u8; 32]) -> Result<(), QueueError> {
        if self.fingerprint == *before {
            Ok(())
        } else {
            Err(QueueError::OtherRequest)
        }
    }
}

/// Data stored with a job, in the same commit.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Idempotency key: a repeat finds the job instead of making another.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Webhook to call when the job has ended.
    pub webhook: Option<NewWebhook>,
}

/// Result of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// A new job, without its body.
    New(Box<Job>),
    /// A job that was accepted before under the same key. It may be erased already.
    Known(JobId),
}

impl Submitted {
    /// Identifier of the job.
    #[must_use]
    pub const fn id(&self) -> JobId {
        match self {
            Self::New(job) => job.new.id,
            Self::Known(id) => *id,
        }
    }
}

/// Conditions of a search. Without any, all jobs match.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Jobs in this state.
    pub state: Option<JobState>,
    /// Jobs for this model, see [`ModelName::is_same`].
    pub model: Option<ModelName>,
    /// Jobs with this operation.
    pub op: Option<Op>,
    /// Jobs accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Jobs accepted before this time.
    pub until: Option<Timestamp>,
    /// Only failed jobs that were not retried, see [`IdempotencyKey::retry`].
    pub dead: bool,
    /// Only jobs after this position, which are older.
    pub after: Option<Cursor>,
    /// Maximum number of jobs on the page.
    pub limit: usize,
}

impl JobFilter {
    /// Whether a job matches, regardless of its position. Only the store knows whether a dead job
    /// was retried.
    #[must_use]
    pub fn wants(&self, job: &Job) -> bool {
        let model = self.model.as_ref();
        self.state.is_none_or(|state| state == job.state)
            && (!self.dead || job.state == JobState::Failed)
            && self.op.is_none_or(|op| op == job.new.op)
            && model.is_none_or(|model| model.is_same(&job.new.model))
            && self.since.is_none_or(|since| job.created_at >= since)
            && self.until.is_none_or(|until| job.created_at < until)
    }
}

/// A position in the list of jobs, which later jobs do not move. Written as `time-number`; clients
/// return it unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Time of acceptance of the job.
    pub created_at: Timestamp,
    /// Its sequence number.
    pub seq: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.created_at.0, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "a cursor must be returned unchanged, for example `1700000000000-42`";
        let (created_at, seq) = text.split_once('-').ok_or(SHAPE)?;
        Ok(Self {
            created_at: Timestamp(created_at.parse().map_err(|_| SHAPE)?),
            seq: seq.parse().map_err(|_| SHAPE)?,
        })
    }
}

/// One page of jobs, newest first, without bodies.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// The matching jobs. May be few or none even if there is a `next`.
    pub jobs: Vec<Job>,
    /// Position of the next page; `None` at the end.
    pub next: Option<Cursor>,
    looked_at: usize,
    last: Option<Cursor>,
}

impl JobPage {
    /// Offers the next job in order. Returns `false` once the page is complete; this job is then
    /// not on it.
    pub fn offer(&mut self, filter: &JobFilter, at: Cursor, job: Cow<'_, Job>) -> bool {
        if self.jobs.len() >= filter.limit || self.looked_at == LOOKED_AT_MAX {
            self.next = self.last;
            return false;
        }
        self.looked_at += 1;
        self.last = Some(at);
        if filter.wants(&job) {
            self.jobs.push(job.into_owned());
        }
        true
    }
}

/// Submission of jobs with idempotency keys and webhooks, and search.
///
/// Every method fails with [`QueueError::Store`] if the store cannot be read or written, and with
/// [`QueueError::Unconfirmed`] if it is not known whether it was written.
#[async_trait]
pub trait Submissions: fmt::Debug + Send + Sync {
    /// Accepts a job with its extras, or finds the one accepted before under the same key, even for
    /// concurrent calls. A key is free again when its job is erased, but not within
    /// [`KEY_RETENTION`] after the submission; see [`IdempotencyKey::outlives_job`].
    ///
    /// The accepted job is returned, because reading it back could fail, and the client would then
    /// submit it again.
    ///
    /// # Errors
    /// [`QueueError::OtherRequest`] if the key belongs to another request, and those of
    /// [`crate::Queue::enqueue`].
    async fn submit(
        &self,
        now: Timestamp,
        job: NewJob,
        extras: Extras,
    ) -> Result<Submitted, QueueError>;

    /// Returns the job accepted under this key, and the digest of its request. The job may be
    /// erased already.
    async fn submitted(
        &self,
        account: &Account,
        key: &str,
    ) -> Result<Option<(JobId, [u8; 32])>, QueueError>;

    /// Searches the owner's jobs, newest first.
    async fn search(&self, owner: Owner<'_>, filter: &JobFilter) -> Result<JobPage, QueueError>;

    /// Counts the failed jobs that were not retried, up to `at_most`, see [`JobFilter::dead`].
    async fn count_dead(&self, at_most: usize) -> Result<usize, QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        conformance::sample::{self, T0},
        machine::Machine,
    };

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor {
            created_at: Timestamp(1_700_000_000_000),
            seq: 42,
        };
        assert_eq!(cursor.to_string(), "1700000000000-42");
        assert_eq!("1700000000000-42".parse(), Ok(cursor));
        for wrong in ["", "1", "-", "1-", "-1-2", "1-2-3", "1--2", "x-1"] {
            let read = wrong.parse::<Cursor>();
            assert!(read.is_err(), "{wrong}: {read:?}");
        }
    }

    #[test]
    fn a_key_is_kept_up_to_a_full_minute_and_to_the_end_of_that_minute_only() {
        let minute = Timestamp(1_700_000_040_000);
        let until = minute + KEY_RETENTION;
        assert_eq!(IdempotencyKey::kept_until(minute), until);
        let later = Timestamp(minute.0 + 1);
        let next = Timestamp(until.0 + MINUTE_MS);
        assert_eq!(IdempotencyKey::kept_until(later), next);
        let just_before = Timestamp(until.0 - 1);
        let outlives = |now| IdempotencyKey::outlives_job("k", minute, now);
        assert_eq!(outlives(just_before), Some(until));
        assert_eq!(outlives(until), None);
    }

    fn at(seq: u64) -> Cursor {
        let created_at = T0;
        Cursor { created_at, seq }
    }

    fn job() -> Job {
        let mut machine = Machine::default();
        machine.enqueue(T0, &sample::job(1)).unwrap().after.job
    }

    #[test]
    fn a_page_ends_when_it_is_full_and_the_next_begins_after_its_last() {
        let (mut page, filter) = (
            JobPage::default(),
            JobFilter {
                limit: 2,
                ..JobFilter::default()
            },
        );
        assert!(
            page.offer(&filter, at(9), Cow::Owned(job()))
                && page.offer(&filter, at(8), Cow::Owned(job()))
        );
        assert_eq!(page.next, None);
        assert!(!page.offer(&filter, at(7), Cow::Owned(job())));
        assert_eq!((page.jobs.len(), page.next), (2, Some(at(8))));
    }

    #[test]
    fn a_page_looks_at_so_many_jobs_however_few_it_wants() {
        let dead = JobFilter {
            dead: true,
            limit: 2,
            ..JobFilter::default()
        };
        let (mut page, job) = (JobPage::default(), job());
        for seq in 1..=10_000 {
            assert!(page.offer(&dead, at(seq), Cow::Borrowed(&job)), "{seq}");
        }
        assert!(!page.offer(&dead, at(10_001), Cow::Borrowed(&job)));
        assert_eq!((page.jobs.len(), page.next), (0, Some(at(10_000))));
    }

    #[test]
    fn a_search_has_the_job_of_its_first_moment_and_not_that_of_its_last() {
        let wants = |since: u64, until: u64| {
            let filter = JobFilter {
                since: Some(sample::at(since)),
                until: Some(sample::at(until)),
                ..JobFilter::default()
            };
            filter.wants(&Job {
                created_at: sample::at(5),
                ..job()
            })
        };
        assert!(wants(5, 6) && !wants(6, 7) && !wants(4, 5) && !wants(5, 5));
    }

    #[test]
    fn a_retry_of_a_job_has_a_name_of_its_own_that_nobody_can_send() {
        let (one, other) = (
            IdempotencyKey::retry(sample::id(1)),
            IdempotencyKey::retry(sample::id(2)),
        );
        assert_ne!(one.key, other.key);
        assert!(one.key.contains('\n'), "{:?}", one.key);
        assert!(one.check_same(&other.fingerprint).is_ok());
        assert!(one.check_same(&[1; 32]).is_err());
    }
}
