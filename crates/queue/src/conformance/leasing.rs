//! Rules for leases: the holder of a job, the expiry, and the number of attempts.

use std::time::Duration;

use proto::{
    End, ErrorCode, JobError, JobState, LeaseToken,
    limits::{ATTEMPTS_MAX, LEGACY_LEASE},
    worker::Retry,
};

use super::sample::{LEASE, T0, anyone, at, failed, found, id, job, leased, lines, next, why};
use crate::{Extended, NewJob, Owner, QueueError, Store};

/// The request is unchanged byte for byte, and the attempt is new.
pub async fn a_lease_carries_the_request_unchanged(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let lease = store.lease(at(1), &anyone(), LEASE).await.unwrap().unwrap();
    assert_eq!(
        lease.token,
        LeaseToken {
            job: id(1),
            attempt: 1
        }
    );
    assert_eq!(lease.until, at(1) + LEASE);
    assert_eq!(lease.job, job(1));
    let job = found(store, id(1)).await;
    assert_eq!((job.state, job.attempt), (JobState::Leased, 1));
}

/// A job has at most one holder.
pub async fn a_leased_job_is_lent_to_nobody_else(store: &dyn Store) {
    leased(store, T0, 1).await;
    assert!(next(store, T0).await.is_none());
    assert!(next(store, at(59)).await.is_none());
}

/// At most as many jobs as requested are leased, and none twice.
pub async fn several_jobs_are_lent_at_once_best_first(store: &dyn Store) {
    for n in 1..=4 {
        store.enqueue(T0, job(n)).await.unwrap();
    }
    let lend = async |max| {
        let leases = store.lease_many(T0, &anyone(), LEASE, max).await.unwrap();
        let lent = |lease: crate::Lease| {
            assert_eq!((lease.token.job, lease.token.attempt), (lease.job.id, 1));
            lease.job
        };
        leases.into_iter().map(lent).collect::<Vec<_>>()
    };
    assert_eq!(lend(0).await, []);
    assert_eq!(lend(3).await, [job(1), job(2), job(3)]);
    assert_eq!(lend(3).await, [job(4)]);
    assert_eq!(lend(3).await, []);
    assert_eq!(store.counts().leased, 4);
}

/// Jobs that are leased together are in memory together.
pub async fn jobs_lent_at_once_are_no_longer_together_than_a_request_may_be(store: &dyn Store) {
    let half = proto::limits::BODY_MAX / 2;
    for n in 1..=3 {
        let body = vec![b'x'; half].into();
        store.enqueue(T0, NewJob { body, ..job(n) }).await.unwrap();
    }
    let leases = store.lease_many(T0, &anyone(), LEASE, 9).await.unwrap();
    assert_eq!(leases.len(), 2);
}

/// A job survives the loss of its worker.
pub async fn an_expired_lease_is_lent_again(store: &dyn Store) {
    leased(store, T0, 1).await;
    assert_eq!(store.reap(at(59)).await.unwrap(), Some(T0 + LEASE));
    store.reap(T0 + LEASE).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Queued);
    let again = next(store, T0 + LEASE).await.unwrap();
    assert_eq!(again.token.attempt, 2);
    assert_eq!(again.job, job(1));
}

/// Extending a lease keeps it.
pub async fn a_heartbeat_keeps_the_lease(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    assert_eq!(
        store.extend(at(50), token, LEASE).await.unwrap(),
        Extended::Active
    );
    store.reap(at(109)).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Leased);
    store.reap(at(110)).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Queued);
}

/// The job fails because its answer is no longer wanted, and its worker is told to stop.
pub async fn a_leased_job_ends_at_its_deadline(store: &dyn Store) {
    let deadline = Some(at(100));
    let new = NewJob { deadline, ..job(1) };
    store.enqueue(T0, new).await.unwrap();
    let token = next(store, T0).await.unwrap().token;
    store.append(at(50), token, 1, lines(&["x"])).await.unwrap();
    store.extend(at(99), token, LEASE).await.unwrap();
    assert_eq!(store.reap(at(99)).await.unwrap(), Some(at(100)));
    assert_eq!(found(store, id(1)).await.state, JobState::Leased);
    let mut stopped = store.cancelled(token);
    tokio::select! {
        biased;
        () = &mut stopped => panic!("it is wanted still"),
        () = std::future::ready(()) => {}
    }
    store.reap(at(100)).await.unwrap();
    stopped.await;
    let late = found(store, id(1)).await;
    assert_eq!(late.end(), Some(too_late_while_running()));
    assert_eq!(late.finished_at, Some(at(100)));
    let refused = store.complete(at(100), token, 1, End::Completed).await;
    assert!(
        matches!(refused, Err(QueueError::StaleLease(_))),
        "{refused:?}"
    );
}

fn too_late_while_running() -> End {
    let why = "the deadline passed before the answer was complete";
    let error = JobError::new(ErrorCode::DeadlineExceeded, why);
    End::Failed { error }
}

/// The requester cancelled first, so the job ends as cancelled.
pub async fn a_withdrawn_job_is_not_ended_by_its_deadline(store: &dyn Store) {
    let deadline = Some(at(30));
    let new = NewJob { deadline, ..job(1) };
    store.enqueue(T0, new).await.unwrap();
    let token = next(store, T0).await.unwrap().token;
    store.cancel(at(10), Owner::Anyone, id(1)).await.unwrap();
    store.reap(at(30)).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Leased);
    let reason = why(ErrorCode::Cancelled);
    store
        .nack(at(31), token, Retry::Never, reason)
        .await
        .unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Cancelled);
}

/// Workers that cannot renew get longer leases, which a line must not shorten.
pub async fn a_line_keeps_the_lease_for_what_it_was_lent_for(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let lease = store
        .lease(T0, &anyone(), LEGACY_LEASE)
        .await
        .unwrap()
        .unwrap();
    store
        .append(at(100), lease.token, 1, lines(&["{}"]))
        .await
        .unwrap();
    store.reap(at(499)).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Leased);
    store.reap(at(500)).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Queued);
}

/// Every call of the old lease is refused, and the new holder is not affected.
pub async fn the_late_worker_cannot_finish_a_job_that_was_handed_on(store: &dyn Store) {
    let late = leased(store, T0, 1).await;
    let held = next(store, T0 + LEASE).await.unwrap().token;
    let now = T0 + LEASE;
    all_stale(store, late).await;
    store.append(now, held, 1, lines(&["right"])).await.unwrap();
    store.complete(now, held, 1, End::Completed).await.unwrap();
    all_stale(store, late).await;
    assert_eq!(found(store, id(1)).await.state, JobState::Completed);
}

async fn all_stale(store: &dyn Store, late: LeaseToken) {
    let now = T0 + LEASE;
    let refusals = [
        store.extend(now, late, LEASE).await.unwrap_err(),
        store
            .append(now, late, 1, lines(&["wrong"]))
            .await
            .unwrap_err(),
        store.stored(late).await.unwrap_err(),
        store
            .complete(now, late, 0, End::Completed)
            .await
            .unwrap_err(),
        store
            .nack(now, late, Retry::Now, why(ErrorCode::Draining))
            .await
            .unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, QueueError::StaleLease(job) if job == late.job),
            "{refused}"
        );
    }
}

/// An invented token gets an error different from that of an expired lease.
pub async fn nothing_holds_a_job_that_never_was(store: &dyn Store) {
    let token = LeaseToken {
        job: id(9),
        attempt: 1,
    };
    let refusals = [
        store.extend(T0, token, LEASE).await.unwrap_err(),
        store.append(T0, token, 1, lines(&["x"])).await.unwrap_err(),
        store.stored(token).await.unwrap_err(),
        store
            .complete(T0, token, 0, End::Completed)
            .await
            .unwrap_err(),
        store
            .nack(T0, token, Retry::Never, why(ErrorCode::Draining))
            .await
            .unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, QueueError::UnknownJob(job) if job == id(9)),
            "{refused}"
        );
    }
}

/// Pausing and draining are not failures.
pub async fn a_job_given_back_is_lent_again_and_not_counted(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    for attempt in 1..=ATTEMPTS_MAX + 3 {
        let lease = next(store, T0).await.unwrap();
        assert_eq!(lease.token.attempt, attempt);
        store
            .nack(T0, lease.token, Retry::Now, why(ErrorCode::Draining))
            .await
            .unwrap();
    }
    assert_eq!(found(store, id(1)).await.state, JobState::Queued);
}

/// Other jobs go first until the retry time.
pub async fn a_job_to_be_tried_later_waits(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    let reason = why(ErrorCode::EngineUnavailable);
    store
        .nack(T0, token, Retry::AfterMs(5_000), reason)
        .await
        .unwrap();
    store.enqueue(T0, job(2)).await.unwrap();
    assert_eq!(next(store, at(4)).await.unwrap().job.id, id(2));
    assert!(next(store, at(4)).await.is_none());
    assert_eq!(store.counts().queued, 1);
    assert_eq!(store.reap(at(4)).await.unwrap(), Some(at(5)));
    let mut arrivals = store.arrivals();
    arrivals.mark_unchanged();
    store.reap(at(5)).await.unwrap();
    arrivals.changed().await.unwrap();
    assert_eq!(next(store, at(5)).await.unwrap().job.id, id(1));
}

/// A job that crashes its workers does not crash all of them.
pub async fn the_fifth_lost_attempt_is_the_last(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let mut now = T0;
    for attempt in 1..=ATTEMPTS_MAX {
        assert_eq!(next(store, now).await.unwrap().token.attempt, attempt);
        now = now + LEASE;
    }
    assert!(next(store, now).await.is_none());
    let dead = found(store, id(1)).await;
    assert_eq!(
        (dead.state, dead.finished_at),
        (JobState::Failed, Some(now))
    );
    assert_eq!(dead.error.unwrap().code, ErrorCode::TooManyAttempts);
}

/// The error of the engine is kept.
pub async fn a_job_given_back_too_often_fails_with_the_last_reason(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    for _ in 0..ATTEMPTS_MAX {
        let token = next(store, T0).await.unwrap().token;
        let reason = why(ErrorCode::EngineUnavailable);
        store
            .nack(T0, token, Retry::AfterMs(0), reason)
            .await
            .unwrap();
    }
    let dead = found(store, id(1)).await;
    assert_eq!(dead.end(), Some(failed(ErrorCode::EngineUnavailable)));
}

/// The job is not retried.
pub async fn a_job_given_back_for_good_fails_with_the_reason(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store
        .nack(at(1), token, Retry::Never, why(ErrorCode::EngineRefused))
        .await
        .unwrap();
    let dead = found(store, id(1)).await;
    assert_eq!(dead.end(), Some(failed(ErrorCode::EngineRefused)));
    assert_eq!(dead.finished_at, Some(at(1)));
    assert!(next(store, at(1)).await.is_none());
}

/// An earlier time counts as the latest one seen.
pub async fn a_step_back_of_the_clock_expires_nothing(store: &dyn Store) {
    let token = leased(store, at(100), 1).await;
    store.extend(at(0), token, LEASE).await.unwrap();
    store.reap(at(0)).await.unwrap();
    assert!(next(store, at(159)).await.is_none());
    assert_eq!(next(store, at(160)).await.unwrap().token.attempt, 2);
}

/// One timer is enough for the caller of `reap`.
pub async fn a_lease_says_when_it_must_be_reaped(store: &dyn Store) {
    assert_eq!(store.reap(T0).await.unwrap(), None, "nothing to wait for");
    let token = leased(store, T0, 1).await;
    store.extend(at(30), token, LEASE).await.unwrap();
    let again = store.reap(T0 + LEASE).await.unwrap().unwrap();
    assert_eq!(again, at(30) + LEASE);
    assert_eq!(again.since(T0), Duration::from_secs(90));
}
