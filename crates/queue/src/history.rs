//! Statistics of the jobs that ended in the last hour: counts per minute and durations.

use std::{collections::VecDeque, time::Duration};

use proto::{JobState, Timestamp};

use crate::Job;

/// Number of minutes that are kept.
const MINUTES: usize = 60;
const MINUTE_MS: i64 = 60_000;
/// Number of histogram buckets per octave of milliseconds: durations are exact to an eighth.
const STEPS: usize = 8;
/// Number of octaves; covers longer than any job is kept.
const OCTAVES: usize = 30;

/// The jobs that ended within one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minute {
    /// Start of the minute.
    pub at: Timestamp,
    /// Number of completed jobs.
    pub completed: u32,
    /// Number of failed jobs.
    pub failed: u32,
    /// Number of cancelled jobs.
    pub cancelled: u32,
    /// Number of lines of their answers: about one per token.
    pub lines: u64,
    /// Median time from acceptance to end of the completed jobs.
    pub median: Option<Duration>,
    /// 95th percentile of that time.
    pub slow: Option<Duration>,
}

/// The statistics of the last hour of this process.
#[derive(Debug, Default)]
pub(crate) struct History {
    minutes: VecDeque<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    minute: Minute,
    took: DurationHistogram,
}

impl History {
    /// Records the end of a job whose answer has `lines` lines.
    pub(crate) fn note(&mut self, job: &Job, lines: u64) {
        let Some(ended) = job.finished_at else { return };
        let at = Timestamp(ended.0 - ended.0.rem_euclid(MINUTE_MS));
        if self.minutes.back().is_none_or(|last| last.minute.at < at) {
            if self.minutes.len() == MINUTES {
                self.minutes.pop_front();
            }
            self.minutes.push_back(Bucket::new(at));
        }
        let Some(bucket) = self.minutes.back_mut() else {
            return;
        };
        let minute = &mut bucket.minute;
        minute.lines += lines;
        match job.state {
            JobState::Completed => {
                minute.completed += 1;
                bucket.took.add(ended.since(job.created_at));
            }
            JobState::Failed => minute.failed += 1,
            JobState::Cancelled => minute.cancelled += 1,
            JobState::Queued | JobState::Leased => {}
        }
    }

    /// Returns the minutes of the last hour in which a job ended, oldest first.
    pub(crate) fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        let hour = Duration::from_secs(60 * MINUTES as u64);
        let recent = self.minutes.iter();
        let recent = recent.filter(|bucket| now.since(bucket.minute.at) < hour);
        let told = recent.map(|bucket| Minute {
            median: bucket.took.at_most(50),
            slow: bucket.took.at_most(95),
            ..bucket.minute.clone()
        });
        told.collect()
    }
}

impl Bucket {
    fn new(at: Timestamp) -> Self {
        Self {
            minute: Minute {
                at,
                completed: 0,
                failed: 0,
                cancelled: 0,
                lines: 0,
                median: None,
                slow: None,
            },
            took: DurationHistogram::default(),
        }
    }
}

/// Histogram of durations, of fixed size; a percentile is exact to a sixteenth.
#[derive(Debug)]
struct DurationHistogram {
    counts: Box<[u32; STEPS * OCTAVES]>,
    all: u32,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self {
            counts: Box::new([0; STEPS * OCTAVES]),
            all: 0,
        }
    }
}

impl DurationHistogram {
    fn add(&mut self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[step(millis).min(last)] += 1;
        self.all += 1;
    }

    /// Returns the given percentile: the middle of the bucket it falls into.
    fn at_most(&self, percent: u32) -> Option<Duration> {
        let rank = (u64::from(self.all) * u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            rank > 0 && seen >= rank
        });
        let (from, to) = (start(found?), start(found? + 1));
        Some(Duration::from_millis(from + (to - from) / 2))
    }
}

/// Bucket of a duration. The first eight milliseconds have one bucket each.
fn step(millis: u64) -> usize {
    let Some(octave) = millis.max(1).ilog2().checked_sub(3) else {
        return usize::try_from(millis).unwrap_or_default();
    };
    let within = usize::try_from((millis >> octave) & 7).unwrap_or_default();
    STEPS * (octave as usize + 1) + within
}

fn start(step: usize) -> u64 {
    match (step / STEPS).checked_sub(1) {
        None => step as u64,
        Some(octave) => ((STEPS + step % STEPS) as u64) << octave,
    }
}

#[cfg(test)]
mod tests {
    use proto::{Account, Dialect, JobId, ModelName, Op, Priority};

    use super::*;
    use crate::NewJob;

    fn ended(state: JobState, accepted: i64, ended: i64) -> Job {
        Job {
            new: NewJob {
                id: JobId([0; 16]),
                account: Account::new("a").unwrap(),
                who: "a".into(),
                op: Op::Chat,
                model: ModelName::new("m").unwrap(),
                priority: Priority::DEFAULT,
                body: bytes::Bytes::new().into(),
                dialect: Dialect::Native,
                deadline: None,
                attended: false,
                worker: None,
            },
            state,
            attempt: 1,
            created_at: Timestamp(accepted),
            finished_at: Some(Timestamp(ended)),
            error: None,
            is_erased: false,
        }
    }

    #[test]
    fn a_span_is_told_right_to_a_sixteenth() {
        for millis in (0..5_000).chain([60_000, 61_234, 3_600_000, 86_400_000]) {
            let mut spread = DurationHistogram::default();
            spread.add(Duration::from_millis(millis));
            let told = spread.at_most(50).unwrap().as_millis();
            let off = told.abs_diff(u128::from(millis));
            assert!(off * 16 <= u128::from(millis), "{millis} told as {told}");
        }
        let mut forever = DurationHistogram::default();
        forever.add(Duration::MAX);
        assert!(forever.at_most(95).is_some());
        assert_eq!(DurationHistogram::default().at_most(50), None);
    }

    #[test]
    fn half_and_nineteen_of_twenty_are_told_apart() {
        let mut spread = DurationHistogram::default();
        for _ in 0..94 {
            spread.add(Duration::from_millis(4));
        }
        for _ in 0..6 {
            spread.add(Duration::from_millis(7));
        }
        assert_eq!(spread.at_most(50), Some(Duration::from_millis(4)));
        assert_eq!(spread.at_most(95), Some(Duration::from_millis(7)));
    }

    #[test]
    fn an_hour_is_remembered_minute_by_minute_and_no_more() {
        let mut history = History::default();
        history.note(&ended(JobState::Completed, 60_000, 60_004), 5);
        history.note(&ended(JobState::Failed, 60_000, 119_999), 1);
        history.note(&ended(JobState::Cancelled, 0, 120_000), 0);
        let told = history.minutes(Timestamp(120_000));
        let first = Minute {
            at: Timestamp(60_000),
            completed: 1,
            failed: 1,
            cancelled: 0,
            lines: 6,
            median: Some(Duration::from_millis(4)),
            slow: Some(Duration::from_millis(4)),
        };
        assert_eq!(told[0], first);
        assert_eq!((told[1].at, told[1].cancelled), (Timestamp(120_000), 1));
        let hour = 60 * MINUTE_MS;
        let later = history.minutes(Timestamp(60_000 + hour));
        assert_eq!(later.len(), 1, "what is older says nothing");
        for minute in 3..1_000 {
            let at = minute * MINUTE_MS;
            history.note(&ended(JobState::Completed, at, at), 1);
        }
        assert_eq!(history.minutes.len(), MINUTES, "and is forgotten");
    }
}
