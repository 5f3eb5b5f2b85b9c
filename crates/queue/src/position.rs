//! The position of a job in the queue, and an estimate of its waiting time.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use proto::{Account, JobId, JobState, ModelName, Timestamp};

use crate::{Models, Serve, machine::Step};

/// Number of finished jobs that are kept.
const KEPT: usize = 512;
/// Number of finished jobs that one estimate uses.
const USED: usize = 32;
/// Age beyond which a finished job is not used for estimates.
const RECENT: Duration = Duration::from_secs(60 * 60);

/// Queue position of a waiting job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePosition {
    /// Number of jobs that will be leased before it, if nothing else arrives.
    pub before: usize,
    /// Estimated waiting time, if any job has finished recently.
    pub wait: Option<Duration>,
}

/// The most recently finished jobs, from which waiting times are estimated.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    began: HashMap<JobId, Timestamp>,
    finished: VecDeque<Finished>,
}

#[derive(Debug)]
struct Finished {
    account: Account,
    model: String,
    began: Timestamp,
    ended: Timestamp,
}

impl Throughput {
    /// Applies a step of a job.
    pub(crate) fn note(&mut self, now: Timestamp, step: &Step) {
        let (id, job) = (step.id(), &step.after.job);
        match job.state {
            // Urgent jobs take no slot, so they say nothing about how long slots are busy.
            JobState::Leased if step.is_lent() && !job.new.priority.is_urgent() => {
                self.began.insert(id, now);
            }
            JobState::Leased => {}
            JobState::Queued => {
                self.began.remove(&id);
            }
            JobState::Completed | JobState::Failed | JobState::Cancelled => {
                let Some(began) = self.began.remove(&id) else {
                    return;
                };
                self.finished.truncate(KEPT - 1);
                self.finished.push_front(Finished {
                    account: job.new.account.clone(),
                    model: job.new.model.canonical(),
                    began,
                    ended: job.finished_at.unwrap_or(now),
                });
            }
        }
    }

    /// Estimated time until `before` jobs for these workers and one more are finished.
    pub(crate) fn expected(
        &self,
        now: Timestamp,
        before: usize,
        serve: &Serve,
        models: &Models,
    ) -> Option<Duration> {
        let models: Option<Vec<String>> = match models {
            Models::Any | Models::AnyBut(_) | Models::AnyForQueries => None,
            Models::Only(models) | Models::OnlyUrgent(models) => {
                Some(models.iter().map(ModelName::canonical).collect())
            }
        };
        let recent = self.finished.iter().filter(|finished| {
            now.since(finished.ended) < RECENT
                && serve.includes(&finished.account)
                && models
                    .as_ref()
                    .is_none_or(|models| models.contains(&finished.model))
        });
        let spans = recent.take(USED).map(|f| (f.began, f.ended));
        expected_wait(before, spans.collect())
    }
}

/// Estimates the time until `before` jobs and one more are finished, from the start and end times
/// of `recent` jobs: the mean time per job while at least one was running. Idle time does not
/// count, and parallel jobs are counted as such.
#[must_use]
pub fn expected_wait(before: usize, mut recent: Vec<(Timestamp, Timestamp)>) -> Option<Duration> {
    let count = u32::try_from(recent.len())
        .ok()
        .filter(|count| *count > 0)?;
    recent.sort_unstable();
    let (mut busy, mut until) = (Duration::ZERO, Timestamp(i64::MIN));
    for (began, ended) in recent {
        busy += ended.since(began.max(until));
        until = until.max(ended);
    }
    let jobs = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    Some((busy / count).saturating_mul(jobs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Owner,
        conformance::sample::{
            LEASE, T0, account, anyone, at, id, job, job_for, serving, with_models,
        },
        machine::Machine,
    };

    fn wait(before: usize, recent: &[(i64, i64)]) -> Option<u128> {
        let recent = recent.iter().map(|(b, e)| (Timestamp(*b), Timestamp(*e)));
        expected_wait(before, recent.collect()).map(|wait| wait.as_millis())
    }

    #[test]
    fn a_wait_is_told_from_the_time_in_which_something_ran() {
        assert_eq!(wait(0, &[]), None, "nothing is known");
        assert_eq!(wait(0, &[(0, 100)]), Some(100));
        assert_eq!(wait(3, &[(0, 100)]), Some(400));
        assert_eq!(wait(0, &[(0, 100), (9_000, 9_300)]), Some(200), "a pause");
        let two_at_once = [(0, 100), (0, 100), (100, 200), (100, 200)];
        assert_eq!(wait(1, &two_at_once), Some(100));
        assert_eq!(wait(0, &[(50, 60), (0, 100)]), Some(50), "one in another");
        assert_eq!(wait(0, &[(100, 40)]), Some(0), "a clock that went wrong");
        assert!(wait(usize::MAX, &[(0, i64::MAX)]).is_some());
    }

    /// Returns the data after one job of account `a` for model `m` that took 10 s.
    fn seen() -> Throughput {
        let mut throughput = Throughput::default();
        throughput.finished.push_front(Finished {
            account: account("a"),
            model: "m".into(),
            began: T0,
            ended: at(10),
        });
        throughput
    }

    #[test]
    fn only_what_these_workers_finished_within_the_hour_tells_how_long_a_wait_is() {
        let throughput = seen();
        let told = |now, serve: &Serve, models: &Models| throughput.expected(now, 0, serve, models);
        let (all, only) = (Serve::All, with_models(&["x", "M:latest"]).models);
        let ten = Some(Duration::from_secs(10));
        assert_eq!(told(at(11), &all, &Models::Any), ten);
        assert_eq!(told(at(11), &serving(&["a"]).serve, &only), ten);
        assert_eq!(told(at(11), &serving(&["b"]).serve, &only), None, "others'");
        let other = with_models(&["x"]).models;
        assert_eq!(told(at(11), &all, &other), None, "of another model");
        assert_eq!(told(at(10 + 3_599), &all, &only), ten);
        assert_eq!(told(at(10 + 3_600), &all, &only), None, "long ago");
    }

    /// Records a job that is leased at the start and then ends by `end`.
    fn noted(
        throughput: &mut Throughput,
        new: &crate::NewJob,
        end: impl FnOnce(&mut Machine) -> Vec<Step>,
    ) {
        let mut machine = Machine::default();
        let mut steps = vec![machine.enqueue(T0, new).unwrap()];
        steps.extend(machine.lease(T0, &anyone(), LEASE).0);
        for step in &steps {
            throughput.note(T0, step);
        }
        for step in end(&mut machine) {
            throughput.note(at(4), &step);
        }
    }

    fn cancelled(machine: &mut Machine) -> Vec<Step> {
        let steps = machine.cancel(at(4), Owner::Anyone, id(1)).unwrap();
        let token = machine.get(id(1)).unwrap().token();
        let ended = machine.complete(at(4), token, 0, 0, proto::End::Cancelled);
        steps.into_iter().chain(ended.unwrap()).collect()
    }

    #[test]
    fn a_job_is_timed_from_its_loan_to_its_end_unless_it_takes_no_slot() {
        let mut throughput = Throughput::default();
        noted(&mut throughput, &job_for(1, "M:latest"), cancelled);
        let Some(Finished {
            account: of,
            model,
            began,
            ended,
        }) = throughput.finished.pop_back()
        else {
            panic!("not timed");
        };
        assert_eq!(
            (of, model.as_str(), began, ended),
            (account("a"), "m", T0, at(4))
        );
        let change = crate::NewJob {
            priority: proto::Priority::URGENT,
            ..job(1)
        };
        noted(&mut throughput, &change, cancelled);
        assert!(throughput.finished.is_empty() && throughput.began.is_empty());
    }

    #[test]
    fn a_job_that_was_lost_is_timed_anew() {
        let mut throughput = Throughput::default();
        noted(&mut throughput, &job(1), |machine| machine.reap(T0 + LEASE));
        assert!(throughput.began.is_empty() && throughput.finished.is_empty());
    }

    #[test]
    fn only_the_last_jobs_are_remembered() {
        let mut throughput = Throughput::default();
        for _ in 0..KEPT + 3 {
            noted(&mut throughput, &job(1), cancelled);
        }
        assert_eq!(
            (throughput.finished.len(), throughput.began.len()),
            (KEPT, 0)
        );
    }
}
