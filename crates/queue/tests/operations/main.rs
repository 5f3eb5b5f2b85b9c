//! Compares the queue with a second, simple implementation of a job's life cycle, under random
//! operations at random times.
//!
//! `HEARTH_OPERATIONS=1000000` sets the number of operations; the gate uses fewer. `HEARTH_SEED`
//! repeats a run.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use hearth_queue::{
    Extended, LeaseQuery, MemoryQueue, Models, NewJob, Owner, Queue, QueueError, QueueLimits, Serve,
};
use proto::{
    Account, Dialect, End, ErrorCode, JobError, JobId, JobState, LeaseToken, ModelName, Op,
    Priority, Timestamp, WorkerId,
    limits::{ATTEMPTS_MAX, RESTART_GRACE},
    worker::Retry,
};

const OPERATIONS: u64 = 20_000;
const KEPT: Duration = Duration::from_secs(3_600);
const WAITS: Duration = Duration::from_secs(300);

/// Reproducible pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

#[derive(Debug, Clone)]
struct Plain {
    seq: u64,
    account: Account,
    priority: u8,
    created: Timestamp,
    deadline: Option<Timestamp>,
    state: State,
    attempt: u32,
    tries: u32,
    cancelled: bool,
    lines: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Waiting { from: Timestamp },
    Lent { until: Timestamp, length: Duration },
    Ended { at: Timestamp, end: End },
}

impl Plain {
    fn end(&mut self, at: Timestamp, end: End) {
        self.state = State::Ended { at, end };
    }

    fn wait(&mut self, from: Timestamp) {
        self.state = State::Waiting { from };
    }

    /// Applies what is due at `now`.
    fn pass(&mut self, now: Timestamp) {
        let is_late = self.deadline.is_some_and(|at| at <= now) && !self.cancelled;
        match self.state {
            State::Waiting { .. } | State::Lent { .. } if is_late => {
                self.end(now, failed(ErrorCode::DeadlineExceeded));
            }
            State::Waiting { .. } if self.has_waited_enough(now) => {
                self.end(now, failed(ErrorCode::DeadlineExceeded));
            }
            State::Lent { until, .. } if until <= now => {
                self.tries += 1;
                if self.cancelled {
                    self.end(now, End::Cancelled);
                } else if self.tries >= ATTEMPTS_MAX {
                    self.end(now, failed(ErrorCode::TooManyAttempts));
                } else {
                    self.wait(now);
                    // Its worker may have kept it beyond its maximum waiting time.
                    self.pass(now);
                }
            }
            State::Waiting { .. } | State::Lent { .. } | State::Ended { .. } => {}
        }
    }

    /// A job that names no deadline is given up 300 s after it was made if no worker took it, and
    /// 600 s after it was made if one did.
    fn has_waited_enough(&self, now: Timestamp) -> bool {
        let waited = now.since(self.created);
        let was_taken = self.attempt > 0;
        self.deadline.is_none() && waited >= if was_taken { 2 * WAITS } else { WAITS }
    }

    fn level(&self, now: Timestamp) -> u64 {
        let minutes = now.since(self.created).as_secs() / 60;
        u64::from(self.priority).saturating_sub(minutes).max(1)
    }

    const fn state(&self) -> JobState {
        match &self.state {
            State::Waiting { .. } => JobState::Queued,
            State::Lent { .. } => JobState::Leased,
            State::Ended { end, .. } => match end {
                End::Completed => JobState::Completed,
                End::Failed { .. } => JobState::Failed,
                End::Cancelled => JobState::Cancelled,
            },
        }
    }
}

/// Only the code is compared; the message is chosen by the queue.
fn failed(code: ErrorCode) -> End {
    End::Failed {
        error: JobError::new(code, "said the worker"),
    }
}

#[derive(Default)]
struct Model {
    jobs: BTreeMap<JobId, Plain>,
    last_seq: u64,
}

type Answer<T> = Result<T, String>;

impl Model {
    fn enqueue(&mut self, now: Timestamp, new: &NewJob) -> Answer<()> {
        if self.jobs.contains_key(&new.id) {
            return Err("exists".into());
        }
        self.last_seq += 1;
        let job = Plain {
            seq: self.last_seq,
            account: new.account.clone(),
            priority: new.priority.level(),
            created: now,
            deadline: new.deadline,
            state: State::Waiting { from: now },
            attempt: 0,
            tries: 0,
            cancelled: false,
            lines: 0,
        };
        self.jobs.insert(new.id, job);
        Ok(())
    }

    fn pass(&mut self, now: Timestamp) {
        self.jobs.values_mut().for_each(|job| job.pass(now));
    }

    fn reap(&mut self, now: Timestamp) {
        self.pass(now);
        self.jobs.retain(|_, job| match job.state {
            State::Ended { at, .. } => at + KEPT > now,
            State::Waiting { .. } | State::Lent { .. } => true,
        });
    }

    /// Leases the best job of one account: by priority, then age.
    fn lease(&mut self, now: Timestamp, account: &Account, length: Duration) -> Option<LeaseToken> {
        self.pass(now);
        let is_there = |job: &Plain| match job.state {
            State::Waiting { from } => from <= now && job.account == *account,
            State::Lent { .. } | State::Ended { .. } => false,
        };
        let waiting = self.jobs.iter_mut().filter(|(_, job)| is_there(job));
        let (id, job) = waiting.min_by_key(|(_, job)| (job.level(now), job.seq))?;
        job.attempt += 1;
        job.lines = 0;
        job.state = State::Lent {
            until: now + length,
            length,
        };
        Some(LeaseToken {
            job: *id,
            attempt: job.attempt,
        })
    }

    fn held(&mut self, token: LeaseToken) -> Answer<&mut Plain> {
        let job = self.jobs.get_mut(&token.job).ok_or("unknown_job")?;
        let is_lent = matches!(job.state, State::Lent { .. });
        if is_lent && job.attempt == token.attempt {
            Ok(job)
        } else {
            Err("stale_lease".into())
        }
    }

    fn extend(&mut self, now: Timestamp, token: LeaseToken, length: Duration) -> Answer<bool> {
        let job = self.held(token)?;
        if let State::Lent { until, .. } = &mut job.state {
            *until = now + length;
        }
        Ok(job.cancelled)
    }

    fn append(&mut self, now: Timestamp, token: LeaseToken, first: u64, count: u64) -> Answer<()> {
        let job = self.held(token)?;
        if first == 0 || first > job.lines + 1 {
            return Err("chunk_gap".into());
        }
        job.lines = job.lines.max(first + count - 1);
        if let State::Lent { until, length } = &mut job.state {
            *until = (*until).max(now + *length);
        }
        Ok(())
    }

    fn complete(&mut self, now: Timestamp, token: LeaseToken, lines: u64, end: End) -> Answer<()> {
        if let Some(job) = self.jobs.get(&token.job)
            && let State::Ended { end: had, .. } = &job.state
        {
            let is_same = *had == end || *had == End::Cancelled;
            return if is_same && job.attempt == token.attempt {
                Ok(())
            } else {
                Err("stale_lease".into())
            };
        }
        let job = self.held(token)?;
        if lines > job.lines {
            return Err("chunk_gap".into());
        }
        let end = if job.cancelled { End::Cancelled } else { end };
        job.end(now, end);
        Ok(())
    }

    fn nack(&mut self, now: Timestamp, token: LeaseToken, retry: Retry) -> Answer<()> {
        let job = self.held(token)?;
        match retry {
            _ if job.cancelled => job.end(now, End::Cancelled),
            Retry::Now => job.wait(now),
            Retry::Never => job.end(now, failed(ErrorCode::EngineFailed)),
            Retry::AfterMs(ms) => {
                job.tries += 1;
                if job.tries >= ATTEMPTS_MAX {
                    job.end(now, failed(ErrorCode::EngineFailed));
                } else {
                    job.wait(now + Duration::from_millis(ms));
                }
            }
        }
        Ok(())
    }

    fn cancel(&mut self, now: Timestamp, account: &Account, id: JobId) -> Answer<()> {
        let job = self.jobs.get_mut(&id).filter(|job| job.account == *account);
        let job = job.ok_or("unknown_job")?;
        match job.state {
            State::Waiting { .. } => job.end(now, End::Cancelled),
            State::Lent { .. } => job.cancelled = true,
            State::Ended { .. } => return Err("job_ended".into()),
        }
        Ok(())
    }

    fn restart(&mut self, now: Timestamp) {
        for job in self.jobs.values_mut() {
            if let State::Lent { until, length } = &mut job.state {
                *until = (*until).clamp(now, now + *length) + RESTART_GRACE;
            }
        }
    }
}

fn plain<T>(answer: Result<T, QueueError>) -> Answer<T> {
    answer.map_err(|error| {
        if matches!(error, QueueError::Exists(_)) {
            "exists".into()
        } else {
            error.code().to_string()
        }
    })
}

fn end_without_words(end: &End) -> (JobState, Option<ErrorCode>) {
    match end {
        End::Completed => (JobState::Completed, None),
        End::Failed { error } => (JobState::Failed, Some(error.code)),
        End::Cancelled => (JobState::Cancelled, None),
    }
}

struct Pair {
    queue: MemoryQueue,
    model: Model,
    now: Timestamp,
    dice: Dice,
    last_id: u64,
    leases: Vec<LeaseToken>,
}

impl Pair {
    fn account(&mut self) -> Account {
        let name = ["a", "b", "c"][usize::try_from(self.dice.roll(3)).unwrap()];
        Account::new(name).unwrap()
    }

    /// Returns one of the latest ids, or one that never existed.
    fn id(&mut self) -> JobId {
        let back = self.dice.roll(30);
        JobId(u128::from(self.last_id.saturating_sub(back)).to_be_bytes())
    }

    fn lease(&mut self) -> LeaseToken {
        let back = usize::try_from(self.dice.roll(12)).unwrap() + 1;
        let any = LeaseToken {
            job: self.id(),
            attempt: 1,
        };
        let at = self.leases.len().checked_sub(back);
        at.map_or(any, |at| self.leases[at])
    }

    async fn step(&mut self) {
        let Self { now, .. } = *self;
        match self.dice.roll(100) {
            0..15 => self.now = now + Duration::from_secs(self.dice.roll(40)),
            15..35 => self.enqueue(now).await,
            35..57 => self.lend(now).await,
            57..62 => {
                let (token, length) = (self.lease(), Duration::from_secs(self.dice.roll(90)));
                let got = plain(self.queue.extend(now, token, length).await);
                let got = got.map(|leased| leased == Extended::Cancelled);
                assert_eq!(self.model.extend(now, token, length), got);
            }
            62..74 => {
                let (token, first, count) =
                    (self.lease(), self.dice.roll(4), self.dice.roll(3) + 1);
                let lines = (0..count).map(|_| Bytes::from_static(b"{}")).collect();
                let got = plain(self.queue.append(now, token, first, lines).await);
                let expected = self.model.append(now, token, first, count);
                assert_eq!(expected, got.map(drop));
            }
            74..83 => {
                let (token, lines) = (self.lease(), self.dice.roll(3));
                let end = match self.dice.roll(4) {
                    0 => failed(ErrorCode::EngineFailed),
                    1 => End::Cancelled,
                    _ => End::Completed,
                };
                let got = plain(self.queue.complete(now, token, lines, end.clone()).await);
                assert_eq!(self.model.complete(now, token, lines, end), got);
            }
            83..91 => {
                let token = self.lease();
                let retry = match self.dice.roll(5) {
                    0 => Retry::Never,
                    1 => Retry::Now,
                    _ => Retry::AfterMs(self.dice.roll(60_000)),
                };
                let why = JobError::new(ErrorCode::EngineFailed, "said the worker");
                let got = plain(self.queue.nack(now, token, retry, why).await);
                assert_eq!(self.model.nack(now, token, retry), got);
            }
            91..95 => {
                let (account, id) = (self.account(), self.id());
                let owner = Owner::Account(&account);
                let got = plain(self.queue.cancel(now, owner, id).await);
                assert_eq!(self.model.cancel(now, &account, id), got);
            }
            95..99 => {
                self.queue.reap(now).await.unwrap();
                self.model.reap(now);
            }
            _ => {
                self.queue.restart(now);
                self.model.restart(now);
            }
        }
        let counts = self.queue.counts();
        let count = |state| {
            let jobs = self.model.jobs.values();
            jobs.filter(|job| job.state() == state).count()
        };
        assert_eq!(counts.queued, count(JobState::Queued));
        assert_eq!(counts.leased, count(JobState::Leased));
    }

    async fn enqueue(&mut self, now: Timestamp) {
        // Occasionally an id that was used before.
        let id = if self.dice.roll(20) == 0 {
            self.id()
        } else {
            self.last_id += 1;
            JobId(u128::from(self.last_id).to_be_bytes())
        };
        let wanted = self.dice.roll(400);
        let level = u8::try_from(self.dice.roll(10) + 1).unwrap();
        let new = NewJob {
            id,
            account: self.account(),
            who: "w".into(),
            op: Op::Chat,
            model: ModelName::new("m").unwrap(),
            priority: Priority::new(level).unwrap(),
            body: Bytes::from_static(b"{}").into(),
            dialect: Dialect::Native,
            // Most have a deadline, so that few jobs accumulate.
            deadline: (wanted > 40).then(|| now + Duration::from_secs(wanted)),
            attended: false,
            worker: None,
        };
        let expected = self.model.enqueue(now, &new);
        assert_eq!(expected, plain(self.queue.enqueue(now, new).await));
    }

    async fn lend(&mut self, now: Timestamp) {
        let account = self.account();
        let length = Duration::from_secs(self.dice.roll(100) + 1);
        let query = LeaseQuery {
            worker: WorkerId::new("w").unwrap(),
            serve: Serve::Accounts([account.clone()].into()),
            models: Models::Any,
            allowed_models: <_>::default(),
            excluded_models: <_>::default(),
            accepts_model_changes: false,
        };
        let got = self.queue.lease(now, &query, length).await.unwrap();
        let got = got.map(|lease| lease.token);
        assert_eq!(self.model.lease(now, &account, length), got);
        self.leases.extend(got);
        if self.leases.len() > 1_000 {
            self.leases.drain(..900);
        }
    }

    /// Compares everything that is visible of every job.
    async fn compare(&self) {
        let mut found = self.queue.list(Owner::Anyone, usize::MAX).await.unwrap();
        found.sort_by_key(|job| job.new.id);
        assert_eq!(found.len(), self.model.jobs.len());
        for (job, (id, plain)) in found.into_iter().zip(&self.model.jobs) {
            assert_eq!((job.new.id, job.state), (*id, plain.state()));
            assert_eq!(job.attempt, plain.attempt, "{id}");
            let end = match &plain.state {
                State::Ended { end, .. } => Some(end_without_words(end)),
                State::Waiting { .. } | State::Lent { .. } => None,
            };
            assert_eq!(job.end().as_ref().map(end_without_words), end, "{id}");
            if let Some(error) = job.error.filter(|_| plain.attempt > 0) {
                assert!(!error.message.contains("no worker took"), "{id}: {error:?}");
            }
            let log = self.queue.log(Owner::Anyone, *id).await.unwrap().unwrap();
            let head = log.head().borrow().clone();
            assert_eq!(head.last.n, plain.lines, "{id}");
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(otherwise, |said| said.parse().unwrap())
}

#[tokio::test]
async fn the_queue_does_what_the_plain_words_say() {
    let (operations, seed) = (
        number("HEARTH_OPERATIONS", OPERATIONS),
        number("HEARTH_SEED", 0x9E37_79B9_7F4A_7C15),
    );
    let limits = QueueLimits {
        kept: KEPT,
        waits: WAITS,
        ..QueueLimits::default()
    };
    let mut pair = Pair {
        queue: MemoryQueue::new(limits),
        model: Model::default(),
        now: Timestamp(1_700_000_000_000),
        dice: Dice(seed),
        last_id: 100,
        leases: Vec::new(),
    };
    for n in 1..=operations {
        pair.step().await;
        if n % 1_000 == 0 || n == operations {
            pair.compare().await;
        }
    }
    println!("{operations} random operations, 0 differences");
}
