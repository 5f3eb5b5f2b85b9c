//! Rules for acceptance and for the order of leases.

use std::{iter, time::Duration};

use proto::{End, ErrorCode, JobError, JobId, JobState, Priority, worker::Retry};

use super::sample::{
    LEASE, T0, anyone, at, found, id, job, job_for, job_of, next, serving, urgent, with_models,
};
use crate::{
    DEFAULT_QUEUE_TIMEOUT, LeaseQuery, Models, NewJob, Owner, QueueCounts, QueueError, Store,
};

/// An accepted job is visible in every query.
pub async fn an_accepted_job_is_found_and_counted(store: &dyn Store) {
    let new = job(1);
    store.enqueue(T0, new.clone()).await.unwrap();
    let job = found(store, id(1)).await;
    assert_eq!(job.new, new);
    assert_eq!(
        (job.state, job.attempt, job.created_at),
        (JobState::Queued, 0, T0)
    );
    let queued_bytes = new.body.0.len();
    assert_eq!(
        store.counts(),
        QueueCounts {
            queued: 1,
            leased: 0,
            queued_bytes,
            by_priority: [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        }
    );
    next(store, T0).await.unwrap();
    assert_eq!(
        store.counts(),
        QueueCounts {
            queued: 0,
            leased: 1,
            ..QueueCounts::default()
        }
    );
}

/// An id stays taken while its job waits and after it has ended.
pub async fn an_id_is_never_used_twice(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let again = store.enqueue(T0, job(1)).await.unwrap_err();
    assert!(matches!(again, QueueError::Exists(_)), "{again}");
    store.cancel(T0, crate::Owner::Anyone, id(1)).await.unwrap();
    let again = store.enqueue(T0, job(1)).await.unwrap_err();
    assert!(matches!(again, QueueError::Exists(_)), "{again}");
}

/// The limit is per account, and only leaving jobs make room, not time.
pub async fn one_account_cannot_fill_the_queue(store: &dyn Store) {
    let wide = |n: usize| NewJob {
        id: JobId((n as u128).to_be_bytes()),
        ..job(1)
    };
    for n in 0..proto::limits::QUEUED_PER_ACCOUNT_MAX {
        store.enqueue(T0, wide(n)).await.unwrap();
    }
    let full = store.enqueue(T0, wide(5_000)).await.unwrap_err();
    assert_eq!(full.code(), ErrorCode::AccountFull);
    store
        .enqueue(
            T0,
            NewJob {
                account: job_of(1, "b").account,
                ..wide(5_000)
            },
        )
        .await
        .unwrap();
    next(store, T0).await.unwrap();
    store.enqueue(T0, wide(5_001)).await.unwrap();
}

/// Priority counts before the order of arrival.
pub async fn the_urgent_job_goes_first(store: &dyn Store) {
    for new in [urgent(1, 9), urgent(2, 5), urgent(3, 1), urgent(4, 5)] {
        store.enqueue(T0, new).await.unwrap();
    }
    assert_eq!(drain(store, 0).await, [3, 2, 4, 1]);
}

/// Age is the order of acceptance.
pub async fn of_equal_jobs_the_oldest_goes_first(store: &dyn Store) {
    for n in [7, 3, 9, 1] {
        store.enqueue(T0, job(n)).await.unwrap();
    }
    assert_eq!(drain(store, 0).await, [7, 3, 9, 1]);
}

/// A burst of one account delays a job of another by one job only.
pub async fn accounts_take_turns(store: &dyn Store) {
    for new in [
        job_of(1, "a"),
        job_of(2, "a"),
        job_of(3, "a"),
        job_of(4, "b"),
        job_of(5, "b"),
    ] {
        store.enqueue(T0, new).await.unwrap();
    }
    assert_eq!(drain(store, 0).await, [1, 4, 2, 5, 3]);
}

/// An account gets every other turn, and no job of it waits for more than one of another, which
/// submits a hundred times as many.
pub async fn a_flood_of_one_account_takes_no_more_than_every_other_turn(store: &dyn Store) {
    let mut ids = (1_u128..).map(|n| JobId(n.to_be_bytes()));
    for round in 0..10 {
        for name in iter::repeat_n("flood", 100).chain(["few"]) {
            let id = ids.next().unwrap();
            let new = NewJob {
                id,
                ..job_of(0, name)
            };
            store.enqueue(T0, new).await.unwrap();
        }
        let mut turns = Vec::new();
        for _ in 0..2 {
            turns.push(next(store, T0).await.unwrap().job.account.to_string());
        }
        turns.sort_unstable();
        assert_eq!(turns, ["few", "flood"], "in round {round}");
    }
}

/// A waiting job rises by one level per minute.
pub async fn waiting_makes_a_job_more_urgent(store: &dyn Store) {
    store.enqueue(at(0), urgent(1, 7)).await.unwrap();
    store.enqueue(at(119), urgent(2, 5)).await.unwrap();
    store.enqueue(at(119), urgent(3, 4)).await.unwrap();
    assert_eq!(next(store, at(119)).await.unwrap().job.id, id(3));
    assert_eq!(
        next(store, at(120)).await.unwrap().job.id,
        id(1),
        "level 5 now, and older"
    );
}

/// A worker gets no request that is too long for it, and learns how long the longest is that waits.
pub async fn what_is_too_long_for_a_worker_is_passed_over(store: &dyn Store) {
    assert_eq!(store.longest(), 0);
    for (n, bytes) in [(1, 10), (2, 1_000), (3, 100), (4, 1_000)] {
        let body = vec![b'x'; bytes].into();
        store.enqueue(T0, NewJob { body, ..job(n) }).await.unwrap();
    }
    let lend = async |request_max| {
        let query = LeaseQuery {
            request_max,
            ..anyone()
        };
        let leases = store.lease_many(T0, &query, LEASE, 1).await.unwrap();
        leases.first().map(|lease| lease.job.id)
    };
    assert_eq!(store.longest(), 1_000);
    assert_eq!(lend(999).await, Some(id(1)));
    assert_eq!(lend(99).await, None);
    assert_eq!(lend(1_000).await, Some(id(2)));
    assert_eq!(store.longest(), 1_000, "there is another one");
    store.cancel(T0, Owner::Anyone, id(4)).await.unwrap();
    assert_eq!(store.longest(), 100);
    store.reap(T0 + LEASE).await.unwrap();
    assert_eq!(store.longest(), 1_000, "it waits again");
}

/// A job that cannot run does not block the ones behind it.
pub async fn a_model_that_nobody_has_blocks_no_other(store: &dyn Store) {
    store
        .enqueue(
            T0,
            NewJob {
                priority: urgent(1, 1).priority,
                ..job_for(1, "rare")
            },
        )
        .await
        .unwrap();
    store.enqueue(T0, job_for(2, "common")).await.unwrap();
    let query = with_models(&["common", "other"]);
    assert_eq!(
        store
            .lease(T0, &query, LEASE)
            .await
            .unwrap()
            .unwrap()
            .job
            .id,
        id(2)
    );
    assert!(store.lease(T0, &query, LEASE).await.unwrap().is_none());
    assert_eq!(found(store, id(1)).await.state, JobState::Queued);
}

/// Model names are compared like in Ollama: `latest` is the default tag, and case does not matter.
pub async fn a_bare_model_name_is_its_latest_tag(store: &dyn Store) {
    store.enqueue(T0, job_for(1, "llama3")).await.unwrap();
    store.enqueue(T0, job_for(2, "Qwen:latest")).await.unwrap();
    for (model, n) in [("Llama3:latest", 1), ("qwen", 2)] {
        let lease = store
            .lease(T0, &with_models(&[model]), LEASE)
            .await
            .unwrap();
        assert_eq!(lease.unwrap().job.id, id(n));
    }
}

/// Workers of older systems do not name models.
pub async fn a_worker_that_names_no_models_is_lent_any(store: &dyn Store) {
    store.enqueue(T0, job_for(1, "x")).await.unwrap();
    assert!(
        store
            .lease(T0, &with_models(&[]), LEASE)
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.lease(T0, &anyone(), LEASE).await.unwrap().is_some());
}

/// A model is loaded beside running jobs; waiting never makes an ordinary job urgent.
pub async fn what_waits_for_no_slot_goes_before_all_and_is_lent_where_no_slot_is_free(
    store: &dyn Store,
) {
    let urgent_for = |n, model| NewJob {
        priority: Priority::URGENT,
        ..job_for(n, model)
    };
    let question = NewJob {
        priority: urgent(1, 1).priority,
        ..job_for(1, "m")
    };
    store.enqueue(T0, question).await.unwrap();
    store.enqueue(T0, urgent_for(2, "m")).await.unwrap();
    store.enqueue(T0, urgent_for(3, "m")).await.unwrap();
    store.enqueue(T0, urgent_for(4, "rare")).await.unwrap();
    let any = with_models(&["m:latest"]);
    let models = vec!["m:latest".parse().unwrap()];
    let without_slot = LeaseQuery {
        models: Models::OnlyUrgent(models),
        ..anyone()
    };
    let later = at(3_600);
    let lent = async |query| {
        let lease = store.lease(later, query, LEASE).await.unwrap();
        lease.map(|lease| lease.job.id)
    };
    assert_eq!(lent(&any).await, Some(id(2)));
    assert_eq!(lent(&without_slot).await, Some(id(3)));
    assert_eq!(lent(&without_slot).await, None);
    assert_eq!(lent(&any).await, Some(id(1)));
}

/// Jobs of other accounts do not even cause a wake-up.
pub async fn a_worker_gets_only_jobs_of_accounts_it_serves(store: &dyn Store) {
    store.enqueue(T0, job_of(1, "a")).await.unwrap();
    store.enqueue(T0, job_of(2, "b")).await.unwrap();
    let query = serving(&["b", "c"]);
    assert_eq!(
        store
            .lease(T0, &query, LEASE)
            .await
            .unwrap()
            .unwrap()
            .job
            .id,
        id(2)
    );
    assert!(store.lease(T0, &query, LEASE).await.unwrap().is_none());
}

/// The job fails instead, and its readers get the reason.
pub async fn a_job_past_its_deadline_is_never_lent(store: &dyn Store) {
    store
        .enqueue(
            T0,
            NewJob {
                deadline: Some(at(10)),
                ..job(1)
            },
        )
        .await
        .unwrap();
    store
        .enqueue(
            T0,
            NewJob {
                deadline: Some(at(20)),
                ..job(2)
            },
        )
        .await
        .unwrap();
    assert_eq!(store.reap(at(9)).await.unwrap(), Some(at(10)));
    assert!(
        next(store, at(10))
            .await
            .is_some_and(|lease| lease.job.id == id(2))
    );
    let late = found(store, id(1)).await;
    assert_eq!(late.state, JobState::Failed);
    assert_eq!(late.error.unwrap().code, ErrorCode::DeadlineExceeded);
}

/// Otherwise a job that no worker can run would occupy its account's limit for ever. It fails as if
/// its deadline had passed. A job with a deadline has only that one, and a leased job may continue.
pub async fn a_job_without_a_deadline_waits_for_so_long_and_no_longer(store: &dyn Store) {
    let day = DEFAULT_QUEUE_TIMEOUT.as_secs();
    let lasting = NewJob {
        deadline: Some(at(7 * day)),
        ..job_of(2, "b")
    };
    store.enqueue(T0, job(1)).await.unwrap();
    store.enqueue(T0, lasting).await.unwrap();
    store.enqueue(at(60), job_of(3, "c")).await.unwrap();
    let begun = store.lease(at(day - 1), &serving(&["c"]), LEASE).await;
    let begun = begun.unwrap().unwrap().token;
    store
        .extend(at(day - 1), begun, 2 * DEFAULT_QUEUE_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(store.reap(at(day - 1)).await.unwrap(), Some(at(day)));
    assert_eq!(found(store, id(1)).await.state, JobState::Queued);
    store.reap(at(day)).await.unwrap();
    let over = found(store, id(1)).await;
    assert_eq!(over.state, JobState::Failed);
    assert_eq!(over.error.unwrap().code, ErrorCode::DeadlineExceeded);
    for n in 2..=6 {
        store
            .extend(at(day * n), begun, 2 * DEFAULT_QUEUE_TIMEOUT)
            .await
            .unwrap();
        store.reap(at(day * n)).await.unwrap();
        assert_eq!(found(store, id(2)).await.state, JobState::Queued, "day {n}");
        assert_eq!(found(store, id(3)).await.state, JobState::Leased, "day {n}");
    }
    store
        .complete(at(day * 6), begun, 0, End::Completed)
        .await
        .unwrap();
}

/// A worker that takes a job late and vanishes costs the job none of its attempts, and the job is
/// not told that no worker took it. It still does not wait for ever.
pub async fn a_job_that_a_worker_lost_waits_twice_as_long_as_one_that_none_took(store: &dyn Store) {
    let day = DEFAULT_QUEUE_TIMEOUT.as_secs();
    store.enqueue(T0, job(1)).await.unwrap();
    store.enqueue(T0, job_of(2, "b")).await.unwrap();
    store.enqueue(T0, job_of(3, "c")).await.unwrap();
    let lost = store.lease(at(day - 1), &serving(&["a"]), LEASE).await;
    assert!(lost.unwrap().is_some());
    let back = store.lease(at(day - 1), &serving(&["b"]), LEASE).await;
    let (back, why) = (
        back.unwrap().unwrap(),
        JobError::new(ErrorCode::Draining, "restart"),
    );
    store
        .nack(at(day), back.token, Retry::Now, why)
        .await
        .unwrap();
    store.reap(at(day) + LEASE).await.unwrap();
    let untaken = found(store, id(3)).await.error.unwrap();
    assert!(untaken.message.starts_with("no worker took"), "{untaken:?}");
    for n in [1, 2] {
        assert_eq!(found(store, id(n)).await.state, JobState::Queued);
    }
    store.reap(at(2 * day - 1)).await.unwrap();
    let second = store.lease(at(2 * day - 1), &serving(&["b"]), LEASE).await;
    assert_eq!(second.unwrap().unwrap().token.attempt, 2);
    store.reap(at(2 * day) + LEASE).await.unwrap();
    for n in [1, 2] {
        let over = found(store, id(n)).await.error.unwrap();
        assert_eq!(over.code, ErrorCode::DeadlineExceeded);
        assert!(!over.message.contains("no worker took"), "{over:?}");
    }
}

/// An idle relay waits for this signal instead of polling.
pub async fn arrivals_tell_of_new_work_and_of_an_earlier_reap(store: &dyn Store) {
    let mut arrivals = store.arrivals();
    arrivals.mark_unchanged();
    store.enqueue(T0, job(1)).await.unwrap();
    arrivals.changed().await.unwrap();
    store.lease(T0, &anyone(), LEASE).await.unwrap().unwrap();
    arrivals.changed().await.unwrap();
    assert_eq!(store.reap(T0).await.unwrap(), Some(T0 + LEASE));
    arrivals.mark_unchanged();
    store
        .reap(T0 + LEASE + Duration::from_secs(1))
        .await
        .unwrap();
    arrivals.changed().await.unwrap();
}

async fn drain(store: &dyn Store, seconds: u64) -> Vec<u8> {
    let mut order = Vec::new();
    while let Some(lease) = next(store, at(seconds)).await {
        order.push(lease.job.id.0[0]);
    }
    order
}
