//! What a queue is doing at a moment, for its operator. Never holds a prompt or an answer.

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

/// Most running jobs that are told, oldest first.
pub const RUNNING_TOLD_MAX: usize = 200;

/// Lines that came within less say nothing of how fast they come.
const TELLING: Duration = Duration::from_millis(250);

/// What waits and what runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overview {
    /// How much.
    pub counts: QueueCounts,
    /// How many jobs wait with each priority, from 1 to 10, whatever they rose to meanwhile.
    pub waiting: [usize; 10],
    /// The running jobs that began first, at most [`RUNNING_TOLD_MAX`].
    pub running: Vec<Running>,
    /// How many jobs each worker runs, by its name; all of them.
    pub running_by: BTreeMap<WorkerId, usize>,
}

/// A job that is leased.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// The job, without its body.
    pub job: Job,
    /// Who holds it; not known of a lease from before a restart.
    pub holder: Option<Holder>,
    /// How many lines of the answer there are: about one for each token.
    pub lines: u64,
    /// How fast they came, once that can be told.
    pub lines_per_second: Option<f64>,
}

/// Who was lent a job, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// The moment of the loan.
    pub since: Timestamp,
}

/// What the overview is made of, kept up to date as things are decided.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    waiting: [usize; 10],
    running: HashMap<JobId, Run>,
    history: History,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Run {
    attempt: u32,
    holder: Option<Holder>,
    flow: Option<Flow>,
}

/// How lines came.
#[derive(Debug)]
struct Flow {
    first: Timestamp,
    /// How many there were then.
    from: u64,
    last: Timestamp,
}

impl Flow {
    fn per_second(&self, lines: u64) -> Option<f64> {
        let more = u32::try_from(lines.checked_sub(self.from)?).ok()?;
        let span = self.last.since(self.first);
        (more > 0 && span >= TELLING).then(|| f64::from(more) / span.as_secs_f64())
    }
}

impl Scene {
    /// Takes up what an earlier run left behind.
    pub(crate) fn restored<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut scene = Self::default();
        for record in records {
            scene.enter(record);
        }
        scene
    }

    /// A worker is about to be lent a job.
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

    /// There are so many lines of an answer now.
    pub(crate) fn wrote(&mut self, now: Timestamp, id: JobId, lines: u64) {
        if let Some(run) = self.running.get_mut(&id) {
            let flow = run.flow.get_or_insert(Flow {
                first: now,
                from: lines,
                last: now,
            });
            flow.last = now;
        }
        self.tell();
    }

    /// Something was decided about a job, of whose answer there are so many lines.
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

    /// Wakes whoever watches; costs nothing while nobody does.
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

    /// `find` gives the record of a job and how many lines it has.
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
                // What could not be stored was never lent.
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
        running.truncate(RUNNING_TOLD_MAX);
        Overview {
            counts,
            waiting: self.waiting,
            running: running.into_iter().map(|(_, run)| run).collect(),
            running_by,
        }
    }
}

/// What waits for no slot counts as the most urgent.
fn rank(record: &Record) -> usize {
    usize::from(record.job.new.priority.level().saturating_sub(1)).min(9)
}
