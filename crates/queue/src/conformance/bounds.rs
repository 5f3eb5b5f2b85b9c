//! How much a queue takes. These rules are for a store that was opened on [`terms`].

use bytes::Bytes;
use proto::{End, ErrorCode, JobState, limits::LINE_COST};

use super::sample::{LEASE, T0, account, after, found, id, job, leased, lines, next, page, texts};
use crate::{NewJob, Owner, QueueError, Store, Terms};

/// Small enough to be reached.
#[must_use]
pub fn terms() -> Terms {
    Terms {
        jobs_max: 5,
        bytes_max: 1_000,
        account_jobs_max: 3,
        account_bytes_max: 600,
        log_max: 1_000,
        logs_max: 1_500,
        ..Terms::default()
    }
}

fn sized(n: u8, name: &str, bytes: usize) -> NewJob {
    NewJob {
        account: account(name),
        body: vec![b' '; bytes].into(),
        ..job(n)
    }
}

async fn refused(store: &dyn Store, job: NewJob) -> ErrorCode {
    store.enqueue(T0, job).await.unwrap_err().code()
}

/// By count, and room is made when one of its jobs has gone.
pub async fn an_account_has_a_share_of_the_queue(store: &dyn Store) {
    for n in 1..=3 {
        store.enqueue(T0, sized(n, "a", 10)).await.unwrap();
    }
    assert_eq!(
        refused(store, sized(4, "a", 10)).await,
        ErrorCode::AccountFull
    );
    store.enqueue(T0, sized(4, "b", 10)).await.unwrap();
    next(store, T0).await.unwrap();
    store.enqueue(T0, sized(5, "a", 10)).await.unwrap();
}

/// And by bytes.
pub async fn an_account_has_a_share_of_the_bytes(store: &dyn Store) {
    store.enqueue(T0, sized(1, "a", 500)).await.unwrap();
    assert_eq!(
        refused(store, sized(2, "a", 101)).await,
        ErrorCode::AccountFull
    );
    store.enqueue(T0, sized(2, "a", 100)).await.unwrap();
    store.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
    store.enqueue(T0, sized(3, "a", 500)).await.unwrap();
    assert_eq!(
        refused(store, sized(4, "a", 1)).await,
        ErrorCode::AccountFull
    );
}

/// Whoever comes when all of it is taken is told so in another word.
pub async fn the_queue_as_a_whole_has_bounds(store: &dyn Store) {
    for (n, name) in (1..=5).zip(["a", "a", "b", "b", "c"]) {
        store.enqueue(T0, sized(n, name, 10)).await.unwrap();
    }
    assert_eq!(
        refused(store, sized(6, "d", 10)).await,
        ErrorCode::QueueFull
    );
    for n in 1..=5 {
        store.cancel(T0, Owner::Anyone, id(n)).await.unwrap();
    }
    store.enqueue(T0, sized(7, "a", 600)).await.unwrap();
    store.enqueue(T0, sized(8, "b", 400)).await.unwrap();
    assert_eq!(refused(store, sized(9, "c", 1)).await, ErrorCode::QueueFull);
}

fn long(bytes: usize) -> Vec<Bytes> {
    vec![Bytes::from(vec![b'x'; bytes - LINE_COST])]
}

/// Its worker is told to stop, its reader what happened, and what was read stays.
pub async fn an_answer_that_grows_too_long_fails_its_job(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.append(T0, token, 1, lines(&["x"])).await.unwrap();
    let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
    // Many empty lines count too.
    let empty = vec![Bytes::new(); 1_000 / LINE_COST];
    let over = store.append(T0, token, 2, empty).await.unwrap_err();
    assert!(matches!(over, QueueError::StaleLease(_)), "{over}");
    store.cancelled(token).await;
    let late = store.extend(T0, token, LEASE).await.unwrap_err();
    assert!(matches!(late, QueueError::StaleLease(_)), "{late}");
    let end = log.head().borrow().end.clone();
    let Some(End::Failed { error }) = end else {
        panic!("{end:?}");
    };
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert_eq!(texts(&page(store, id(1), after(1, 0)).await), ["x"]);
}

/// The job with the longest fails, and the others go on.
pub async fn all_answers_together_have_a_bound(store: &dyn Store) {
    let (longest, other) = (leased(store, T0, 1).await, leased(store, T0, 2).await);
    let third = leased(store, T0, 3).await;
    store.append(T0, longest, 1, long(800)).await.unwrap();
    store.append(T0, other, 1, long(500)).await.unwrap();
    store.append(T0, third, 1, long(300)).await.unwrap();
    assert_eq!(found(store, id(1)).await.state, JobState::Failed);
    for token in [other, third] {
        store.complete(T0, token, 1, End::Completed).await.unwrap();
        assert_eq!(found(store, token.job).await.state, JobState::Completed);
    }
    // What ended takes no room once nobody reads it, and a new attempt begins at nothing.
    for n in 4..=8 {
        let token = leased(store, T0, n).await;
        store.append(T0, token, 1, long(900)).await.unwrap();
        store.complete(T0, token, 1, End::Completed).await.unwrap();
    }
    // Nor while somebody reads it, however slowly.
    let mut readers = Vec::new();
    for n in 10..=14 {
        let token = leased(store, T0, n).await;
        readers.push(store.log(Owner::Anyone, id(n)).await.unwrap().unwrap());
        store.append(T0, token, 1, long(900)).await.unwrap();
        store.complete(T0, token, 1, End::Completed).await.unwrap();
        assert_eq!(found(store, token.job).await.state, JobState::Completed);
    }
    for log in readers {
        let read = log.read(after(1, 0), 10_000).await.unwrap();
        assert_eq!(read.end, Some(End::Completed));
        assert!(!read.chunks.is_empty());
    }
    let mut now = T0;
    store.enqueue(now, job(9)).await.unwrap();
    for _ in 0..4 {
        let token = next(store, now).await.unwrap().token;
        store.append(now, token, 1, long(900)).await.unwrap();
        now = now + LEASE;
        store.reap(now).await.unwrap();
    }
    assert_eq!(found(store, id(9)).await.state, JobState::Queued);
}
