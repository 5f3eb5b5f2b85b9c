//! Rules for queries: numbered, stored with their jobs, and erased with them.

use proto::{Body, Dialect, End, JobState};

use super::sample::{LEASE, T0, account, anyone, at, id, job, job_of, next};
use crate::{
    Claim, LISTED_MAX, LOGS_MAX, LeaseQuery, Models, NewQuery, Owner, QueryId, RESULT_RETENTION,
    Store,
};

/// Queues the `n`-th query, of the account `a`.
async fn asked(store: &dyn Store, n: u8) -> QueryId {
    let new = NewQuery {
        job: crate::NewJob {
            dialect: Dialect::Queries,
            ..job(n)
        },
        project: 7,
        user: Some(5),
    };
    store.create_query(T0, new).await.unwrap()
}

fn queries_only() -> LeaseQuery {
    LeaseQuery {
        models: Models::AnyForQueries,
        ..anyone()
    }
}

/// A query is returned in full, with its job.
pub async fn a_query_is_found_by_its_number_and_its_job(store: &dyn Store) {
    let first = asked(store, 1).await;
    let second = asked(store, 2).await;
    assert!(second > first, "{second} after {first}");
    let found = store.find_query(Owner::Anyone, second).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.project, found.user, found.logs), (7, Some(5), 0));
    assert_eq!(found.job.new.body, job(2).body);
    assert_eq!(store.query_of(id(2)).await.unwrap(), Some(second));
    store.enqueue(T0, job(3)).await.unwrap();
    assert_eq!(store.query_of(id(3)).await.unwrap(), None, "no query");
}

/// A foreign query looks like one that never existed.
pub async fn a_query_of_another_account_is_not_found(store: &dyn Store) {
    let first = asked(store, 1).await;
    let other = account("b");
    let other = Owner::Account(&other);
    assert_eq!(store.find_query(other, first).await.unwrap(), None);
    assert_eq!(
        store.list_queries(other, &[], 0, 9).await.unwrap(),
        (0, vec![])
    );
}

/// Other jobs that are older or more urgent do not matter.
pub async fn who_asks_for_queries_gets_the_oldest_and_nothing_else(store: &dyn Store) {
    store.enqueue(T0, job(9)).await.unwrap();
    asked(store, 1).await;
    asked(store, 2).await;
    store.enqueue(T0, job_of(8, "b")).await.unwrap();
    for n in [1, 2] {
        let lease = store.lease(at(1), &queries_only(), LEASE).await.unwrap();
        assert_eq!(lease.unwrap().token.job, id(n));
    }
    let none = store.lease(at(1), &queries_only(), LEASE).await.unwrap();
    assert!(none.is_none());
    // A lost lease makes the query available again.
    let back = store.lease(at(100), &queries_only(), LEASE).await.unwrap();
    assert_eq!(back.unwrap().token.attempt, 2);
}

/// Any worker may run a query.
pub async fn a_query_is_a_job_like_any_other(store: &dyn Store) {
    asked(store, 1).await;
    assert_eq!(next(store, at(1)).await.unwrap().token.job, id(1));
}

/// A new claim drops the draft of the previous claimant.
pub async fn a_claim_and_a_draft_are_kept(store: &dyn Store) {
    let first = asked(store, 1).await;
    let claim = |by: &str, attempt| Claim {
        by: by.into(),
        attempt,
        at: at(2),
    };
    store.claim_query(first, claim("one", 1)).await.unwrap();
    store.draft_query(first, "draft".into()).await.unwrap();
    let found = store
        .find_query(Owner::Anyone, first)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.claim, Some(claim("one", 1)));
    assert_eq!(found.draft, Some("draft".into()));
    store.claim_query(first, claim("two", 2)).await.unwrap();
    let found = store
        .find_query(Owner::Anyone, first)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.claim, found.draft), (Some(claim("two", 2)), None));
}

/// The number of entries is limited.
pub async fn log_entries_are_kept_in_order(store: &dyn Store) {
    let first = asked(store, 1).await;
    for n in ["one", "two"] {
        let entry = store.log_query(at(1), first, n.into(), 2).await.unwrap();
        assert_eq!(entry.unwrap().text, n.into());
    }
    let none = store
        .log_query(at(1), first, "three".into(), 2)
        .await
        .unwrap();
    assert_eq!(none, None, "full");
    let none = store
        .log_query(at(1), first + 1, "x".into(), 2)
        .await
        .unwrap();
    assert_eq!(none, None, "no such query");
    let logs = store.query_logs(first).await.unwrap();
    let texts: Vec<_> = logs.iter().map(|log| log.text.clone()).collect();
    assert_eq!(texts, ["one".into(), "two".into()]);
    let found = store.find_query(Owner::Anyone, first).await.unwrap();
    assert_eq!(found.unwrap().logs, 2);
}

/// The list is filtered by state and paged.
pub async fn queries_are_listed_newest_first(store: &dyn Store) {
    let mut ids = Vec::new();
    for n in 1..=4 {
        ids.push(asked(store, n).await);
    }
    store.lease(at(1), &queries_only(), LEASE).await.unwrap();
    let listed = async |states: &[JobState], skip, limit| {
        let owner = account("a");
        let owner = Owner::Account(&owner);
        let (count, found) = store
            .list_queries(owner, states, skip, limit)
            .await
            .unwrap();
        (
            count,
            found.iter().map(|query| query.id).collect::<Vec<_>>(),
        )
    };
    assert_eq!(listed(&[], 0, 2).await, (4, vec![ids[3], ids[2]]));
    assert_eq!(listed(&[], 2, 9).await, (4, vec![ids[1], ids[0]]));
    assert_eq!(listed(&[JobState::Leased], 0, 9).await, (1, vec![ids[0]]));
    assert_eq!(listed(&[JobState::Failed], 0, 9).await, (0, vec![]));
}

/// A list must fit into memory, and so must the log of one query.
pub async fn what_is_long_stands_in_the_query_itself_only(store: &dyn Store) {
    let long: Body = "x".repeat(LISTED_MAX + 1).into();
    let mut new = NewQuery {
        job: job(1),
        project: 7,
        user: None,
    };
    new.job.body = long.clone();
    let first = store.create_query(T0, new).await.unwrap();
    store.draft_query(first, long.clone()).await.unwrap();
    let second = asked(store, 2).await;
    store.draft_query(second, "so far".into()).await.unwrap();
    let (_, listed) = store.list_queries(Owner::Anyone, &[], 0, 9).await.unwrap();
    let [short, cut] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert_eq!(short.job.new.body, job(2).body);
    assert_eq!(short.draft, Some("so far".into()));
    assert_eq!(cut.job.new.body, Body::default());
    assert_eq!(cut.draft, None);
    let whole = store.find_query(Owner::Anyone, first).await.unwrap();
    let whole = whole.unwrap();
    assert_eq!(
        (whole.job.new.body, whole.draft),
        (long.clone(), Some(long))
    );

    let half: Body = "y".repeat(LOGS_MAX / 2).into();
    for fits in [true, true, false] {
        let entry = store.log_query(T0, first, half.clone(), 9).await.unwrap();
        assert_eq!(entry.is_some(), fits);
    }
}

/// Its log entries are erased, too, and its number is not reused.
pub async fn a_query_goes_with_its_job(store: &dyn Store) {
    let first = asked(store, 1).await;
    let second = asked(store, 2).await;
    assert!(
        !store.delete_query(first).await.unwrap(),
        "it has not ended"
    );
    for _ in 0..2 {
        let lease = next(store, at(1)).await.unwrap();
        let ended = store.complete(at(1), lease.token, 0, End::Completed).await;
        ended.unwrap();
    }
    store.log_query(at(1), second, "x".into(), 9).await.unwrap();
    assert!(store.delete_query(second).await.unwrap());
    assert!(!store.delete_query(second).await.unwrap());
    assert_eq!(store.find_query(Owner::Anyone, second).await.unwrap(), None);
    assert!(store.get(Owner::Anyone, id(2)).await.unwrap().is_none());
    store.reap(at(1) + RESULT_RETENTION).await.unwrap();
    assert_eq!(store.find_query(Owner::Anyone, first).await.unwrap(), None);
    assert!(asked(store, 3).await > second);
}
