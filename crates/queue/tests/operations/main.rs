//! Compares the queue with a second, simple implementation of a job's life cycle, under random
//! operations at random times.
//!
//! `HEARTH_OPERATIONS=1000000` sets the number of operations; the gate uses fewer. `HEARTH_SEED`
//! repeats a run.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod dice;
mod job;
mod model;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use dice::Dice;
use hearth_queue::{Extended, MemoryQueue, Owner, Queue, QueueError, QueueLimits};
use job::{State, failed};
use model::{Answer, Model};
use proto::{End, ErrorCode, JobError, JobId, JobState, LeaseToken, Timestamp, worker::Retry};

const OPERATIONS: u64 = 20_000;

/// Small enough that random operations reach each of them.
fn limits() -> QueueLimits {
    QueueLimits {
        jobs_max: 12,
        bytes_max: 1_300,
        account_jobs_max: 6,
        account_bytes_max: 700,
        kept: Duration::from_secs(900),
        waits: Duration::from_secs(300),
        attempts_max: 3,
        ..QueueLimits::default()
    }
}

struct Pair {
    queue: MemoryQueue,
    model: Model,
    now: Timestamp,
    dice: Dice,
    last_id: u64,
    leases: Vec<LeaseToken>,
    /// How often each rule was met.
    met: BTreeMap<String, u64>,
}

impl Pair {
    /// Returns one of the latest ids, or one that never existed.
    fn id(&mut self) -> JobId {
        let back = self.dice.roll(30);
        JobId(u128::from(self.last_id.saturating_sub(back)).to_be_bytes())
    }

    /// Returns one of the latest leases.
    fn lease(&mut self) -> LeaseToken {
        let back = usize::try_from(self.dice.roll(12)).unwrap() + 1;
        let (job, attempt) = (self.id(), 1);
        let at = self.leases.len().checked_sub(back);
        at.map_or(LeaseToken { job, attempt }, |at| self.leases[at])
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
            74..83 => self.complete(now).await,
            83..91 => self.nack(now).await,
            91..95 => {
                let (account, id) = (self.dice.account(), self.id());
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
        assert_eq!(self.queue.counts(), self.model.counts(|_| true));
    }

    async fn enqueue(&mut self, now: Timestamp) {
        // Occasionally an id that was used before.
        let id = if self.dice.once_in(20) {
            self.id()
        } else {
            self.last_id += 1;
            JobId(u128::from(self.last_id).to_be_bytes())
        };
        let new = self.dice.job(id, now);
        let expected = self.model.enqueue(now, new.clone());
        self.meet(expected.as_ref().err().map_or("accepted", |why| why));
        assert_eq!(expected, plain(self.queue.enqueue(now, new).await));
    }

    async fn lend(&mut self, now: Timestamp) {
        let (query, max) = (self.dice.query(), self.dice.pick(&[1, 1, 3]));
        let length = Duration::from_secs(self.dice.roll(100) + 1);
        let got = self
            .queue
            .lease_many(now, &query, length, max)
            .await
            .unwrap();
        let got: Vec<_> = got.into_iter().map(|lease| lease.token).collect();
        let mut expected = Vec::new();
        for _ in 0..max {
            expected.extend(self.model.lease(now, &query, length));
        }
        assert_eq!(expected, got, "{query:?}");
        for token in got {
            let new = self.model.jobs[&token.job].new.clone();
            let (is_pinned, is_urgent) = (new.worker.is_some(), new.priority.is_urgent());
            for (is_met, what) in [(true, "lent"), (is_pinned, "pinned"), (is_urgent, "urgent")] {
                if is_met {
                    self.meet(what);
                }
            }
            self.leases.push(token);
        }
        if self.leases.len() > 1_000 {
            self.leases.drain(..900);
        }
    }

    async fn complete(&mut self, now: Timestamp) {
        let (token, lines) = (self.lease(), self.dice.roll(3));
        let end = match self.dice.roll(4) {
            0 => failed(ErrorCode::EngineFailed),
            1 => End::Cancelled,
            _ => End::Completed,
        };
        let got = plain(self.queue.complete(now, token, lines, end.clone()).await);
        assert_eq!(self.model.complete(now, token, lines, end), got);
    }

    async fn nack(&mut self, now: Timestamp) {
        let token = self.lease();
        let retry = match self.dice.roll(6) {
            0 => Retry::Never,
            1 => Retry::Now,
            // More than the queue allows.
            2 => Retry::AfterMs(400_000),
            _ => Retry::AfterMs(self.dice.roll(60_000)),
        };
        let why = JobError::new(ErrorCode::EngineFailed, "said the worker");
        let got = plain(self.queue.nack(now, token, retry, why).await);
        assert_eq!(self.model.nack(now, token, retry), got);
    }

    fn meet(&mut self, what: &str) {
        *self.met.entry(what.to_owned()).or_default() += 1;
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
                State::Waiting | State::Resting { .. } | State::Lent { .. } => None,
            };
            assert_eq!(job.end().as_ref().map(end_without_words), end, "{id}");
            if let Some(error) = job.error.filter(|_| plain.attempt > 0) {
                assert!(!error.message.contains("no worker took"), "{id}: {error:?}");
            }
            let log = self.queue.log(Owner::Anyone, *id).await.unwrap().unwrap();
            let head = log.head().borrow().clone();
            assert_eq!(head.last.n, plain.lines, "{id}");
        }
        let attended = self.queue.attended().await.unwrap().into_iter();
        let attended: Vec<_> = attended.map(|job| job.new.id).collect();
        assert_eq!(attended, self.model.attended());
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
    let mut pair = Pair {
        queue: MemoryQueue::new(limits()),
        model: Model::new(limits()),
        now: Timestamp(1_700_000_000_000),
        dice: Dice(seed),
        last_id: 100,
        leases: Vec::new(),
        met: BTreeMap::new(),
    };
    for n in 1..=operations {
        pair.step().await;
        if n % 1_000 == 0 || n == operations {
            pair.compare().await;
        }
    }
    let met = &pair.met;
    println!("{operations} random operations, 0 differences; {met:?}");
    for what in [
        "accepted",
        "account_full",
        "queue_full",
        "lent",
        "pinned",
        "urgent",
    ] {
        let often = met
            .get(what)
            .is_some_and(|count| *count >= operations / 1_000);
        assert!(often, "{what} is too rare: {met:?}");
    }
}
