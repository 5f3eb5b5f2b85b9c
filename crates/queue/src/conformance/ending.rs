//! How jobs end, and that they end once.

use std::{sync::Arc, time::Duration};

use proto::{End, ErrorCode, JobState, LeaseToken, worker::Retry};

use super::sample::{
    LEASE, T0, account, after, at, failed, found, id, job, leased, lines, next, page, why,
};
use crate::{Leased, NewJob, Owner, QueueError, RESULT_KEPT, Store};

/// A worker whose acknowledgement was lost may ask again.
pub async fn a_repeated_end_is_accepted_once(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.append(T0, token, 1, lines(&["x"])).await.unwrap();
    store
        .complete(at(1), token, 1, End::Completed)
        .await
        .unwrap();
    store
        .complete(at(2), token, 1, End::Completed)
        .await
        .unwrap();
    assert_eq!(found(store, id(1)).await.finished_at, Some(at(1)));
}

/// Not by its own lease, not by time, not by its requester.
pub async fn an_acknowledged_end_never_changes(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.complete(T0, token, 0, End::Completed).await.unwrap();
    let before = found(store, id(1)).await;
    let other = failed(ErrorCode::EngineFailed);
    let refused = store.complete(at(1), token, 0, other).await.unwrap_err();
    assert!(matches!(refused, QueueError::StaleLease(_)), "{refused}");
    let later = LeaseToken {
        attempt: 2,
        ..token
    };
    let refused = store
        .complete(at(1), later, 0, End::Completed)
        .await
        .unwrap_err();
    assert!(matches!(refused, QueueError::StaleLease(_)), "{refused}");
    let refused = store
        .append(at(1), token, 1, lines(&["more"]))
        .await
        .unwrap_err();
    assert!(matches!(refused, QueueError::StaleLease(_)), "{refused}");
    store.reap(at(3_600)).await.unwrap();
    assert_eq!(found(store, id(1)).await, before);
    assert!(page(store, id(1), after(1, 0)).await.chunks.is_empty());
}

/// An answer is whole or it is none.
pub async fn an_end_with_missing_lines_is_refused(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store
        .append(T0, token, 1, lines(&["1", "2"]))
        .await
        .unwrap();
    let refused = store
        .complete(T0, token, 3, End::Completed)
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            QueueError::Gap {
                stored: 2,
                got: 3,
                ..
            }
        ),
        "{refused}"
    );
    store.append(T0, token, 3, lines(&["3"])).await.unwrap();
    store.complete(T0, token, 3, End::Completed).await.unwrap();
}

/// Nobody needs to be asked.
pub async fn a_waiting_job_is_cancelled_at_once(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    store
        .cancel(at(1), Owner::Account(&account("a")), id(1))
        .await
        .unwrap();
    let job = found(store, id(1)).await;
    assert_eq!(
        (job.state, job.finished_at),
        (JobState::Cancelled, Some(at(1)))
    );
    assert!(next(store, at(1)).await.is_none());
    assert_eq!(
        page(store, id(1), after(0, 0)).await.end,
        Some(End::Cancelled)
    );
}

/// The worker hears of it in two ways and gives the job back.
pub async fn a_leased_job_is_cancelled_through_its_worker(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store
        .cancel(T0, Owner::Account(&account("a")), id(1))
        .await
        .unwrap();
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    store.cancelled(token).await;
    assert_eq!(
        store.extend(T0, token, LEASE).await.unwrap(),
        Leased::Cancelled
    );
    assert_eq!(found(store, id(1)).await.state, JobState::Leased);
    store
        .nack(at(1), token, Retry::Now, why(ErrorCode::Cancelled))
        .await
        .unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Cancelled);
    assert!(next(store, at(1)).await.is_none());
}

/// The answer came too late; both repeats are accepted.
pub async fn a_cancelled_job_ends_as_cancelled_whatever_its_worker_says(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    for _ in 0..2 {
        store.complete(T0, token, 0, End::Completed).await.unwrap();
    }
    assert_eq!(found(store, id(1)).await.end(), Some(End::Cancelled));
}

/// It is not tried again.
pub async fn a_cancelled_job_whose_worker_vanished_ends_as_cancelled(store: &dyn Store) {
    leased(store, T0, 1).await;
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    store.reap(T0 + LEASE).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Cancelled);
}

/// And it says how it ended.
pub async fn an_ended_job_cannot_be_cancelled(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.complete(T0, token, 0, End::Completed).await.unwrap();
    let refused = store.cancel(T0, Owner::Anyone, id(1)).await.unwrap_err();
    assert!(
        matches!(refused, QueueError::Ended(_, JobState::Completed)),
        "{refused}"
    );
    let foreign = store
        .cancel(T0, Owner::Account(&account("b")), id(1))
        .await
        .unwrap_err();
    assert!(matches!(foreign, QueueError::UnknownJob(_)), "{foreign}");
    let unknown = store.cancel(T0, Owner::Anyone, id(2)).await.unwrap_err();
    assert!(matches!(unknown, QueueError::UnknownJob(_)), "{unknown}");
}

/// A worker that waits for a cancellation must not wait for ever.
pub async fn who_waits_for_a_cancellation_hears_of_a_lost_lease(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    let (mut first, mut second) = (store.cancelled(token), store.cancelled(token));
    tokio::select! {
        biased;
        () = &mut first => panic!("nobody has cancelled"),
        () = &mut second => panic!("nobody has cancelled"),
        () = std::future::ready(()) => {}
    }
    store.reap(T0 + LEASE).await.unwrap();
    first.await;
    second.await;
    store
        .cancelled(LeaseToken {
            job: id(9),
            attempt: 1,
        })
        .await;
}

/// The prompt goes with the answer.
pub async fn an_ended_job_is_erased_after_a_day(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.append(T0, token, 1, lines(&["x"])).await.unwrap();
    store.complete(T0, token, 1, End::Completed).await.unwrap();
    store.enqueue(T0, job(2)).await.unwrap();
    assert_eq!(store.reap(T0).await.unwrap(), Some(T0 + RESULT_KEPT));
    let day = T0 + RESULT_KEPT;
    let almost = Duration::from_millis(1);
    assert_eq!(
        store.reap(T0 + (RESULT_KEPT - almost)).await.unwrap(),
        Some(day)
    );
    assert_eq!(found(store, id(1)).await.new.body, job(1).body);
    assert_eq!(store.reap(day).await.unwrap(), None);
    assert!(store.get(Owner::Anyone, id(1)).await.unwrap().is_none());
    assert!(store.log(Owner::Anyone, id(1)).await.unwrap().is_none());
    assert_eq!(
        found(store, id(2)).await.state,
        JobState::Queued,
        "waiting is no end"
    );
}

/// After a restart the relay looks after these.
pub async fn attended_jobs_are_listed_until_they_end(store: &dyn Store) {
    for n in [1, 2, 3] {
        store
            .enqueue(
                T0,
                NewJob {
                    attended: n != 2,
                    ..job(n)
                },
            )
            .await
            .unwrap();
    }
    let token = next(store, T0).await.unwrap().token;
    let attended = async || {
        let jobs = store.attended().await.unwrap();
        jobs.iter().map(|job| job.new.id.0[0]).collect::<Vec<_>>()
    };
    assert_eq!(attended().await, [1, 3]);
    store.complete(T0, token, 0, End::Completed).await.unwrap();
    assert_eq!(attended().await, [3]);
}

/// Clearly, and not by hanging.
pub async fn a_closed_store_refuses_everything(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.close().await.unwrap();
    let refusals = [
        store.enqueue(T0, job(2)).await.unwrap_err(),
        store
            .lease(T0, &super::sample::anyone(), LEASE)
            .await
            .map(drop)
            .unwrap_err(),
        store.append(T0, token, 1, lines(&["x"])).await.unwrap_err(),
        store
            .complete(T0, token, 0, End::Completed)
            .await
            .unwrap_err(),
        store.reap(T0).await.map(drop).unwrap_err(),
        store
            .log(Owner::Anyone, id(1))
            .await
            .map(|log: Option<Arc<_>>| drop(log))
            .unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(refused.code(), ErrorCode::StoreUnavailable, "{refused}");
    }
}
