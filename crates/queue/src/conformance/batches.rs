//! Rules for files and batches: stored completely, visible to their owner, erased when they expire.

use std::time::Duration;

use bytes::Bytes;
use proto::{Priority, Timestamp};

use super::sample::{T0, account, at};
use crate::{
    BATCH_RETENTION, BatchRecord, BatchState, Ceiling, FileRecord, LineResult, ModelPatterns,
    Owner,
    ResultFile::{self, Errors, Output},
    Store,
};

/// Returns the metadata of a file that expires after `seconds`.
#[must_use]
pub fn file(id: &str, name: &str, seconds: u64) -> FileRecord {
    FileRecord {
        id: id.into(),
        account: account(name),
        name: "requests.jsonl".into(),
        purpose: "batch".into(),
        bytes: 6,
        created_at: T0,
        expires_at: at(seconds),
    }
}

/// Returns a batch of the file `f1`.
///
/// # Panics
/// Never.
#[must_use]
pub fn batch(id: &str, name: &str) -> BatchRecord {
    BatchRecord {
        id: id.into(),
        account: account(name),
        who: "laptop".into(),
        ceiling: Ceiling {
            models: ModelPatterns::new(vec!["m*".parse().unwrap()]),
            priority: Priority::new(9),
        },
        endpoint: "/v1/embeddings".into(),
        input: "f1".into(),
        state: BatchState::Validating,
        created_at: T0,
        expires_at: at(60),
        times: vec![],
        total: 0,
        counts: None,
        output: None,
        errors: None,
        refusals: vec![(3, "no JSON".into())],
        metadata: "{}".into(),
    }
}

const fn line(n: u32, file: ResultFile, text: &'static str) -> LineResult {
    LineResult {
        n,
        file,
        line: Bytes::from_static(text.as_bytes()),
    }
}

/// Parts are returned in order, and nothing after the last one.
pub async fn a_file_is_kept_in_parts(store: &dyn Store) {
    for (n, part) in [(1, "def"), (0, "xxx"), (0, "abc")] {
        store.put_part("f1", n, part.into()).await.unwrap();
    }
    assert_eq!(store.file(Owner::Anyone, "f1").await.unwrap(), None);
    store.put_file(file("f1", "a", 60)).await.unwrap();
    let found = store.file(Owner::Anyone, "f1").await.unwrap();
    assert_eq!(found, Some(file("f1", "a", 60)));
    let part = async |n| store.part("f1", n).await.unwrap();
    assert_eq!(part(0).await.as_deref(), Some(&b"abc"[..]));
    assert_eq!(part(1).await.as_deref(), Some(&b"def"[..]));
    assert_eq!(part(2).await, None);
    store.erase_file("f1").await.unwrap();
    assert_eq!(part(0).await, None);
    assert_eq!(store.file(Owner::Anyone, "f1").await.unwrap(), None);
}

/// A forgotten file and its parts are not found any more, whatever is erased of them already.
pub async fn a_forgotten_file_is_gone_at_once(store: &dyn Store) {
    for id in ["f1", "f2"] {
        store.put_part(id, 0, "abc".into()).await.unwrap();
        store.put_file(file(id, "a", 60)).await.unwrap();
    }
    store.put_part("f3", 0, "abc".into()).await.unwrap();
    let gone = async |id| {
        store.file(Owner::Anyone, id).await.unwrap().is_none()
            && store.part(id, 0).await.unwrap().is_none()
    };
    for id in ["f1", "f3", "unknown"] {
        store.forget_file(id).await.unwrap();
        assert!(gone(id).await, "{id}");
    }
    assert_eq!(store.expire_files(T0).await.unwrap(), Some(at(60)));
    assert!(gone("f1").await && gone("f3").await && !gone("f2").await);
    let files = store.files(Owner::Anyone).await.unwrap();
    assert_eq!(files, [file("f2", "a", 60)]);
}

/// Files and batches are visible to their owner only, by id and in lists.
pub async fn files_and_batches_are_seen_by_their_owner(store: &dyn Store) {
    for (n, name) in [("f1", "a"), ("f2", "b"), ("f3", "a")] {
        store.put_file(file(n, name, 60)).await.unwrap();
        store.put_batch(batch(n, name)).await.unwrap();
    }
    let a = account("a");
    let own = Owner::Account(&a);
    assert_eq!(store.file(own, "f2").await.unwrap(), None);
    assert_eq!(store.batch(own, "f2").await.unwrap(), None);
    let files = store.files(own).await.unwrap();
    let batches = store.batches(own).await.unwrap();
    let files: Vec<_> = files.iter().map(|file| &*file.id).collect();
    let batches: Vec<_> = batches.iter().map(|batch| &*batch.id).collect();
    assert_eq!((files, batches), (vec!["f3", "f1"], vec!["f3", "f1"]));
    assert_eq!(store.files(Owner::Anyone).await.unwrap().len(), 3);
}

/// A batch is stored with every change of its state.
pub async fn a_batch_is_kept_as_it_moves_on(store: &dyn Store) {
    let mut moving = batch("b1", "a");
    store.put_batch(moving.clone()).await.unwrap();
    moving.enter(at(5), BatchState::Completed);
    moving.counts = Some((2, 1));
    moving.output = Some("f2".into());
    store.put_batch(moving.clone()).await.unwrap();
    let found = store.batch(Owner::Anyone, "b1").await.unwrap();
    assert_eq!(found, Some(moving));
    assert_eq!(store.batches(Owner::Anyone).await.unwrap().len(), 1);
}

/// The first result of a line is kept.
pub async fn a_line_has_one_result(store: &dyn Store) {
    for result in [
        line(7, Output, "seven"),
        line(2, Errors, "two"),
        line(1, Output, "one"),
        line(7, Errors, "again"),
    ] {
        store.put_result("b1", result).await.unwrap();
    }
    store.put_result("b2", line(3, Output, "x")).await.unwrap();
    let results = store.results("b1").await.unwrap();
    assert_eq!(results, [(1, Output), (2, Errors), (7, Output)]);
    let next = async |after, file| store.next_result("b1", after, file).await.unwrap();
    assert_eq!(next(0, Output).await, Some(line(1, Output, "one")));
    assert_eq!(next(1, Output).await, Some(line(7, Output, "seven")));
    assert_eq!(next(7, Output).await, None);
    assert_eq!(next(0, Errors).await, Some(line(2, Errors, "two")));
    let mut over = batch("b1", "a");
    over.enter(T0, BatchState::Completed);
    store.put_batch(over).await.unwrap();
    store.put_batch(batch("b2", "a")).await.unwrap();
    store.expire_files(T0).await.unwrap();
    assert_eq!(store.results("b1").await.unwrap(), [], "it has ended");
    assert_eq!(store.results("b2").await.unwrap(), [(3, Output)]);
}

/// A batch is erased with its file, but not before it has ended.
pub async fn a_file_is_erased_when_its_time_has_passed(store: &dyn Store) {
    store.put_part("f1", 0, "abc".into()).await.unwrap();
    store.put_file(file("f1", "a", 60)).await.unwrap();
    store.put_file(file("f2", "a", 90)).await.unwrap();
    let mut over = batch("b1", "a");
    over.enter(T0, BatchState::Cancelled);
    store.put_batch(over).await.unwrap();
    store.put_batch(batch("b2", "a")).await.unwrap();
    let expire = async |now: Timestamp| store.expire_files(now).await.unwrap();
    assert_eq!(expire(at(59)).await, Some(at(60)));
    assert_eq!(expire(at(60)).await, Some(at(90)));
    assert_eq!(store.file(Owner::Anyone, "f1").await.unwrap(), None);
    assert_eq!(store.part("f1", 0).await.unwrap(), None);
    let left = store.batches(Owner::Anyone).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(expire(at(90)).await, None);
}

/// A batch whose file was deleted by its owner, or that ended after its file, is erased later.
pub async fn a_batch_without_its_file_is_erased_in_its_time(store: &dyn Store) {
    store.put_file(file("f1", "a", 60)).await.unwrap();
    let mut over = batch("b1", "a");
    over.enter(at(5), BatchState::Completed);
    store.put_batch(over).await.unwrap();
    let mut late = batch("b2", "a");
    store.put_batch(late.clone()).await.unwrap();
    store.erase_file("f1").await.unwrap();
    let expire = async |now: Timestamp| store.expire_files(now).await.unwrap();
    let count = async || store.batches(Owner::Anyone).await.unwrap().len();
    let end = T0 + BATCH_RETENTION;
    let before = T0 + (BATCH_RETENTION - Duration::from_secs(1));
    assert_eq!(expire(before).await, Some(end));
    assert_eq!(count().await, 2);
    assert_eq!(expire(end).await, None);
    assert_eq!(count().await, 1, "it runs still");
    late.enter(end, BatchState::Expired);
    store.put_batch(late).await.unwrap();
    assert_eq!(expire(end).await, None);
    assert_eq!(count().await, 0);
}
