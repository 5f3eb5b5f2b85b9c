//! Rules for acceptance and for the order of leases.

use std::{sync::Arc, time::Duration};

use proto::{
    Dialect, End, ErrorCode, JobError, JobId, JobState, Op, Priority, WorkerId, worker::Retry,
};

use super::sample::{
    LEASE, T0, anyone, at, found, id, job, job_for, job_of, next, serving, urgent, with_models,
};
use crate::{
    DEFAULT_QUEUE_TIMEOUT, LeaseQuery, ModelPatterns, Models, NewJob, NewQuery, Owner, QueueCounts,
    QueueError, Store,
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

/// An account gets every other turn, however many jobs the other one submits, and whenever it
/// arrives.
pub async fn a_flood_of_one_account_takes_no_more_than_every_other_turn(store: &dyn Store) {
    for n in 0..200 {
        store.enqueue(T0, job_of(n, "flood")).await.unwrap();
    }
    let mut turns = Vec::new();
    for n in 200..210 {
        store.enqueue(T0, job_of(n, "few")).await.unwrap();
        for _ in 0..2 {
            turns.push(next(store, T0).await.unwrap().job.account.to_string());
        }
    }
    let few = turns.iter().filter(|account| *account == "few").count();
    assert_eq!(few, 10, "{turns:?}");
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

/// The requester can be told how long it may take.
pub async fn a_waiting_job_has_a_place_and_an_expected_wait(store: &dyn Store) {
    let serve = anyone().serve;
    let place = |now, n| store.position(now, id(n), &serve, &Models::Any);
    let mut moves = store.moves();
    for n in 1..=3 {
        store.enqueue(T0, job(n)).await.unwrap();
    }
    assert!(moves.has_changed().unwrap());
    let told = place(T0, 3).unwrap();
    assert_eq!((told.before, told.wait), (2, None), "nothing is known yet");

    let first = next(store, T0).await.unwrap().token;
    moves.borrow_and_update();
    assert_eq!(place(T0, 1), None, "it waits no more");
    assert_eq!(place(T0, 3).unwrap().before, 1);
    let ten = T0 + Duration::from_secs(10);
    store.complete(ten, first, 0, End::Completed).await.unwrap();
    assert!(!moves.has_changed().unwrap(), "nobody moved by that");
    let told = place(ten, 3).unwrap();
    let wait = Some(Duration::from_secs(20));
    assert_eq!((told.before, told.wait), (1, wait));
    store.cancel(ten, Owner::Anyone, id(2)).await.unwrap();
    assert!(moves.has_changed().unwrap());
    assert_eq!(place(ten, 3).unwrap().before, 0);
}

/// Jobs that a worker cannot be told of do not block those behind them.
pub async fn jobs_that_are_not_for_a_worker_do_not_stand_in_its_way(store: &dyn Store) {
    for n in 1..=30 {
        store.enqueue(T0, job(n)).await.unwrap();
    }
    let others = (1..=29).map(id).collect();
    let query = LeaseQuery {
        models: Models::AnyBut(Arc::new(others)),
        ..anyone()
    };
    let lease = store.lease(T0, &query, LEASE).await.unwrap().unwrap();
    assert_eq!(lease.token.job, id(30));
    assert!(store.lease(T0, &query, LEASE).await.unwrap().is_none());
    assert_eq!(next(store, T0).await.unwrap().token.job, id(1));
}

/// The patterns of the key apply to whatever models the worker reports, and to queries.
pub async fn a_worker_is_lent_only_models_that_its_key_allows(store: &dyn Store) {
    for (n, model) in [(1, "big"), (2, "small:1b"), (3, "small")] {
        store.enqueue(T0, job_for(n, model)).await.unwrap();
    }
    let new = NewQuery {
        job: NewJob {
            dialect: Dialect::Queries,
            ..job_for(4, "big")
        },
        project: 1,
        user: None,
    };
    store.create_query(T0, new).await.unwrap();
    let allowed_models = ModelPatterns::new(vec!["small*".parse().unwrap()]);
    for query in [anyone(), with_models(&["big", "small", "small:1b"])] {
        let query = LeaseQuery {
            allowed_models: allowed_models.clone(),
            ..query
        };
        let lease = store.lease(T0, &query, LEASE).await.unwrap().unwrap();
        assert!(lease.job.model.as_str().starts_with("small"));
    }
    for models in [Models::Any, Models::AnyForQueries] {
        let query = LeaseQuery {
            allowed_models: allowed_models.clone(),
            models,
            ..anyone()
        };
        assert!(store.lease(T0, &query, LEASE).await.unwrap().is_none());
    }
    assert_eq!(next(store, T0).await.unwrap().token.job, id(1));
}

/// Permission is needed whatever models the worker has; a change that needs a model goes to a
/// worker that has it.
pub async fn a_change_of_models_is_lent_only_where_it_is_allowed(store: &dyn Store) {
    let change = |n, op| NewJob {
        op,
        ..job_for(n, "b")
    };
    let (pull, delete) = (change(1, Op::Pull), change(2, Op::Delete));
    for new in [pull.clone(), delete.clone()] {
        store.enqueue(T0, new).await.unwrap();
    }
    let lent = async |query: &LeaseQuery| {
        let leases = store.lease_many(T0, query, LEASE, 9).await.unwrap();
        leases
            .into_iter()
            .map(|lease| lease.job)
            .collect::<Vec<_>>()
    };
    assert_eq!(lent(&anyone()).await, []);
    assert_eq!(lent(&with_models(&["b"])).await, []);
    let allowed = |models: &[&str]| LeaseQuery {
        accepts_model_changes: true,
        ..with_models(models)
    };
    assert_eq!(lent(&allowed(&["a"])).await, [pull]);
    assert_eq!(lent(&allowed(&["a", "b"])).await, [delete]);
}

/// The requester chose the worker; other workers do not see the job, whatever models they run.
pub async fn a_job_for_one_worker_is_lent_to_no_other(store: &dyn Store) {
    let named = |name: &str| WorkerId::new(name).unwrap();
    let chosen = |n: u8| NewJob {
        worker: Some(named("desk")),
        ..job(n)
    };
    store.enqueue(T0, chosen(1)).await.unwrap();
    assert_eq!(found(store, id(1)).await.new.worker, Some(named("desk")));
    let others = [anyone(), with_models(&["m"]), serving(&["a"])];
    for other in others.clone() {
        assert!(store.lease(T0, &other, LEASE).await.unwrap().is_none());
    }
    for (n, query) in (1..).zip(others) {
        let desk = LeaseQuery {
            worker: named("desk"),
            ..query
        };
        let lease = store.lease(T0, &desk, LEASE).await.unwrap().unwrap();
        assert_eq!((lease.token.job, lease.job), (id(n), chosen(n)));
        store.enqueue(T0, chosen(n + 1)).await.unwrap();
    }
    let elsewhere = LeaseQuery {
        worker: named("desk"),
        ..with_models(&["other"])
    };
    assert!(store.lease(T0, &elsewhere, LEASE).await.unwrap().is_none());
    // An expired lease does not make the job available to others.
    let later = T0 + LEASE + LEASE;
    store.reap(later).await.unwrap();
    assert!(next(store, later).await.is_none());
}

/// Jobs with and without a chosen worker are ordered together, by priority and age.
pub async fn a_job_for_one_worker_stands_in_nobodys_way(store: &dyn Store) {
    let desk = LeaseQuery {
        worker: WorkerId::new("desk").unwrap(),
        ..with_models(&["m"])
    };
    for n in 1..=4 {
        let worker = (n % 2 == 1).then(|| desk.worker.clone());
        store
            .enqueue(T0, NewJob { worker, ..job(n) })
            .await
            .unwrap();
    }
    let place = store
        .position(T0, id(3), &desk.serve, &desk.models)
        .unwrap();
    assert_eq!(place.before, 2, "all that the worker takes before");
    assert_eq!(next(store, T0).await.unwrap().token.job, id(2));
    for n in [1, 3, 4] {
        let lease = store.lease(T0, &desk, LEASE).await.unwrap().unwrap();
        assert_eq!(lease.token.job, id(n));
    }
}

/// Jobs left to other workers wait for them, unless they name this worker.
pub async fn a_worker_leaves_to_others_what_they_do_better(store: &dyn Store) {
    let desk = LeaseQuery {
        worker: WorkerId::new("desk").unwrap(),
        excluded_models: [job(1).model.canonical()].into(),
        ..with_models(&["M:latest", "other"])
    };
    for n in 1..=3 {
        let new = match n {
            1 => job(n),
            2 => job_for(n, "other"),
            _ => NewJob {
                worker: Some(desk.worker.clone()),
                ..job(n)
            },
        };
        store.enqueue(T0, new).await.unwrap();
    }
    for n in [2, 3] {
        let lease = store.lease(T0, &desk, LEASE).await.unwrap().unwrap();
        assert_eq!(lease.token.job, id(n));
    }
    assert!(store.lease(T0, &desk, LEASE).await.unwrap().is_none());
    assert_eq!(next(store, T0).await.unwrap().token.job, id(1));
}

/// Counts the jobs of the accounts and models that the worker serves, of any priority; leased jobs
/// no longer wait.
pub async fn what_waits_for_a_worker_is_counted_up_to_a_bound(store: &dyn Store) {
    let first = NewJob {
        priority: Priority::URGENT,
        ..job(3)
    };
    for new in [
        job(1),
        urgent(2, 1),
        first,
        job_of(4, "b"),
        job_for(5, "other"),
    ] {
        store.enqueue(T0, new).await.unwrap();
    }
    let of_m = with_models(&["m"]);
    for (query, waiting) in [
        (anyone(), 5),
        (of_m.clone(), 4),
        (with_models(&["m", "other"]), 5),
        (with_models(&["neither"]), 0),
        (serving(&["a"]), 4),
        (serving(&["b"]), 1),
    ] {
        assert_eq!(store.waiting(&query, 100), waiting, "{query:?}");
        assert_eq!(store.waiting(&query, 2), waiting.min(2), "{query:?}");
        assert_eq!(store.waiting(&query, waiting), waiting, "{query:?}");
    }
    let left = LeaseQuery {
        excluded_models: [job(1).model.canonical()].into(),
        ..of_m.clone()
    };
    assert_eq!(store.waiting(&left, 100), 0, "it is left to others");
    let urgent_only = LeaseQuery {
        models: Models::OnlyUrgent(vec![job(1).model]),
        ..anyone()
    };
    assert_eq!(store.waiting(&urgent_only, 100), 1);
    store.lease(T0, &of_m, LEASE).await.unwrap().unwrap();
    assert_eq!(store.waiting(&of_m, 100), 3);
}
