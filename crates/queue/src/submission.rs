use std::{fmt, str::FromStr};

use async_trait::async_trait;
use proto::{Account, JobId, JobState, ModelName, Op, Timestamp};

use crate::{Job, NewJob, NewWebhook, Owner, QueueError};

/// Most jobs that one page looks at, so that a search for what is rare keeps nobody waiting.
pub const LOOKED_AT_MAX: usize = 10_000;

/// How [`Once::retry`] begins; before the id in lower-case hexadecimal.
pub const RETRY: &str = "retry\n";

/// A requester's promise that one name always stands for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The name, unique within the account.
    pub key: String,
    /// A digest of the request it stands for.
    pub fingerprint: [u8; 32],
}

impl Once {
    /// Names the job that is made anew from one that failed, so that two who retry it at once, or
    /// one who retries it twice, get one job. No requester's own name holds a line feed.
    #[must_use]
    pub fn retry(of: JobId) -> Self {
        Self {
            key: format!("{RETRY}{of}"),
            fingerprint: [0; 32],
        }
    }

    /// Whether a request that came before under the same name is this one.
    ///
    /// # Errors
    /// [`QueueError::OtherRequest`] if it is not.
    pub fn is_same(&self, before: &[u8; 32]) -> Result<(), QueueError> {
        if self.fingerprint == *before {
            Ok(())
        } else {
            Err(QueueError::OtherRequest)
        }
    }
}

/// What is kept with a job beside its request, from the same moment on.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// A repeat under this name finds the job instead of making another.
    pub once: Option<Once>,
    /// Whom to tell when the job has ended.
    pub webhook: Option<NewWebhook>,
}

/// What a submission made, or found.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// A job, as it was accepted; without its body.
    New(Box<Job>),
    /// One was accepted before under the same name.
    Known(JobId),
}

impl Submitted {
    /// Which job it is.
    #[must_use]
    pub const fn id(&self) -> JobId {
        match self {
            Self::New(job) => job.new.id,
            Self::Known(id) => *id,
        }
    }
}

/// Which jobs are looked for. Without any wish: all of them.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<JobState>,
    /// For this model, see [`ModelName::is_same`].
    pub model: Option<ModelName>,
    /// Of this kind.
    pub op: Option<Op>,
    /// Accepted then or later.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// Only failed ones that nobody has tried again, see [`Once::retry`].
    pub dead: bool,
    /// Further back than this place.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

impl JobFilter {
    /// Whether a job is wanted, wherever it stands; that a dead one was not tried again is for the
    /// store to know.
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

/// A place among the jobs; later jobs do not move it. Written `time-number`, to be handed back
/// as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// When the job was accepted.
    pub created_at: Timestamp,
    /// Which of them it was.
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
        const SHAPE: &str = "a cursor is handed back as it came, for example `1700000000000-42`";
        let (created_at, seq) = text.split_once('-').ok_or(SHAPE)?;
        Ok(Self {
            created_at: Timestamp(created_at.parse().map_err(|_| SHAPE)?),
            seq: seq.parse().map_err(|_| SHAPE)?,
        })
    }
}

/// Some jobs, newest first, without their bodies.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// Those that were wanted. May be few, even none, while there is a `next`.
    pub jobs: Vec<Job>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
    looked_at: usize,
    last: Option<Cursor>,
}

impl JobPage {
    /// Looks at the next job in order; `false` once the page is done, and it is not on it.
    pub fn offer(&mut self, filter: &JobFilter, at: Cursor, job: impl FnOnce() -> Job) -> bool {
        if self.jobs.len() >= filter.limit || self.looked_at == LOOKED_AT_MAX {
            self.next = self.last;
            return false;
        }
        self.looked_at += 1;
        self.last = Some(at);
        let job = job();
        if filter.wants(&job) {
            self.jobs.push(job);
        }
        true
    }
}

/// Handing in jobs with more than the queue needs to know, and finding them again.
#[async_trait]
pub trait Submissions: fmt::Debug + Send + Sync {
    /// Accepts a job with its extras, or finds the one that was accepted before under the same
    /// name, however many ask at once. A name is free again when its job is erased.
    ///
    /// Nobody need look for what was accepted: that might fail, and whoever is told so would hand
    /// it in again.
    ///
    /// # Errors
    /// [`QueueError::OtherRequest`] if the name stands for another request, and those of
    /// [`crate::Queue::enqueue`].
    async fn submit(
        &self,
        now: Timestamp,
        job: NewJob,
        extras: Extras,
    ) -> Result<Submitted, QueueError>;

    /// The job that was accepted under this name, and the digest of its request.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn submitted(
        &self,
        account: &Account,
        key: &str,
    ) -> Result<Option<(JobId, [u8; 32])>, QueueError>;

    /// The owner's jobs, newest first.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn search(&self, owner: Owner<'_>, filter: &JobFilter) -> Result<JobPage, QueueError>;

    /// How many jobs failed that nobody has tried again, see [`JobFilter::dead`]; counted up to
    /// `at_most`.
    ///
    /// # Errors
    /// [`QueueError::Store`].
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
        assert!(page.offer(&filter, at(9), job) && page.offer(&filter, at(8), job));
        assert_eq!(page.next, None);
        assert!(!page.offer(&filter, at(7), job));
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
            assert!(page.offer(&dead, at(seq), || job.clone()), "{seq}");
        }
        assert!(!page.offer(&dead, at(10_001), || job.clone()));
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
        let (one, other) = (Once::retry(sample::id(1)), Once::retry(sample::id(2)));
        assert_ne!(one.key, other.key);
        assert!(one.key.contains('\n'), "{:?}", one.key);
        assert!(one.is_same(&other.fingerprint).is_ok());
        assert!(one.is_same(&[1; 32]).is_err());
    }
}
