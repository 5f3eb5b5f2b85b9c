use proto::{End, ErrorCode, JobError, JobState, Timestamp, limits::ATTEMPTS_MAX};

use super::{Record, lost_too_often};

/// When time decides something about this job next.
pub(super) fn timer(record: &Record, now: Timestamp) -> Option<Timestamp> {
    match record.job.state {
        JobState::Queued => {
            let available = record.not_before.filter(|at| *at > now);
            [available, record.job.new.deadline]
                .into_iter()
                .flatten()
                .min()
        }
        JobState::Leased => record.loan.as_ref().map(|loan| loan.until),
        JobState::Completed | JobState::Failed | JobState::Cancelled => None,
    }
}

/// What the time `now` makes of the job; `None` if it stays as it is.
pub(super) fn decide(record: &Record, now: Timestamp) -> Option<Record> {
    let late = record
        .job
        .new
        .deadline
        .is_some_and(|deadline| deadline <= now);
    match record.job.state {
        JobState::Queued => late.then(|| record.clone().ended(now, too_late())),
        JobState::Leased => {
            if record.loan.as_ref().is_some_and(|loan| loan.until > now) {
                return None;
            }
            let mut lost = record.clone();
            lost.tries += 1;
            Some(if lost.cancelled {
                lost.ended(now, End::Cancelled)
            } else if lost.tries >= ATTEMPTS_MAX {
                lost.ended(
                    now,
                    End::Failed {
                        error: lost_too_often(),
                    },
                )
            } else if late {
                lost.ended(now, too_late())
            } else {
                lost.queued_again()
            })
        }
        JobState::Completed | JobState::Failed | JobState::Cancelled => None,
    }
}

fn too_late() -> End {
    let message = "the deadline passed while the job was waiting for a worker";
    End::Failed {
        error: JobError::new(ErrorCode::DeadlineExceeded, message),
    }
}
