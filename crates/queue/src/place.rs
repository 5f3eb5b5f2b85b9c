//! Where a job stands in the queue, and how long it may still wait.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use proto::{Account, JobId, JobState, ModelName, Timestamp};

use crate::{Models, Serve, machine::Step};

/// How many finished jobs are remembered in all, and used for one estimate.
const KEPT: usize = 512;
const USED: usize = 32;
/// What is older says little about now.
const RECENT: Duration = Duration::from_secs(60 * 60);

/// Where a waiting job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How many jobs will be served before it, as things are now.
    pub before: usize,
    /// How long that may take, if anything was finished lately.
    pub wait: Option<Duration>,
}

/// How fast jobs were finished lately.
#[derive(Debug, Default)]
pub(crate) struct Pace {
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

impl Pace {
    /// Something was decided about a job.
    pub(crate) fn note(&mut self, now: Timestamp, step: &Step) {
        let (id, job) = (step.id(), &step.after.job);
        match job.state {
            // What takes no slot says nothing of how long slots are taken.
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

    /// How long the next `before` jobs for these workers may take, and one more to make room.
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

/// How long until `before` jobs and one more are finished, by when recent ones were begun and
/// finished: so many a time in which at least one was running. Time in which nothing was asked
/// says nothing; jobs that ran side by side count for what they were.
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
}
