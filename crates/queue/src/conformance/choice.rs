//! Rules about which worker a job goes to, and about its place among those that wait.

use std::{sync::Arc, time::Duration};

use proto::{Dialect, End, Op, Priority, WorkerId};

use super::sample::{
    LEASE, T0, anyone, found, id, job, job_for, job_of, next, serving, urgent, with_models,
};
use crate::{LeaseQuery, ModelPatterns, Models, NewJob, NewQuery, Owner, Store};

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

/// Longer requests keep their place, and stand in no shorter one's way.
pub async fn a_worker_is_lent_only_requests_that_it_has_room_for(store: &dyn Store) {
    for (n, bytes) in [(1, 30), (2, 20), (3, 21)] {
        let body = vec![b' '; bytes].into();
        store.enqueue(T0, NewJob { body, ..job(n) }).await.unwrap();
    }
    let lent = async |request_max| {
        let query = LeaseQuery {
            request_max,
            ..with_models(&["m"])
        };
        let lease = store.lease(T0, &query, LEASE).await.unwrap();
        lease.map(|lease| lease.token.job)
    };
    assert_eq!(lent(20).await, Some(id(2)));
    assert_eq!(lent(20).await, None);
    assert_eq!(lent(usize::MAX).await, Some(id(1)));
    assert_eq!(lent(21).await, Some(id(3)));
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
