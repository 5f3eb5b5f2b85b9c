//! Rules for the limits of a queue, for a store that was opened with [`limits`].

use bytes::Bytes;
use proto::{
    End, ErrorCode, JobError, JobState,
    limits::{JOB_COST, KEY_COST, LINE_COST},
    worker::Retry,
};

use super::{
    sample::{LEASE, T0, account, after, found, id, job, leased, lines, next, page, texts},
    submissions::named,
};
use crate::{
    Claim, FETCHED_RETENTION, IdempotencyKey, NewJob, NewQuery, Owner, QueueError, QueueLimits,
    RESULT_RETENTION, Store,
};

/// Returns limits small enough to be reached in a test.
#[must_use]
pub fn limits() -> QueueLimits {
    QueueLimits {
        jobs_max: 5,
        bytes_max: 1_000,
        account_jobs_max: 3,
        account_bytes_max: 600,
        account_kept_max: 64 * 1024,
        log_max: 1_000,
        logs_max: 1_500,
        attempts_max: 6,
        ..QueueLimits::default()
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

/// The number of waiting jobs per account is limited; a job that leaves makes room.
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

/// The bytes of waiting jobs per account are limited.
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

/// Fills what may be kept for an account with ended jobs whose answers have `answer` bytes; returns
/// their number.
async fn fills(store: &dyn Store, name: &str, first: u8, answer: usize) -> u8 {
    for n in first.. {
        if let Err(refused) = store.enqueue(T0, sized(n, name, 500)).await {
            assert_eq!(refused.code(), ErrorCode::AccountFull, "{refused}");
            return n - first;
        }
        if answer == 0 {
            store.cancel(T0, Owner::Anyone, id(n)).await.unwrap();
            continue;
        }
        let token = next(store, T0).await.unwrap().token;
        store.append(T0, token, 1, long(answer)).await.unwrap();
        store.complete(T0, token, 1, End::Completed).await.unwrap();
        store.fetched(T0, id(n));
    }
    panic!("there is no end to it");
}

/// Ended jobs count against their account until they are erased, so cancelling does not free disk
/// space.
pub async fn an_account_has_a_share_of_what_is_kept(store: &dyn Store) {
    let share = limits().account_kept_max;
    let withdrawn = fills(store, "a", 1, 0).await;
    assert_eq!(u64::from(withdrawn), share / (JOB_COST + 500));
    let answered = fills(store, "b", 101, 900).await;
    assert_eq!(u64::from(answered), share / (JOB_COST + 500 + 900));
    store.enqueue(T0, sized(200, "c", 500)).await.unwrap();
    store.cancel(T0, Owner::Anyone, id(200)).await.unwrap();
    // A fetched answer is erased first, and then there is room for others.
    let now = T0 + FETCHED_RETENTION;
    store.reap(now).await.unwrap();
    store.enqueue(now, sized(201, "b", 500)).await.unwrap();
    let still = store.enqueue(now, sized(202, "a", 500)).await;
    assert_eq!(still.unwrap_err().code(), ErrorCode::AccountFull);
    let now = T0 + RESULT_RETENTION;
    store.reap(now).await.unwrap();
    store.enqueue(now, sized(202, "a", 500)).await.unwrap();
}

/// Otherwise an account could fill the disk with keys.
pub async fn a_name_that_outlives_its_job_counts_for_its_account(store: &dyn Store) {
    let share = limits().account_kept_max;
    let names = 16;
    for n in 1..=names {
        let name = named(&format!("k{n}"), 7);
        store.submit(T0, sized(n, "a", 500), name).await.unwrap();
        store.cancel(T0, Owner::Anyone, id(n)).await.unwrap();
    }
    let now = T0 + RESULT_RETENTION;
    store.reap(now).await.unwrap();
    let left = share - u64::from(names) * KEY_COST;
    let more = fills(store, "a", 51, 0).await;
    assert_eq!(u64::from(more), left / (JOB_COST + 500));
    let now = IdempotencyKey::kept_until(T0);
    store.reap(now).await.unwrap();
    let all = fills(store, "a", 101, 0).await;
    assert_eq!(u64::from(all), share / (JOB_COST + 500), "nothing is left");
}

/// Drafts and log entries of a query count against its account, whoever writes them.
pub async fn an_account_has_a_share_of_what_is_written_to_queries(store: &dyn Store) {
    let new = |n| NewQuery {
        job: sized(n, "a", 100),
        project: 1,
        user: None,
    };
    let free = usize::try_from(limits().account_kept_max - 2 * (JOB_COST + 100)).unwrap();
    let query = store.create_query(T0, new(1)).await.unwrap();
    let other = store.create_query(T0, new(2)).await.unwrap();
    let text = |bytes| "x".repeat(bytes);
    let draft = async |bytes| store.draft_query(query, text(bytes).into()).await;
    draft(free / 2).await.unwrap();
    // A draft replaces the one before.
    draft(free / 3).await.unwrap();
    let rest = free - free / 3;
    let entry = async |bytes| store.log_query(T0, other, text(bytes).into(), 9).await;
    assert_eq!(
        entry(rest + 1).await.unwrap_err().code(),
        ErrorCode::AccountFull
    );
    entry(rest).await.unwrap().unwrap();
    assert_eq!(draft(1).await.unwrap_err().code(), ErrorCode::AccountFull);
    let third = store.create_query(T0, new(3)).await;
    assert_eq!(third.unwrap_err().code(), ErrorCode::AccountFull);
    // A new claim makes room, and so does deleting a query that has ended.
    let claim = Claim {
        by: "w".into(),
        attempt: 1,
        at: T0,
    };
    store.claim_query(query, claim).await.unwrap();
    store.create_query(T0, new(3)).await.unwrap();
    draft(free / 3 - 2_000).await.unwrap();
    assert_eq!(
        draft(1_000).await.unwrap_err().code(),
        ErrorCode::AccountFull
    );
    store.cancel(T0, Owner::Anyone, id(2)).await.unwrap();
    assert!(store.delete_query(other).await.unwrap());
    draft(1_000).await.unwrap();
}

/// The limits of the whole queue have an error code different from that of an account's limit.
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

/// The worker is told to stop, the reader gets the error, and the lines read so far stay.
pub async fn an_answer_that_grows_too_long_fails_its_job(store: &dyn Store) {
    let token = leased(store, T0, 1).await;
    store.append(T0, token, 1, lines(&["x"])).await.unwrap();
    let log = store.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
    // Many empty lines count, too.
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

/// The job with the longest answer fails, and the others continue.
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
    // An ended job takes no room once nobody reads it, and a new attempt starts at zero.
    for n in 4..=8 {
        let token = leased(store, T0, n).await;
        store.append(T0, token, 1, long(900)).await.unwrap();
        store.complete(T0, token, 1, End::Completed).await.unwrap();
    }
    // A slow reader does not change that.
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

/// A lost lease and a job that was given back are attempts; the last one ends the job.
pub async fn a_job_is_tried_as_often_as_the_limits_say(store: &dyn Store) {
    let tries = limits().attempts_max;
    store.enqueue(T0, job(1)).await.unwrap();
    for attempt in 1..=tries {
        let token = next(store, T0).await.unwrap().token;
        assert_eq!((token.job, token.attempt), (id(1), attempt));
        let why = JobError::new(ErrorCode::EngineUnavailable, "down");
        let retry = Retry::AfterMs(0);
        store.nack(T0, token, retry, why).await.unwrap();
    }
    store.enqueue(T0, job(2)).await.unwrap();
    let mut now = T0;
    for attempt in 1..=tries {
        let token = next(store, now).await.unwrap().token;
        assert_eq!((token.job, token.attempt), (id(2), attempt));
        now = now + LEASE;
    }
    assert!(next(store, now).await.is_none());
    for (n, code) in [
        (1, ErrorCode::EngineUnavailable),
        (2, ErrorCode::TooManyAttempts),
    ] {
        let dead = store.get(Owner::Anyone, id(n)).await.unwrap().unwrap();
        assert_eq!(dead.state, JobState::Failed);
        assert_eq!(dead.error.unwrap().code, code);
    }
}
