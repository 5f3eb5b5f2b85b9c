//! Decisions that depend on time alone: expired leases, deadlines and waiting times.

use std::time::Duration;

use proto::{End, ErrorCode, JobError, JobState, Timestamp};

use super::{Record, lost_too_often};
use crate::QueueLimits;

/// Returns the next time at which time alone changes this job.
pub(super) fn timer(record: &Record, now: Timestamp, waits: Duration) -> Option<Timestamp> {
    match record.job.state {
        JobState::Queued => {
            let available = record.not_before.filter(|at| *at > now);
            [available, waits_until(record, waits)]
                .into_iter()
                .flatten()
                .min()
        }
        JobState::Leased => [
            record.loan.as_ref().map(|loan| loan.until),
            wanted_until(record),
        ]
        .into_iter()
        .flatten()
        .min(),
        JobState::Completed | JobState::Failed | JobState::Cancelled => None,
    }
}

/// Returns the record after the changes that are due at `now`, which is not before its timer;
/// `None` if nothing changes.
pub(super) fn decide(record: &Record, now: Timestamp, limits: &QueueLimits) -> Option<Record> {
    let late = wanted_until(record).is_some_and(|deadline| deadline <= now);
    match record.job.state {
        JobState::Queued if late => Some(record.clone().ended(now, too_late(WAITING))),
        JobState::Queued => {
            let gives_up = waits_until(record, limits.waits).is_some_and(|until| until <= now);
            let why = if was_leased(record) {
                NOT_ANSWERED
            } else {
                NOT_TAKEN
            };
            gives_up.then(|| record.clone().ended(now, too_late(why)))
        }
        // The holder of the lease is told to stop, as after a cancellation.
        JobState::Leased if late => Some(record.clone().ended(now, too_late(RUNNING))),
        JobState::Leased => {
            let mut lost = record.clone();
            lost.tries += 1;
            Some(if lost.cancelled {
                lost.ended(now, End::Cancelled)
            } else if lost.tries >= limits.attempts_max {
                let error = lost_too_often(lost.tries);
                lost.ended(now, End::Failed { error })
            } else {
                lost.queued_again()
            })
        }
        JobState::Completed | JobState::Failed | JobState::Cancelled => None,
    }
}

const WAITING: &str = "the deadline passed while the job was waiting for a worker";
const NOT_TAKEN: &str = "no worker took the job within the maximum waiting time; submit it \
                         again when its agent is online";
const NOT_ANSWERED: &str = "the job was leased, but not answered within twice the maximum waiting \
                            time; submit it again";
const RUNNING: &str = "the deadline passed before the answer was complete";

fn too_late(message: &str) -> End {
    End::Failed {
        error: JobError::new(ErrorCode::DeadlineExceeded, message),
    }
}

/// The deadline. `None` if the requester has cancelled: the worker then ends the job.
fn wanted_until(record: &Record) -> Option<Timestamp> {
    record.job.new.deadline.filter(|_| !record.cancelled)
}

/// Returns until when the job may wait: its deadline or, if it names none, a bound from when it was
/// accepted. The bound is twice as long once the job was leased, so that a worker that takes it
/// late and vanishes costs it no further attempts.
fn waits_until(record: &Record, waits: Duration) -> Option<Timestamp> {
    let times = if was_leased(record) { 2 } else { 1 };
    let usual = || record.job.created_at + waits.saturating_mul(times);
    wanted_until(record).or_else(|| record.job.new.deadline.is_none().then(usual))
}

const fn was_leased(record: &Record) -> bool {
    record.job.attempt > 0
}
