//! Rules for the end of jobs: each job ends exactly once.

use std::{sync::Arc, time::Duration};

use proto::{End, ErrorCode, JobState, LeaseToken, worker::Retry};

use super::sample::{
    LEASE, T0, account, after, at, failed, found, id, job, job_for, leased, lines, next, page, why,
    with_models,
};
use crate::{Extended, FETCHED_RETENTION, NewJob, Owner, QueueError, RESULT_RETENTION, Store};

/// A worker whose acknowledgement was lost may repeat its end.
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

/// The lease, time and the requester can no longer change the end.
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

/// An answer is complete or refused.
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

/// A queued job needs no worker to be cancelled.
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

/// The worker learns of the cancellation in two ways and gives the job back.
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
        Extended::Cancelled
    );
    assert_eq!(found(store, id(1)).await.state, JobState::Leased);
    store
        .nack(at(1), token, Retry::Now, why(ErrorCode::Cancelled))
        .await
        .unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Cancelled);
    assert!(next(store, at(1)).await.is_none());
}

/// The answer came too late; repeats of both calls are accepted.
pub async fn a_cancelled_job_ends_as_cancelled_whatever_its_worker_says(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    for _ in 0..2 {
        store.complete(T0, token, 0, End::Completed).await.unwrap();
    }
    assert_eq!(found(store, id(1)).await.end(), Some(End::Cancelled));
}

/// A cancelled job is not retried.
pub async fn a_cancelled_job_whose_worker_vanished_ends_as_cancelled(store: &dyn Store) {
    leased(store, T0, 1).await;
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    store.reap(T0 + LEASE).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Cancelled);
}

/// The error says how the job ended.
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

/// A call that waits for a cancellation must not wait for ever.
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

/// Prompt and answer are erased together.
pub async fn an_ended_job_is_erased_after_a_day(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.append(T0, token, 1, lines(&["x"])).await.unwrap();
    store.complete(T0, token, 1, End::Completed).await.unwrap();
    let wanted_until = T0 + 7 * RESULT_RETENTION;
    let waiting = NewJob {
        deadline: Some(wanted_until),
        ..job(2)
    };
    store.enqueue(T0, waiting).await.unwrap();
    // Anything fetched from now on is erased no sooner than this.
    assert_eq!(store.reap(T0).await.unwrap(), Some(T0 + FETCHED_RETENTION));
    let day = T0 + RESULT_RETENTION;
    let almost = Duration::from_millis(1);
    assert_eq!(
        store.reap(T0 + (RESULT_RETENTION - almost)).await.unwrap(),
        Some(day)
    );
    assert_eq!(found(store, id(1)).await.new.body, job(1).body);
    assert_eq!(store.reap(day).await.unwrap(), Some(wanted_until));
    assert!(store.get(Owner::Anyone, id(1)).await.unwrap().is_none());
    assert!(store.log(Owner::Anyone, id(1)).await.unwrap().is_none());
    assert_eq!(
        found(store, id(2)).await.state,
        JobState::Queued,
        "waiting is no end"
    );
}

/// The job and its idempotency key stay; prompt and answer are erased.
pub async fn prompt_and_answer_go_an_hour_after_the_answer_was_fetched(store: &dyn Store) {
    let almost = Duration::from_millis(1);
    for n in [1, 2] {
        let token = leased(store, T0, n).await;
        store.append(T0, token, 1, lines(&["x"])).await.unwrap();
        store.complete(T0, token, 1, End::Completed).await.unwrap();
    }
    let fetched = at(600);
    store.fetched(fetched, id(1));
    store.fetched(fetched + FETCHED_RETENTION, id(1));
    let due = fetched + FETCHED_RETENTION;
    assert_eq!(store.reap(fetched).await.unwrap(), Some(due));
    store
        .reap(fetched + (FETCHED_RETENTION - almost))
        .await
        .unwrap();
    assert_eq!(found(store, id(1)).await.new.body, job(1).body);
    store.reap(due).await.unwrap();
    let erased = found(store, id(1)).await;
    assert!(erased.is_erased && erased.new.body.0.is_empty());
    assert_eq!(erased.state, JobState::Completed);
    let gone = store.log(Owner::Anyone, id(1)).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::Erased);
    let foreign = Owner::Account(&super::sample::account("b"));
    assert!(store.log(foreign, id(1)).await.unwrap().is_none());
    // The other job was not fetched.
    let kept = found(store, id(2)).await;
    assert_eq!((kept.is_erased, kept.new.body), (false, job(2).body));
    store.reap(T0 + RESULT_RETENTION).await.unwrap();
    assert!(store.get(Owner::Anyone, id(1)).await.unwrap().is_none());
}

/// A dead job may be retried, and clients of the query service may read a query repeatedly.
pub async fn dead_jobs_and_queries_keep_their_prompts(store: &dyn Store) {
    let dead = leased(store, T0, 1).await;
    let why = failed(ErrorCode::EngineFailed);
    store.complete(T0, dead, 0, why).await.unwrap();
    let query = NewJob {
        dialect: proto::Dialect::Queries,
        ..job(2)
    };
    store.enqueue(T0, query).await.unwrap();
    let answered = next(store, T0).await.unwrap().token;
    store
        .complete(T0, answered, 0, End::Completed)
        .await
        .unwrap();
    store.enqueue(T0, job(3)).await.unwrap();
    for n in 1..=3 {
        store.fetched(T0, id(n));
    }
    store.reap(at(1)).await.unwrap();
    store.reap(at(1) + FETCHED_RETENTION).await.unwrap();
    for n in 1..=3 {
        let kept = found(store, id(n)).await;
        assert_eq!((kept.is_erased, kept.new.body), (false, job(n).body));
    }
}

/// The observer is called once for each event.
pub async fn an_observer_hears_what_becomes_of_each_job(store: &dyn Store) {
    #[derive(Debug, Default)]
    struct Heard(std::sync::Mutex<Vec<String>>);
    impl Heard {
        fn note(&self, what: &str, job: &crate::Job) {
            let heard = format!("{what} {}", job.new.id.0[0]);
            self.0.lock().unwrap().push(heard);
        }
    }
    impl crate::Observer for Heard {
        fn queued(&self, job: &crate::Job) {
            self.note("queued", job);
        }
        fn lent(&self, _: proto::Timestamp, job: &crate::Job) {
            self.note(&format!("lent {}", job.attempt), job);
        }
        fn first_line(&self, now: proto::Timestamp, job: &crate::Job) {
            let after = now.since(job.created_at).as_secs();
            self.note(&format!("line after {after}"), job);
        }
        fn ended(&self, job: &crate::Job, last: Option<&bytes::Bytes>) {
            let last = last.map_or("", |line| std::str::from_utf8(line).unwrap());
            self.note(&format!("{:?} {last}", job.state), job);
        }
        fn committed(&self, _: Duration, _: usize) {}
    }
    let heard = Arc::new(Heard::default());
    store.observe(heard.clone());
    let first = leased(store, T0, 1).await;
    store.enqueue(T0, job(1)).await.unwrap_err();
    store
        .nack(T0, first, Retry::Now, why(ErrorCode::Draining))
        .await
        .unwrap();
    let again = next(store, T0).await.unwrap().token;
    for (n, line) in [(1, "x"), (2, "y"), (2, "y")] {
        store.append(at(3), again, n, lines(&[line])).await.unwrap();
    }
    for _ in 0..2 {
        store
            .complete(at(4), again, 2, End::Completed)
            .await
            .unwrap();
    }
    let dead = leased(store, at(4), 2).await;
    let broke = why(ErrorCode::EngineFailed);
    store.nack(at(4), dead, Retry::Never, broke).await.unwrap();
    assert_eq!(
        *heard.0.lock().unwrap(),
        [
            "queued 1",
            "lent 1 1",
            "lent 2 1",
            "line after 3 1",
            "Completed y 1",
            "queued 2",
            "lent 1 2",
            "Failed  2"
        ]
    );
}

/// Otherwise the erasure would wait for the next timer, for example a deadline a week later.
pub async fn the_first_end_is_told_to_whoever_reaps(store: &dyn Store) {
    let waiting = NewJob {
        deadline: Some(T0 + 7 * RESULT_RETENTION),
        model: job_for(1, "elsewhere").model,
        ..job(1)
    };
    store.enqueue(T0, waiting).await.unwrap();
    let query = with_models(&["m"]);
    store.enqueue(T0, job(2)).await.unwrap();
    let token = store.lease(T0, &query, LEASE).await.unwrap().unwrap().token;
    store.reap(T0).await.unwrap();
    let mut arrivals = store.arrivals();
    arrivals.mark_unchanged();
    store.complete(T0, token, 0, End::Completed).await.unwrap();
    assert!(arrivals.has_changed().unwrap(), "nobody was told");
    assert_eq!(store.reap(T0).await.unwrap(), Some(T0 + FETCHED_RETENTION));
}

/// The relay uses this list after a restart.
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

/// Each call returns an error instead of hanging.
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
