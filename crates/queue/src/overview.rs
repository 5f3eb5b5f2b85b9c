//! The current state of a queue, for its operator. Holds no prompt and no answer.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use proto::{JobId, JobState, LeaseToken, Timestamp, WorkerId};
use tokio::sync::watch;

use crate::{
    Job, Minute, QueueCounts,
    history::History,
    machine::{Record, Step},
};

/// Maximum number of running jobs in an overview, oldest first.
pub const RUNNING_SHOWN_MAX: usize = 200;

/// Minimum time between the first and the last line for which a speed is computed.
const TELLING: Duration = Duration::from_millis(250);

/// The waiting and the running jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overview {
    /// Totals.
    pub counts: QueueCounts,
    /// Number of waiting jobs of each priority from 1 to 10, as submitted, without the rise by
    /// waiting.
    pub waiting: [usize; 10],
    /// The running jobs that began first, at most [`RUNNING_SHOWN_MAX`].
    pub running: Vec<Running>,
    /// Number of running jobs of each worker, all of them.
    pub running_by: BTreeMap<WorkerId, usize>,
}

/// A leased job.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// The job, without its body.
    pub job: Job,
    /// Worker that holds it; unknown for a lease from before a restart.
    pub holder: Option<Holder>,
    /// Number of lines of the answer: about one per token.
    pub lines: u64,
    /// Lines per second, once it can be computed.
    pub lines_per_second: Option<f64>,
}

/// The worker that holds a job, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// Time of the lease.
    pub since: Timestamp,
}

/// The data of the overview, updated with each decision.
#[derive(Debug, Default)]
pub(crate) struct OverviewState {
    waiting: [usize; 10],
    running: HashMap<JobId, Run>,
    history: History,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Run {
    attempt: u32,
    holder: Option<Holder>,
    flow: Option<LineRate>,
}

/// The times of the lines of one answer.
#[derive(Debug)]
struct LineRate {
    first: Timestamp,
    /// Number of lines at the time `first`.
    from: u64,
    last: Timestamp,
}

impl LineRate {
    fn per_second(&self, lines: u64) -> Option<f64> {
        let more = u32::try_from(lines.checked_sub(self.from)?).ok()?;
        let span = self.last.since(self.first);
        (more > 0 && span >= TELLING).then(|| f64::from(more) / span.as_secs_f64())
    }
}

impl OverviewState {
    /// Creates the data from the records of an earlier run.
    pub(crate) fn restored<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut overview_state = Self::default();
        for record in records {
            overview_state.enter(record);
        }
        overview_state
    }

    /// Records which worker a lease is for, before the lease is settled.
    pub(crate) fn lent(&mut self, now: Timestamp, token: LeaseToken, worker: &WorkerId) {
        let holder = Holder {
            worker: worker.clone(),
            since: now,
        };
        let run = Run {
            attempt: token.attempt,
            holder: Some(holder),
            flow: None,
        };
        self.running.insert(token.job, run);
    }

    /// Records that an answer has `lines` lines now.
    pub(crate) fn wrote(&mut self, now: Timestamp, id: JobId, lines: u64) {
        if let Some(run) = self.running.get_mut(&id) {
            let flow = run.flow.get_or_insert(LineRate {
                first: now,
                from: lines,
                last: now,
            });
            flow.last = now;
        }
        self.tell();
    }

    /// Applies a step of a job whose answer has `lines` lines.
    pub(crate) fn note(&mut self, step: &Step, lines: u64) {
        if let Some(before) = &step.before
            && before.job.state == JobState::Queued
        {
            let waiting = &mut self.waiting[rank(before)];
            *waiting = waiting.saturating_sub(1);
        }
        self.enter(&step.after);
        if step.after.job.state.is_final() {
            self.history.note(&step.after.job, lines);
        }
    }

    fn enter(&mut self, record: &Record) {
        let (id, attempt) = (record.job.new.id, record.job.attempt);
        match record.job.state {
            JobState::Queued => {
                self.waiting[rank(record)] += 1;
                self.running.remove(&id);
            }
            JobState::Leased => {
                let unknown = Run {
                    attempt,
                    holder: None,
                    flow: None,
                };
                let run = self.running.entry(id).or_insert(unknown);
                if run.attempt != attempt {
                    *run = Run {
                        attempt,
                        holder: None,
                        flow: None,
                    };
                }
            }
            JobState::Completed | JobState::Failed | JobState::Cancelled => {
                self.running.remove(&id);
            }
        }
    }

    /// Wakes subscribers; does nothing while there are none.
    pub(crate) fn tell(&self) {
        if !self.changes.is_closed() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        self.history.minutes(now)
    }

    /// Builds the overview. `find` returns the record of a job and its number of lines.
    pub(crate) fn overview<'a>(
        &self,
        counts: QueueCounts,
        find: impl Fn(JobId) -> Option<(&'a Record, u64)>,
    ) -> Overview {
        let mut running: Vec<(u64, Running)> = self
            .running
            .iter()
            .filter_map(|(id, run)| {
                let (record, lines) = find(*id)?;
                // A lease that could not be stored never happened.
                if record.job.state != JobState::Leased || record.job.attempt != run.attempt {
                    return None;
                }
                let flow = run.flow.as_ref();
                let told = Running {
                    job: record.job.clone(),
                    holder: run.holder.clone(),
                    lines,
                    lines_per_second: flow.and_then(|flow| flow.per_second(lines)),
                };
                Some((record.seq, told))
            })
            .collect();
        running.sort_by_key(|(seq, run)| (run.holder.as_ref().map(|holder| holder.since), *seq));
        let mut running_by = BTreeMap::new();
        for holder in running.iter().filter_map(|(_, run)| run.holder.as_ref()) {
            *running_by.entry(holder.worker.clone()).or_default() += 1;
        }
        running.truncate(RUNNING_SHOWN_MAX);
        Overview {
            counts,
            waiting: self.waiting,
            running: running.into_iter().map(|(_, run)| run).collect(),
            running_by,
        }
    }
}

/// Index of the counter. Urgent jobs, which need no slot, count with priority 1.
fn rank(record: &Record) -> usize {
    usize::from(record.job.new.priority.level().saturating_sub(1)).min(9)
}
