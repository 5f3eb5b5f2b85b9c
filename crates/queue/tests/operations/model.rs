//! The queue in plain rules: slow, simple, and without a line of the queue's own code.

use std::{collections::BTreeMap, time::Duration};

use hearth_queue::{LeaseQuery, NewJob, QueueCounts, QueueLimits};
use proto::{
    Account, End, ErrorCode, JobId, LeaseToken, Timestamp, limits::RESTART_GRACE, worker::Retry,
};

use crate::job::{Plain, State, failed};

/// The result of an operation, or the code of its refusal.
pub(crate) type Answer<T> = Result<T, String>;

pub(crate) struct Model {
    pub(crate) jobs: BTreeMap<JobId, Plain>,
    limits: QueueLimits,
    last_seq: u64,
    /// The accounts with waiting jobs; the first is next.
    line: Vec<Account>,
}

impl Model {
    pub(crate) const fn new(limits: QueueLimits) -> Self {
        Self {
            jobs: BTreeMap::new(),
            limits,
            last_seq: 0,
            line: Vec::new(),
        }
    }

    /// An account has its limits, and the queue as a whole has others.
    pub(crate) fn enqueue(&mut self, now: Timestamp, new: NewJob) -> Answer<()> {
        let (limits, bytes) = (self.limits, new.body.0.len());
        let own = self.counts(|job| job.new.account == new.account);
        if own.queued >= limits.account_jobs_max
            || own.queued_bytes + bytes > limits.account_bytes_max
        {
            return Err("account_full".into());
        }
        let all = self.counts(|_| true);
        if all.queued >= limits.jobs_max || all.queued_bytes + bytes > limits.bytes_max {
            return Err("queue_full".into());
        }
        if self.jobs.contains_key(&new.id) {
            return Err("exists".into());
        }
        self.last_seq += 1;
        self.jobs
            .insert(new.id, Plain::new(self.last_seq, now, new));
        self.line_up();
        Ok(())
    }

    pub(crate) fn counts(&self, counted: impl Fn(&Plain) -> bool) -> QueueCounts {
        let mut counts = QueueCounts::default();
        for job in self.jobs.values().filter(|job| counted(job)) {
            match job.state {
                State::Waiting | State::Resting { .. } => {
                    counts.queued += 1;
                    counts.queued_bytes += job.new.body.0.len();
                    counts.by_priority[usize::from(job.new.priority.level())] += 1;
                }
                State::Lent { .. } => counts.leased += 1,
                State::Ended { .. } => {}
            }
        }
        counts
    }

    /// The unfinished jobs whose requester waits, oldest first.
    pub(crate) fn attended(&self) -> Vec<JobId> {
        let is_open = |job: &&Plain| job.new.attended && !job.state().is_final();
        let mut jobs: Vec<_> = self.jobs.values().filter(is_open).collect();
        jobs.sort_by_key(|job| job.seq);
        jobs.into_iter().map(|job| job.new.id).collect()
    }

    /// Accounts come to the end of the line with their first waiting job and leave it with their
    /// last. Of those that come at once, the one with the oldest job is first.
    fn line_up(&mut self) {
        let jobs = self.jobs.values().filter(|job| job.state == State::Waiting);
        let mut waiting: Vec<_> = jobs.map(|job| (job.seq, &job.new.account)).collect();
        waiting.sort_unstable();
        self.line
            .retain(|account| waiting.iter().any(|(_, waits)| *waits == account));
        for (_, account) in waiting {
            if !self.line.contains(account) {
                self.line.push(account.clone());
            }
        }
    }

    /// What is due happens in the order of its times; of one time, in the order of ids.
    fn pass(&mut self, now: Timestamp) {
        let limits = self.limits;
        loop {
            let due = self
                .jobs
                .iter()
                .filter_map(|(id, job)| Some((job.due(limits.waits)?, *id)));
            let Some((_, id)) = due.min().filter(|(at, _)| *at <= now) else {
                return;
            };
            self.jobs.entry(id).and_modify(|job| job.pass(now, &limits));
            self.line_up();
        }
    }

    pub(crate) fn reap(&mut self, now: Timestamp) {
        self.pass(now);
        let kept = self.limits.kept;
        self.jobs.retain(|_, job| match job.state {
            State::Ended { at, .. } => at + kept > now,
            State::Waiting | State::Resting { .. } | State::Lent { .. } => true,
        });
    }

    /// Leases the best job: by level, then by the turn of its account, then by age. Who was served
    /// goes to the end of the line.
    pub(crate) fn lease(
        &mut self,
        now: Timestamp,
        query: &LeaseQuery,
        length: Duration,
    ) -> Option<LeaseToken> {
        self.pass(now);
        let turn = |job: &Plain| self.line.iter().position(|next| *next == job.new.account);
        let found = self.jobs.values_mut().filter(|job| job.suits(query));
        let job = found.min_by_key(|job| (job.level(now), turn(job), job.seq))?;
        job.attempt += 1;
        job.lines = 0;
        let until = now + length;
        job.state = State::Lent { until, length };
        let (job, attempt) = (job.new.id, job.attempt);
        let served = self.jobs[&job].new.account.clone();
        self.line.retain(|account| *account != served);
        self.line_up();
        Some(LeaseToken { job, attempt })
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

    pub(crate) fn extend(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        length: Duration,
    ) -> Answer<bool> {
        let job = self.held(token)?;
        if let State::Lent { until, .. } = &mut job.state {
            *until = now + length;
        }
        Ok(job.cancelled)
    }

    pub(crate) fn append(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        first: u64,
        count: u64,
    ) -> Answer<()> {
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

    pub(crate) fn complete(
        &mut self,
        now: Timestamp,
        token: LeaseToken,
        lines: u64,
        end: End,
    ) -> Answer<()> {
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

    pub(crate) fn nack(&mut self, now: Timestamp, token: LeaseToken, retry: Retry) -> Answer<()> {
        let attempts_max = self.limits.attempts_max;
        let job = self.held(token)?;
        match retry {
            _ if job.cancelled => job.end(now, End::Cancelled),
            Retry::Now => job.state = State::Waiting,
            Retry::Never => job.end(now, failed(ErrorCode::EngineFailed)),
            Retry::AfterMs(ms) => {
                job.tries += 1;
                if job.tries >= attempts_max {
                    job.end(now, failed(ErrorCode::EngineFailed));
                } else {
                    job.rest(now, Duration::from_millis(ms));
                }
            }
        }
        self.line_up();
        Ok(())
    }

    pub(crate) fn cancel(&mut self, now: Timestamp, account: &Account, id: JobId) -> Answer<()> {
        let job = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.new.account == *account);
        let job = job.ok_or("unknown_job")?;
        match job.state {
            State::Waiting | State::Resting { .. } => job.end(now, End::Cancelled),
            State::Lent { .. } => job.cancelled = true,
            State::Ended { .. } => return Err("job_ended".into()),
        }
        self.line_up();
        Ok(())
    }

    /// A restart gives every lease some grace, and the line forms anew.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        for job in self.jobs.values_mut() {
            match &mut job.state {
                State::Lent { until, length } => {
                    *until = (*until).clamp(now, now + *length) + RESTART_GRACE;
                }
                State::Resting { until } if *until <= now => job.state = State::Waiting,
                State::Waiting | State::Resting { .. } | State::Ended { .. } => {}
            }
        }
        self.line.clear();
        self.line_up();
    }
}
