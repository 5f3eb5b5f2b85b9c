//! Rules for reading logs, and for whose jobs a caller may read.

use proto::{End, ErrorCode, worker::Retry};

use super::sample::{
    LEASE, T0, account, after, at, failed, id, job, job_of, leased, lines, next, page, texts, why,
};
use crate::{Owner, QueueError, Store};

/// Reading a token waits for no disk.
pub async fn a_line_is_readable_as_soon_as_it_was_taken(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
    let head = log.head();
    store
        .append(T0, token, 1, lines(&["one", "two"]))
        .await
        .unwrap();
    assert_eq!(head.borrow().last, after(1, 2));
    let page = log.read(after(1, 1), usize::MAX).await.unwrap();
    assert_eq!(
        (texts(&page), page.chunks[0].n),
        (vec!["two".to_owned()], 2)
    );
    assert_eq!((page.attempt, page.restarted, page.end), (1, false, None));
}

/// After a lost acknowledgement the worker sends again from the last line it knows to be stored.
pub async fn repeated_lines_are_skipped(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store
        .append(T0, token, 1, lines(&["1", "2"]))
        .await
        .unwrap();
    store
        .append(T0, token, 1, lines(&["other", "2", "3"]))
        .await
        .unwrap();
    store.append(T0, token, 2, lines(&["2"])).await.unwrap();
    assert_eq!(
        texts(&page(store, id(1), after(0, 0)).await),
        ["1", "2", "3"]
    );
}

/// The error tells the worker where to continue.
pub async fn a_gap_is_refused_and_names_the_last_line(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.append(T0, token, 1, lines(&["1"])).await.unwrap();
    for first in [0, 3] {
        let refused = store
            .append(T0, token, first, lines(&["x"]))
            .await
            .unwrap_err();
        assert!(matches!(refused, QueueError::Gap { stored: 1, got, .. } if got == first));
    }
    assert_eq!(texts(&page(store, id(1), after(0, 0)).await), ["1"]);
}

/// A client that streams to somebody must not wait for an attempt that may never come.
pub async fn a_log_that_nobody_writes_any_more_says_so(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
    let mut head = log.head();
    store.append(T0, token, 1, lines(&["one"])).await.unwrap();
    assert!(!head.borrow_and_update().released);
    store
        .nack(T0, token, Retry::Now, why(ErrorCode::EngineUnavailable))
        .await
        .unwrap();
    assert!(head.borrow_and_update().released);
    assert_eq!(head.borrow().last, after(1, 1));

    next(store, T0).await.unwrap();
    assert!(!head.borrow_and_update().released);
    store.reap(T0 + LEASE).await.unwrap();
    assert!(head.borrow_and_update().released);
}

/// One handle works for the whole life of a job.
pub async fn a_reader_follows_a_job_from_the_queue_to_its_end(store: &dyn Store) {
    store.enqueue(T0, job(1)).await.unwrap();
    let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
    let mut head = log.head();
    assert_eq!(head.borrow_and_update().last, after(0, 0));
    let token = next(store, T0).await.unwrap().token;
    head.wait_for(|head| head.last == after(1, 0))
        .await
        .unwrap();
    store.append(T0, token, 1, lines(&["x"])).await.unwrap();
    head.wait_for(|head| head.last == after(1, 1))
        .await
        .unwrap();
    store.complete(T0, token, 1, End::Completed).await.unwrap();
    assert_eq!(head.borrow_and_update().end, Some(End::Completed));
    let page = log.read(after(0, 0), usize::MAX).await.unwrap();
    assert_eq!(
        (texts(&page), page.end),
        (vec!["x".to_owned()], Some(End::Completed))
    );
    assert!(!page.restarted);
}

/// The lines read so far are void; the page begins at line 1 of the new attempt.
pub async fn a_reader_of_an_older_attempt_is_told_it_restarted(store: &dyn Store) {
    let first = leased(store, T0, 1).await;
    store
        .append(T0, first, 1, lines(&["old", "older"]))
        .await
        .unwrap();
    let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
    let mut head = log.head();
    let second = next(store, T0 + LEASE).await.unwrap().token;
    head.wait_for(|head| head.last == after(2, 0))
        .await
        .unwrap();
    let empty = log.read(after(1, 2), usize::MAX).await.unwrap();
    assert!(empty.restarted && empty.chunks.is_empty() && empty.attempt == 2);
    store
        .append(T0 + LEASE, second, 1, lines(&["new"]))
        .await
        .unwrap();
    store
        .complete(T0 + LEASE, second, 1, End::Completed)
        .await
        .unwrap();
    for from in [after(1, 1), after(1, 2)] {
        let page = page(store, id(1), from).await;
        assert!(page.restarted);
        assert_eq!((page.attempt, texts(&page)), (2, vec!["new".to_owned()]));
        assert_eq!(page.end, Some(End::Completed));
    }
    assert!(
        !page(store, id(1), after(0, 0)).await.restarted,
        "it has nothing to replace"
    );
}

/// Slow readers get small pages, but never an empty one while there is more.
pub async fn a_page_holds_what_was_asked_and_at_least_one_line(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store
        .append(T0, token, 1, lines(&["1234", "5678", "90"]))
        .await
        .unwrap();
    for ended in [false, true] {
        if ended {
            store.complete(T0, token, 3, End::Completed).await.unwrap();
        }
        let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
        for (bytes, count) in [(0, 1), (4, 1), (7, 1), (8, 2), (10, 3)] {
            let page = log.read(after(1, 0), bytes).await.unwrap();
            assert_eq!(page.chunks.len(), count, "{bytes}");
            assert_eq!(page.end.is_some(), ended && count == 3, "{bytes}");
        }
    }
}

/// A reader may continue from any position it was given.
pub async fn an_ended_log_is_read_again_from_anywhere(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store
        .append(T0, token, 1, lines(&["1", "2", "3"]))
        .await
        .unwrap();
    store.complete(T0, token, 3, End::Completed).await.unwrap();
    for n in 0..=4 {
        let page = page(store, id(1), after(1, n)).await;
        assert_eq!(page.chunks.len() as u64, 3_u64.saturating_sub(n));
        assert_eq!(page.end, Some(End::Completed));
    }
    let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
    assert_eq!(log.head().borrow().last, after(1, 3));
    assert_eq!(log.head().borrow().end, Some(End::Completed));
}

/// The error comes after the lines.
pub async fn a_job_that_failed_half_way_keeps_its_lines(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.append(T0, token, 1, lines(&["half"])).await.unwrap();
    store
        .nack(at(1), token, Retry::Never, why(ErrorCode::EngineFailed))
        .await
        .unwrap();
    let page = page(store, id(1), after(0, 0)).await;
    assert_eq!(texts(&page), ["half"]);
    assert_eq!(page.end, Some(failed(ErrorCode::EngineFailed)));
}

/// A worker may forget stored lines, so they must be stored before the end.
pub async fn lines_are_stored_without_being_asked_for(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store
        .append(T0, token, 1, lines(&["1", "2"]))
        .await
        .unwrap();
    while store.stored(token).await.unwrap() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.append(T0, token, 1, Vec::new()).await.unwrap(), 2);
}

/// The account is known while the job waits, runs and has ended; `None` for a job that does not
/// exist.
pub async fn the_account_of_a_job_is_known_from_first_to_last(store: &dyn Store) {
    assert_eq!(store.account(id(1)).await.unwrap(), None);
    store.enqueue(T0, job(1)).await.unwrap();
    let mine = Some(job(1).account);
    assert_eq!(store.account(id(1)).await.unwrap(), mine);
    let token = next(store, T0).await.unwrap().token;
    assert_eq!(store.account(id(1)).await.unwrap(), mine);
    store.complete(T0, token, 0, End::Completed).await.unwrap();
    assert_eq!(store.account(id(1)).await.unwrap(), mine);
    assert_eq!(store.account(id(2)).await.unwrap(), None);
}

/// Another account cannot even tell that the job exists.
pub async fn another_account_sees_nothing(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    let (own, other) = (account("a"), account("b"));
    for ended in [false, true] {
        if ended {
            store.complete(T0, token, 0, End::Completed).await.unwrap();
        }
        let other = Owner::Account(&other);
        assert!(store.get(other, id(1)).await.unwrap().is_none());
        assert!(store.log(other, id(1)).await.unwrap().is_none());
        assert!(store.list(other, 10).await.unwrap().is_empty());
        let refused = store.cancel(T0, other, id(1)).await.unwrap_err();
        let unknown = store.cancel(T0, other, id(2)).await.unwrap_err();
        assert_eq!(
            (refused.code(), unknown.code()),
            (ErrorCode::UnknownJob, ErrorCode::UnknownJob)
        );
        assert!(
            store
                .get(Owner::Account(&own), id(1))
                .await
                .unwrap()
                .is_some()
        );
        assert!(
            store
                .log(Owner::Account(&own), id(1))
                .await
                .unwrap()
                .is_some()
        );
    }
}

/// A list is an overview and contains no prompts.
pub async fn jobs_are_listed_newest_first_and_without_their_bodies(store: &dyn Store) {
    for (n, name) in [(3, "a"), (1, "b"), (2, "a"), (4, "a")] {
        store.enqueue(T0, job_of(n, name)).await.unwrap();
    }
    let own = account("a");
    for (owner, limit, expected) in [
        (Owner::Anyone, 10, vec![4, 2, 1, 3]),
        (Owner::Account(&own), 10, vec![4, 2, 3]),
        (Owner::Account(&own), 2, vec![4, 2]),
    ] {
        let jobs = store.list(owner, limit).await.unwrap();
        assert!(jobs.iter().all(|job| job.new.body.0.is_empty()));
        let ids: Vec<_> = jobs.iter().map(|job| job.new.id.0[0]).collect();
        assert_eq!(ids, expected);
    }
}
