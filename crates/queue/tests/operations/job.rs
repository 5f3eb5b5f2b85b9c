//! A job in plain rules.

use std::time::Duration;

use hearth_queue::{LeaseQuery, Models, NewJob, QueueLimits};
use proto::{End, ErrorCode, JobError, JobState, ModelName, Timestamp, limits::RETRY_MAX};

/// A job.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) new: NewJob,
    /// Age: a younger job has a higher number.
    pub(crate) seq: u64,
    pub(crate) created: Timestamp,
    pub(crate) state: State,
    /// Number of leases.
    pub(crate) attempt: u32,
    /// Number of leases that count against the limit.
    pub(crate) tries: u32,
    /// Whether the requester cancelled it while it was lent.
    pub(crate) cancelled: bool,
    /// Number of lines of the last attempt.
    pub(crate) lines: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Waiting,
    Resting { until: Timestamp },
    Lent { until: Timestamp, length: Duration },
    Ended { at: Timestamp, end: End },
}

impl Plain {
    pub(crate) const fn new(seq: u64, created: Timestamp, new: NewJob) -> Self {
        Self {
            new,
            seq,
            created,
            state: State::Waiting,
            attempt: 0,
            tries: 0,
            cancelled: false,
            lines: 0,
        }
    }

    pub(crate) const fn state(&self) -> JobState {
        match &self.state {
            State::Waiting | State::Resting { .. } => JobState::Queued,
            State::Lent { .. } => JobState::Leased,
            State::Ended { end, .. } => match end {
                End::Completed => JobState::Completed,
                End::Failed { .. } => JobState::Failed,
                End::Cancelled => JobState::Cancelled,
            },
        }
    }

    pub(crate) fn end(&mut self, at: Timestamp, end: End) {
        self.state = State::Ended { at, end };
    }

    /// A given-back job rests for a while, at most for so long.
    pub(crate) fn rest(&mut self, now: Timestamp, length: Duration) {
        let until = now + length.min(RETRY_MAX);
        self.state = if until > now {
            State::Resting { until }
        } else {
            State::Waiting
        };
    }

    /// A job waits until its deadline. One that names none waits for so long, or twice as long if
    /// a worker took it.
    fn waits_until(&self, waits: Duration) -> Timestamp {
        let usual = waits * if self.attempt > 0 { 2 } else { 1 };
        self.new.deadline.unwrap_or(self.created + usual)
    }

    /// A lent job runs until its lease is over, or its deadline unless it is cancelled.
    fn runs_until(&self, lease: Timestamp) -> Timestamp {
        let deadline = self.new.deadline.filter(|_| !self.cancelled);
        deadline.map_or(lease, |deadline| deadline.min(lease))
    }

    /// The next time at which time alone changes this job.
    pub(crate) fn due(&self, waits: Duration) -> Option<Timestamp> {
        match self.state {
            State::Waiting => Some(self.waits_until(waits)),
            State::Resting { until } => Some(self.waits_until(waits).min(until)),
            State::Lent { until, .. } => Some(self.runs_until(until)),
            State::Ended { .. } => None,
        }
    }

    /// Applies what is due at `now`.
    pub(crate) fn pass(&mut self, now: Timestamp, limits: &QueueLimits) {
        let late = failed(ErrorCode::DeadlineExceeded);
        match self.state {
            State::Waiting | State::Resting { .. } if self.waits_until(limits.waits) <= now => {
                self.end(now, late);
            }
            State::Resting { .. } => self.state = State::Waiting,
            State::Lent { .. }
                if !self.cancelled && self.new.deadline.is_some_and(|at| at <= now) =>
            {
                self.end(now, late);
            }
            State::Lent { .. } => {
                self.tries += 1;
                if self.cancelled {
                    self.end(now, End::Cancelled);
                } else if self.tries >= limits.attempts_max {
                    self.end(now, failed(ErrorCode::TooManyAttempts));
                } else {
                    self.state = State::Waiting;
                }
            }
            State::Waiting | State::Ended { .. } => {}
        }
    }

    /// Urgent jobs have level 0. Waiting raises all others, by a level a minute, up to 1.
    pub(crate) fn level(&self, now: Timestamp) -> u64 {
        let minutes = now.since(self.created).as_secs() / 60;
        let level = u64::from(self.new.priority.level());
        if level == 0 {
            0
        } else {
            level.saturating_sub(minutes).max(1)
        }
    }

    /// A worker gets jobs of accounts that it serves, for models that it has. A job that names a
    /// worker is for no other. A worker without a free slot gets urgent jobs only. If it leaves a
    /// model to others, it gets only those of its jobs that name this worker. No request is longer
    /// than it has room for.
    pub(crate) fn suits(&self, query: &LeaseQuery) -> bool {
        let new = &self.new;
        let is_mine = new.worker.as_ref() == Some(&query.worker);
        let is_left = query.excluded_models.contains(&new.model.canonical()) && !is_mine;
        let has = |models: &[ModelName]| models.iter().any(|model| model.is_same(&new.model));
        let runs = match &query.models {
            Models::Only(models) => has(models) && !is_left,
            Models::OnlyUrgent(models) => has(models) && !is_left && new.priority.is_urgent(),
            Models::Any => true,
            Models::AnyBut(_) | Models::AnyForQueries => unreachable!("no query draws these"),
        };
        let is_named = new.worker.is_some();
        self.state == State::Waiting
            && query.serve.includes(&new.account)
            && (is_mine || !is_named)
            && runs
            && new.body.0.len() <= query.request_max
    }
}

/// Only the code is compared; the message is chosen by the queue.
pub(crate) fn failed(code: ErrorCode) -> End {
    let error = JobError::new(code, "said the worker");
    End::Failed { error }
}
