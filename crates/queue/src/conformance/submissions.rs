//! Rules for submissions: one job per idempotency key, and paged searches.

use std::time::Duration;

use proto::{End, ErrorCode, JobError, JobState, Op, Timestamp};

use super::sample::{T0, account, at, id, job, job_for, job_of, leased, next};
use crate::{
    Cursor, Extras, FETCHED_RETENTION, IdempotencyKey, JobFilter, JobPage, KEY_RETENTION, NewJob,
    Owner, QueueError, RESULT_RETENTION, Store, Submitted,
};

/// Returns the extras of a job under an idempotency key.
#[must_use]
pub fn named(key: &str, fingerprint: u8) -> Extras {
    Extras {
        idempotency_key: Some(IdempotencyKey {
            key: key.into(),
            fingerprint: [fingerprint; 32],
        }),
        ..Extras::default()
    }
}

fn ids(page: &JobPage) -> Vec<u8> {
    page.jobs.iter().map(|job| job.new.id.0[0]).collect()
}

async fn search(store: &dyn Store, filter: JobFilter) -> Vec<u8> {
    ids(&store.search(Owner::Anyone, &filter).await.unwrap())
}

const ALL: JobFilter = JobFilter {
    state: None,
    model: None,
    op: None,
    since: None,
    until: None,
    dead: false,
    after: None,
    limit: 100,
};

/// The job may be queued, running or ended.
pub async fn a_name_stands_for_one_job(store: &dyn Store) {
    let again = async |n| store.submit(T0, job(n), named("k", 7)).await.unwrap().id();
    assert_eq!(again(1).await, id(1));
    assert_eq!(again(2).await, id(1));
    let token = next(store, T0).await.unwrap().token;
    assert_eq!(again(3).await, id(1));
    store
        .complete(T0, token, 0, proto::End::Completed)
        .await
        .unwrap();
    assert_eq!(again(4).await, id(1));
    let found = store.submitted(&account("a"), "k").await.unwrap();
    assert_eq!(found, Some((id(1), [7; 32])));
    assert_eq!(search(store, ALL).await, [1]);
    assert_eq!(store.counts().queued, 0);
}

/// The first request counts.
pub async fn a_name_cannot_stand_for_two_requests(store: &dyn Store) {
    store.submit(T0, job(1), named("k", 7)).await.unwrap();
    let refused = store.submit(T0, job(2), named("k", 8)).await.unwrap_err();
    assert!(matches!(refused, QueueError::OtherRequest), "{refused}");
    assert_eq!(search(store, ALL).await, [1]);
}

/// Two accounts may use the same key for different jobs.
pub async fn accounts_name_their_jobs_apart(store: &dyn Store) {
    store.submit(T0, job(1), named("k", 7)).await.unwrap();
    let other = store.submit(T0, job_of(2, "b"), named("k", 8)).await;
    assert_eq!(other.unwrap().id(), id(2));
    assert_eq!(store.submitted(&account("c"), "k").await.unwrap(), None);
}

/// A job that was not accepted takes no key.
pub async fn a_name_that_was_refused_is_free(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let refused = store.submit(T0, job(1), named("k", 7)).await.unwrap_err();
    assert!(matches!(refused, QueueError::Exists(_)), "{refused}");
    assert_eq!(store.submitted(&account("a"), "k").await.unwrap(), None);
    let free = store.submit(T0, job(2), named("k", 8)).await;
    assert_eq!(free.unwrap().id(), id(2));
}

/// The other callers find that job.
pub async fn of_many_who_ask_at_once_one_makes_the_job(store: &dyn Store) {
    let ask = |n| store.submit(T0, job(n), named("k", 7));
    let (a, b, c, d) = tokio::join!(ask(1), ask(2), ask(3), ask(4));
    let first = a.unwrap().id();
    for told in [b, c, d] {
        assert_eq!(told.unwrap().id(), first);
    }
    assert_eq!(store.counts().queued, 1);
}

/// Submits a job under the key `k` and cancels it; returns the time at which it is erased.
async fn cancelled_under_a_name(store: &dyn Store) -> Timestamp {
    store.submit(T0, job(1), named("k", 7)).await.unwrap();
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    T0 + RESULT_RETENTION
}

/// A late repeat finds the job that was, and makes no second one.
pub async fn a_name_outlives_its_job_until_two_days_after_its_submission(store: &dyn Store) {
    let erased = cancelled_under_a_name(store).await;
    let free = IdempotencyKey::kept_until(T0);
    let almost = Timestamp(free.0 - 1);
    for now in [erased, almost] {
        assert_eq!(store.reap(now).await.unwrap(), Some(free));
        assert!(store.get(Owner::Anyone, id(1)).await.unwrap().is_none());
        let again = store.submit(now, job(2), named("k", 7)).await;
        assert_eq!(again.unwrap(), Submitted::Known(id(1)));
        let other = store.submit(now, job(2), named("k", 8)).await.unwrap_err();
        assert!(matches!(other, QueueError::OtherRequest), "{other}");
        let found = store.submitted(&account("a"), "k").await.unwrap();
        assert_eq!(found, Some((id(1), [7; 32])));
        assert_eq!(store.submitted(&account("b"), "k").await.unwrap(), None);
        assert_eq!(store.counts().queued, 0);
    }
    assert_eq!(store.reap(free).await.unwrap(), None);
    assert_eq!(store.submitted(&account("a"), "k").await.unwrap(), None);
    let next = store.submit(free, job(3), named("k", 8)).await;
    assert_eq!(next.unwrap().id(), id(3));
}

/// A job may wait and be kept for longer than that.
pub async fn a_name_stays_for_as_long_as_its_job(store: &dyn Store) {
    let later = T0 + 2 * KEY_RETENTION;
    let waiting = NewJob {
        deadline: Some(later + RESULT_RETENTION),
        ..job(1)
    };
    store.submit(T0, waiting, named("k", 7)).await.unwrap();
    let again = async |now| store.submit(now, job(2), named("k", 7)).await.unwrap().id();
    store.reap(later).await.unwrap();
    assert_eq!(again(later).await, id(1));
    store.cancel(later, Owner::Anyone, id(1)).await.unwrap();
    let almost = later + (RESULT_RETENTION - Duration::from_millis(1));
    store.reap(almost).await.unwrap();
    assert_eq!(again(almost).await, id(1));
    let erased = later + RESULT_RETENTION;
    assert_eq!(store.reap(erased).await.unwrap(), None);
    assert_eq!(again(erased).await, id(2));
}

/// A retry whose job is erased may be made again.
pub async fn a_name_of_the_relays_own_goes_with_its_job(store: &dyn Store) {
    let retry = IdempotencyKey::retry(id(9));
    let extras = || Extras {
        idempotency_key: Some(retry.clone()),
        ..Extras::default()
    };
    store.submit(T0, job(1), extras()).await.unwrap();
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    let erased = T0 + RESULT_RETENTION;
    assert_eq!(store.reap(erased).await.unwrap(), None);
    let found = store.submitted(&account("a"), &retry.key).await;
    assert_eq!(found.unwrap(), None);
    let again = store.submit(erased, job(2), extras()).await;
    assert_eq!(again.unwrap().id(), id(2));
}

/// Otherwise its erasure would wait until the key is free.
pub async fn an_end_is_told_to_whoever_reaps_also_while_only_a_name_is_kept(store: &dyn Store) {
    let now = cancelled_under_a_name(store).await;
    let token = leased(store, now, 2).await;
    store.reap(now).await.unwrap();
    let mut arrivals = store.arrivals();
    arrivals.mark_unchanged();
    store.complete(now, token, 0, End::Completed).await.unwrap();
    assert!(arrivals.has_changed().unwrap(), "nobody was told");
    let next = store.reap(now).await.unwrap();
    assert_eq!(next, Some(now + FETCHED_RETENTION));
}

/// Searches by state, model, operation and age, alone and combined.
pub async fn jobs_are_searched_by_what_they_are(store: &dyn Store) {
    leased(store, T0, 1).await;
    store.enqueue(at(10), job_for(2, "llama3")).await.unwrap();
    let embed = NewJob {
        op: Op::Embed,
        ..job_for(3, "llama3:latest")
    };
    store.enqueue(at(20), embed).await.unwrap();
    store.enqueue(at(30), job(4)).await.unwrap();
    store.cancel(at(30), Owner::Anyone, id(4)).await.unwrap();

    let state = |state| JobFilter {
        state: Some(state),
        ..ALL
    };
    assert_eq!(search(store, ALL).await, [4, 3, 2, 1]);
    assert_eq!(search(store, state(JobState::Queued)).await, [3, 2]);
    assert_eq!(search(store, state(JobState::Leased)).await, [1]);
    assert_eq!(search(store, state(JobState::Cancelled)).await, [4]);
    let llama = JobFilter {
        model: job_for(0, "Llama3").model.into(),
        ..ALL
    };
    assert_eq!(search(store, llama.clone()).await, [3, 2]);
    let chats = JobFilter {
        op: Some(Op::Chat),
        ..llama
    };
    assert_eq!(search(store, chats).await, [2]);
    let between = JobFilter {
        since: Some(at(10)),
        until: Some(at(30)),
        ..ALL
    };
    assert_eq!(search(store, between).await, [3, 2], "from, and before");
}

/// The waiting jobs of everybody are found page by page, without those that leave meanwhile.
pub async fn waiting_jobs_are_paged_newest_first(store: &dyn Store) {
    for n in 1..=5 {
        let new = if n == 3 { job_of(n, "b") } else { job(n) };
        store.enqueue(T0, new).await.unwrap();
    }
    let waiting = JobFilter {
        state: Some(JobState::Queued),
        limit: 2,
        ..ALL
    };
    let first = store.search(Owner::Anyone, &waiting).await.unwrap();
    assert_eq!(ids(&first), [5, 4]);
    assert!(first.jobs[0].new.body.0.is_empty());
    store.cancel(T0, Owner::Anyone, id(2)).await.unwrap();
    let rest = JobFilter {
        after: first.next,
        ..waiting.clone()
    };
    let last = store.search(Owner::Anyone, &rest).await.unwrap();
    assert_eq!((ids(&last), last.next), (vec![3, 1], None));
    let b = account("b");
    let own = store.search(Owner::Account(&b), &waiting).await.unwrap();
    assert_eq!(ids(&own), [3]);
}

/// No job is shown twice and none is left out.
pub async fn pages_follow_each_other_whatever_is_accepted_meanwhile(store: &dyn Store) {
    for n in 1..=5 {
        // Several jobs in one millisecond.
        let new = if n == 3 { job_of(n, "b") } else { job(n) };
        store.enqueue(at(u64::from(n / 2)), new).await.unwrap();
    }
    let a = account("a");
    for (owner, whole) in [
        (Owner::Account(&a), &[5, 4, 2, 1][..]),
        (Owner::Anyone, &[5, 4, 3, 2, 1]),
    ] {
        let mut seen = Vec::new();
        let mut after: Option<Cursor> = None;
        for _ in 0..10 {
            let filter = JobFilter {
                until: Some(at(100)),
                after,
                limit: 2,
                ..ALL
            };
            let page = store.search(owner, &filter).await.unwrap();
            seen.extend(ids(&page));
            after = page.next;
            if after.is_none() {
                break;
            }
            let n = 100 + store.list(Owner::Anyone, 100).await.unwrap().len();
            let late = job(u8::try_from(n).unwrap());
            store.enqueue(at(200), late).await.unwrap();
        }
        assert_eq!(seen, whole);
    }
}

/// No filter makes foreign jobs visible.
pub async fn a_search_shows_no_foreign_job(store: &dyn Store) {
    store.enqueue(T0, job_of(1, "a")).await.unwrap();
    store.enqueue(T0, job_of(2, "b")).await.unwrap();
    let b = account("b");
    let page = store.search(Owner::Account(&b), &ALL).await.unwrap();
    assert_eq!(ids(&page), [2]);
    assert!(page.jobs[0].new.body.0.is_empty());
}

/// Dead jobs are found page by page by everybody who may see them, and no longer after a retry.
pub async fn a_failed_job_is_dead_until_it_is_tried_again(store: &dyn Store) {
    let dead = JobFilter { dead: true, ..ALL };
    for (n, account) in [(1, "a"), (2, "b"), (3, "a")] {
        store.enqueue(T0, job_of(n, account)).await.unwrap();
        let token = next(store, T0).await.unwrap().token;
        let error = JobError::new(ErrorCode::EngineFailed, "broke off");
        let ended = store.complete(T0, token, 0, End::Failed { error }).await;
        ended.unwrap();
    }
    leased(store, T0, 4).await;
    store.enqueue(T0, job(5)).await.unwrap();
    store.cancel(T0, Owner::Anyone, id(5)).await.unwrap();
    assert_eq!(search(store, dead.clone()).await, [3, 2, 1]);
    assert_eq!(store.count_dead(9).await.unwrap(), 3);
    assert_eq!(store.count_dead(2).await.unwrap(), 2, "and no further");
    let own = store.search(Owner::Account(&account("a")), &dead).await;
    assert_eq!(ids(&own.unwrap()), [3, 1]);
    let one = JobFilter {
        limit: 1,
        ..dead.clone()
    };
    let first = store.search(Owner::Anyone, &one).await.unwrap();
    let after = first.next;
    assert!(after.is_some());
    let rest = JobFilter {
        after,
        ..dead.clone()
    };
    assert_eq!(search(store, rest).await, [2, 1]);

    let retry = |of, n| {
        let idempotency_key = Some(IdempotencyKey::retry(of));
        let extras = Extras {
            idempotency_key,
            ..Extras::default()
        };
        store.submit(T0, job(n), extras)
    };
    assert_eq!(retry(id(3), 6).await.unwrap().id(), id(6));
    assert_eq!(
        retry(id(3), 7).await.unwrap().id(),
        id(6),
        "one job, however often"
    );
    assert_eq!(search(store, dead).await, [2, 1]);
    assert_eq!(store.count_dead(9).await.unwrap(), 2);
}
