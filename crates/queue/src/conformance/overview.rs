//! Rules for the overview: waiting jobs, running jobs with their holders, and ended ones.

use proto::{End, ErrorCode, JobError, worker::Retry};

use super::sample::{LEASE, T0, anyone, at, id, job, lines, next, urgent};
use crate::{Owner, Store};

/// The submitted priority counts, not the level reached by waiting.
pub async fn waiting_jobs_are_counted_by_priority(store: &dyn Store) {
    for (n, level) in [(1, 1), (2, 10), (3, 10)] {
        store.enqueue(T0, urgent(n, level)).await.unwrap();
    }
    assert_eq!(store.overview().waiting, [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    store.reap(at(600)).await.unwrap();
    let lease = next(store, at(600)).await.unwrap();
    assert_eq!(store.overview().waiting.iter().sum::<usize>(), 2);
    let why = JobError::new(ErrorCode::WorkerLost, "gone");
    store
        .nack(at(600), lease.token, Retry::Now, why)
        .await
        .unwrap();
    store.cancel(at(600), Owner::Anyone, id(2)).await.unwrap();
    assert_eq!(store.overview().waiting, [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

/// Holder, start and speed are shown while the job runs, and not afterwards.
pub async fn a_running_job_is_told_with_its_holder_and_its_speed(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    assert_eq!(store.overview().running, []);
    let lease = store.lease(at(1), &anyone(), LEASE).await.unwrap().unwrap();
    let running = store.overview().running;
    let holder = running[0].holder.as_ref().unwrap();
    assert_eq!((&holder.worker, holder.since), (&anyone().worker, at(1)));
    assert_eq!((running[0].lines, running[0].lines_per_second), (0, None));
    assert_eq!(running[0].job.new.body.0.len(), 0, "without its request");

    let token = lease.token;
    store.append(at(2), token, 1, lines(&["a"])).await.unwrap();
    store
        .append(at(4), token, 2, lines(&["b", "c", "d", "e"]))
        .await
        .unwrap();
    let running = store.overview().running;
    assert_eq!(
        (running[0].lines, running[0].lines_per_second),
        (5, Some(2.0))
    );
    store
        .complete(at(5), token, 5, End::Completed)
        .await
        .unwrap();
    assert_eq!(store.overview().running, []);
    let minutes = store.minutes(at(5));
    assert_eq!(
        (minutes.len(), minutes[0].completed, minutes[0].lines),
        (1, 1, 5)
    );
}

/// A new attempt is a new run.
pub async fn a_job_that_was_handed_on_is_told_of_its_new_holder(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let first = next(store, T0).await.unwrap().token;
    store.append(at(1), first, 1, lines(&["a"])).await.unwrap();
    let late = T0 + LEASE + LEASE;
    store.reap(late).await.unwrap();
    assert_eq!(store.overview().running, []);
    next(store, late).await.unwrap();
    let running = store.overview().running;
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].holder.as_ref().unwrap().since, late);
    assert_eq!((running[0].lines, running[0].job.attempt), (0, 2));
}

/// Acceptance, lease, lines and end each wake subscribers.
pub async fn whoever_watches_is_told_of_every_change(store: &dyn Store) {
    let mut changes = store.changes();
    let mut changed = || {
        let has = changes.has_changed().unwrap();
        changes.borrow_and_update();
        has
    };
    assert!(!changed());
    store.enqueue(T0, job(1)).await.unwrap();
    assert!(changed(), "accepted");
    let token = next(store, T0).await.unwrap().token;
    assert!(changed(), "lent");
    store.append(T0, token, 1, lines(&["a"])).await.unwrap();
    assert!(changed(), "written");
    store.complete(T0, token, 1, End::Completed).await.unwrap();
    assert!(changed(), "ended");
    store.overview();
    assert!(!changed(), "looking changes nothing");
}
