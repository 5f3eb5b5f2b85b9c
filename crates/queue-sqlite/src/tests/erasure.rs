//! Erased data is nowhere in the files, while the relay continues.

use std::{
    fs::{self, File},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use proto::{End, ErrorCode, JobId, Timestamp, limits::JOB_COST};
use queue::{
    BatchState, Batches, FETCHED_RETENTION, FileRecord, LineResult, NewJob, NewQuery, Owner,
    Queries, Queue, QueueLimits, RESULT_RETENTION, ResultFile,
    conformance::{
        batches,
        sample::{LEASE, T0, anyone, at, job, leased},
    },
};

use super::{Scratch, kept, run};
use crate::SqliteQueue;

pub(super) const CANARY: &str = "a-word-nobody-may-find";

/// Returns the names of the files in the directory that contain the word.
pub(super) fn found(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let holds = |file: &fs::DirEntry| {
        let bytes = fs::read(file.path()).unwrap();
        let mut parts = bytes.windows(CANARY.len());
        parts.any(|part| part == CANARY.as_bytes())
    };
    files
        .filter(holds)
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Returns a request of some length that contains the word.
fn secret(n: usize) -> NewJob {
    let length = [20, 300, 3_000, 20_000][n % 4];
    NewJob {
        id: JobId((n as u128).to_be_bytes()),
        account: proto::Account::new(format!("a{}", n % 7)).unwrap(),
        body: format!("{{\"x\":\"{CANARY}{}\"}}", "-".repeat(length)).into(),
        ..job(1)
    }
}

#[test]
fn an_erased_prompt_and_its_answer_are_nowhere_in_the_files_of_a_relay_that_goes_on() {
    const JOBS: usize = 200;
    run(async {
        let queue = Scratch::new();
        let asked = (0..JOBS).map(|n| queue.enqueue(T0, secret(n)));
        assert!(join_all(asked).await.into_iter().all(|asked| asked.is_ok()));
        let leases = queue.lease_many(T0, &anyone(), LEASE, JOBS).await.unwrap();
        assert_eq!(leases.len(), JOBS);
        let answers = leases.iter().enumerate().map(async |(n, lease)| {
            let text = format!("{CANARY}{}", "x".repeat(n % 900));
            let lines = vec![Bytes::from(text); n % 5 + 1];
            let count = lines.len() as u64;
            queue.append(T0, lease.token, 1, lines).await.unwrap();
            let end = End::Completed;
            queue.complete(T0, lease.token, count, end).await.unwrap();
        });
        join_all(answers).await;
        assert!(
            !found(queue.folder.path()).is_empty(),
            "the search is blind"
        );
        for lease in &leases {
            queue.fetched(at(1), lease.token.job);
        }
        // New data without the word is written in between.
        queue.enqueue(at(1), job(9)).await.unwrap();
        queue.reap(at(1) + FETCHED_RETENTION).await.unwrap();
        assert_eq!(found(queue.folder.path()), [""; 0]);
        queue
            .enqueue(at(2) + FETCHED_RETENTION, job(8))
            .await
            .unwrap();
    });
}

#[test]
fn parts_of_an_upload_that_a_kill_cut_short_are_erased_after_the_start() {
    run(async {
        let queue = Scratch::new();
        let part = || Bytes::from_static(CANARY.as_bytes());
        queue.put_part("file-cut", 0, part()).await.unwrap();
        let queue = queue.killed(at(1));
        assert_eq!(queue.part("file-cut", 0).await.unwrap(), None);
        queue.expire_files(at(1)).await.unwrap();
        assert_eq!(found(queue.folder.path()), [""; 0]);
    });
}

#[test]
fn the_copy_of_an_earlier_layout_goes_after_a_week() {
    run(async {
        let queue = Scratch::new();
        let copy = queue.folder.path().join("queue.db.layout-1");
        let other = queue.folder.path().join("other.db.layout-1");
        for path in [&copy, &other] {
            fs::write(path, CANARY).unwrap();
            let made = std::time::UNIX_EPOCH + Duration::from_millis(T0.0.unsigned_abs());
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(made)
                .unwrap();
        }
        let week = 7 * RESULT_RETENTION;
        let almost = T0 + (week - Duration::from_secs(1));
        let queue = queue.reopened(almost).await;
        assert!(copy.exists());
        let queue = queue.reopened(T0 + week).await;
        assert!(!copy.exists() && other.exists());
        drop(queue);
    });
}

#[test]
fn how_long_what_ended_is_kept_can_be_chosen() {
    run(async {
        let limits = QueueLimits {
            kept: Duration::from_secs(100),
            fetched_kept: Duration::from_secs(10),
            ..QueueLimits::default()
        };
        let queue = Scratch::on(limits);
        let token = leased(&*queue, T0, 1).await;
        queue.complete(T0, token, 0, End::Completed).await.unwrap();
        queue.fetched(T0, token.job);
        assert_eq!(queue.reap(T0).await.unwrap(), Some(at(10)));
        assert_eq!(queue.reap(at(10)).await.unwrap(), Some(at(20)));
        assert_eq!(queue.reap(at(95)).await.unwrap(), Some(at(100)));
        assert_eq!(queue.reap(at(100)).await.unwrap(), None);
    });
}

#[test]
fn a_note_of_what_was_fetched_reaches_the_disk_without_being_asked_for() {
    run(async {
        let queue = Scratch::new();
        let token = leased(&*queue, T0, 1).await;
        queue.complete(T0, token, 0, End::Completed).await.unwrap();
        queue.fetched(T0, token.job);
        let noted = || {
            let conn = crate::schema::open_reader(&queue.path()).unwrap();
            let select = "SELECT max(fetched_at) FROM jobs";
            conn.query_row(select, [], |row| row.get::<_, Option<i64>>(0))
                .unwrap()
        };
        while noted().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(noted().map(Timestamp), Some(T0));
        drop(SqliteQueue::open(&queue.path(), T0));
    });
}

/// Ends a job that was just accepted, with lines of these lengths.
async fn answered(queue: &SqliteQueue, new: NewJob, lines: &[usize]) {
    let id = new.id;
    queue.enqueue(T0, new).await.unwrap();
    let lease = queue.lease(T0, &anyone(), LEASE).await.unwrap().unwrap();
    assert_eq!(lease.token.job, id);
    let lines: Vec<_> = lines.iter().map(|length| long_line(*length)).collect();
    let count = lines.len() as u64;
    queue.append(T0, lease.token, 1, lines).await.unwrap();
    let end = End::Completed;
    queue.complete(T0, lease.token, count, end).await.unwrap();
}

pub(super) fn long_line(length: usize) -> Bytes {
    format!("{CANARY}{}{CANARY}", "x".repeat(length)).into()
}

fn log_bytes(queue: &Scratch) -> u64 {
    fs::metadata(queue.folder.path().join("queue.db-wal"))
        .unwrap()
        .len()
}

#[test]
fn what_ended_together_is_erased_in_many_groups_and_never_fills_the_log() {
    const JOBS: usize = 40;
    run(async {
        let queue = Scratch::new();
        for n in 0..JOBS {
            let new = NewJob {
                id: JobId((n as u128 + 1).to_be_bytes()),
                body: vec![b'x'; 1024 * 1024].into(),
                ..job(1)
            };
            answered(&queue, new, &[20]).await;
        }
        let now = T0 + RESULT_RETENTION;
        let next = queue.reap(now).await.unwrap();
        assert!(next.is_some_and(|next| next <= now), "there is more to do");
        let left = queue.list(Owner::Anyone, JOBS).await.unwrap().len();
        assert!((JOBS - 5..JOBS).contains(&left), "{left}");
        let mut longest = log_bytes(&queue);
        let mut groups = 1;
        while queue.reap(now).await.unwrap().is_some_and(|at| at <= now) {
            longest = longest.max(log_bytes(&queue));
            groups += 1;
        }
        assert!(queue.list(Owner::Anyone, 1).await.unwrap().is_empty());
        assert!(groups > 8, "{groups}");
        // The limit before a checkpoint, plus one group.
        assert!(longest < 24 * 1024 * 1024, "{longest}");
    });
}

#[test]
fn a_request_and_an_answer_that_are_too_large_for_one_group_are_erased_in_parts() {
    const BODY: usize = 20 * 1024 * 1024;
    run(async {
        for whole in [false, true] {
            let queue = Scratch::new();
            let new = NewJob {
                body: format!("{CANARY}{}{CANARY}", "x".repeat(BODY)).into(),
                ..job(1)
            };
            answered(&queue, new, &[3_000_000; 5]).await;
            let account = job(1).account;
            let kept = || kept(&queue, &account);
            assert!(kept() > 35_000_000);
            let now = if whole {
                T0 + RESULT_RETENTION
            } else {
                queue.fetched(T0, job(1).id);
                T0 + FETCHED_RETENTION
            };
            let mut groups = 0;
            loop {
                let before = kept();
                let next = queue.reap(now).await.unwrap();
                groups += 1;
                let erased = before - kept();
                assert!(erased < 8 * 1024 * 1024, "{erased} at once");
                if next.is_none_or(|next| next > now) {
                    break;
                }
                assert!(erased > 0);
                let job_of = queue.get(Owner::Anyone, job(1).id).await.unwrap().unwrap();
                assert!(job_of.is_erased && job_of.new.body.0.is_empty());
                let log = queue.log(Owner::Anyone, job(1).id).await;
                assert_eq!(log.err().unwrap().code(), ErrorCode::Erased);
            }
            assert!(groups > 6, "{groups}");
            assert_eq!(kept(), if whole { 0 } else { JOB_COST });
            let left = queue.get(Owner::Anyone, job(1).id).await.unwrap();
            assert_eq!(left.is_some(), !whole);
            queue.close().await.unwrap();
            assert_eq!(found(queue.folder.path()), [""; 0]);
        }
    });
}

#[test]
fn a_request_that_was_half_erased_when_the_relay_was_killed_is_erased_after_it() {
    run(async {
        let queue = Scratch::new();
        let new = NewJob {
            body: format!("{CANARY}{}{CANARY}", "x".repeat(9_000_000)).into(),
            ..job(1)
        };
        answered(&queue, new, &[20]).await;
        queue.fetched(T0, job(1).id);
        let now = T0 + FETCHED_RETENTION;
        let next = queue.reap(now).await.unwrap();
        assert!(next.is_some_and(|next| next <= now));
        let queue = queue.killed(now);
        let account = job(1).account;
        let kept = || kept(&queue, &account);
        assert!((JOB_COST + 1..9_000_000).contains(&kept()));
        while queue.reap(now).await.unwrap().is_some_and(|at| at <= now) {}
        assert_eq!(kept(), JOB_COST);
        queue.close().await.unwrap();
        assert_eq!(found(queue.folder.path()), [""; 0]);
    });
}

#[test]
fn what_is_being_erased_of_a_question_is_shown_to_nobody() {
    run(async {
        let queue = Scratch::new();
        let question = NewQuery {
            job: NewJob {
                dialect: proto::Dialect::Queries,
                ..job(1)
            },
            project: 1,
            user: None,
        };
        let id = queue.create_query(T0, question).await.unwrap();
        let shown = async || {
            let found = queue.find_query(Owner::Anyone, id).await.unwrap();
            let (_, listed) = queue.list_queries(Owner::Anyone, &[], 0, 9).await.unwrap();
            [found.unwrap(), listed.into_iter().next().unwrap()].map(|query| query.job.new.body.0)
        };
        assert!(shown().await.iter().all(|body| !body.is_empty()));
        // The state after the first of several parts was erased.
        let begun = "UPDATE jobs SET is_erased = 1";
        queue
            .on_writer(move |conn| assert_eq!(conn.execute(begun, []).unwrap(), 1))
            .await;
        assert!(shown().await.iter().all(Bytes::is_empty));
    });
}

#[test]
fn long_files_and_results_are_erased_in_many_groups() {
    const PART: usize = 256 * 1024;
    run(async {
        let commits = Arc::new(AtomicUsize::new(0));
        let counter = commits.clone();
        let queue = Scratch::on_commit(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            false
        });
        for id in ["late", "unwanted"] {
            let put = (0..64).map(|n| queue.put_part(id, n, vec![b'x'; PART].into()));
            assert!(join_all(put).await.into_iter().all(|put| put.is_ok()));
            let file = FileRecord {
                id: id.into(),
                account: job(1).account,
                name: "f".into(),
                purpose: "batch".into(),
                bytes: 64 * PART as u64,
                created_at: T0,
                expires_at: at(if id == "late" { 10 } else { 20 }),
            };
            queue.put_file(file).await.unwrap();
        }
        let results = (1..=64).map(|n| LineResult {
            n,
            file: ResultFile::ALL[n as usize % 2],
            line: vec![b'x'; PART].into(),
        });
        let results = results.map(|result| queue.put_result("b", result));
        assert!(join_all(results).await.into_iter().all(|put| put.is_ok()));
        let mut before = commits.load(Ordering::SeqCst);
        let mut groups = || {
            let now = commits.load(Ordering::SeqCst);
            now - std::mem::replace(&mut before, now)
        };
        assert_eq!(queue.expire_files(at(10)).await.unwrap(), Some(at(20)));
        assert!(groups() >= 4);
        queue.erase_file("unwanted").await.unwrap();
        assert!(groups() >= 4);
        let mut batch = batches::batch("b", "a");
        batch.enter(T0, BatchState::Completed);
        queue.put_batch(batch).await.unwrap();
        queue.expire_files(at(10)).await.unwrap();
        assert!(groups() >= 4);
        for id in ["late", "unwanted"] {
            assert_eq!(queue.file(Owner::Anyone, id).await.unwrap(), None);
            for n in 0..64 {
                assert_eq!(queue.part(id, n).await.unwrap(), None, "{id} {n}");
            }
        }
        assert_eq!(queue.results("b").await.unwrap(), []);
    });
}

#[test]
fn what_was_half_erased_of_files_and_results_is_erased_after_a_restart() {
    run(async {
        let queue = Scratch::new();
        put_long(&queue).await;
        queue.forget_file("f1").await.unwrap();
        // The line is too long for one group, and so is the file.
        for left in [(true, true), (true, false), (true, false)] {
            let some = queue.ask(|group| Ok(group.erase_pieces(None)?)).await;
            assert!(some.unwrap());
            let (parts, results) = pieces_left(&queue.path());
            assert_eq!((parts > 0, results > 0), left);
            let after = queue.killed(T0);
            assert!(after.part("f1", 19).await.unwrap().is_none());
            after.expire_files(T0).await.unwrap();
            assert_eq!(pieces_left(&after.path()), (0, 0));
            after.close().await.unwrap();
            assert_eq!(found(after.folder.path()), [""; 0]);
        }
    });
}

/// Stores a file of 5 MiB, parts without metadata, and a batch that ended whose result is one line
/// of 6 MB.
pub(super) async fn put_long(queue: &SqliteQueue) {
    for (id, count) in [("f1", 20), ("cut-short", 4)] {
        let put = (0..count).map(|n| queue.put_part(id, n, long_line(256 * 1024 - 44)));
        assert!(join_all(put).await.into_iter().all(|put| put.is_ok()));
    }
    queue.put_file(batches::file("f1", "a", 60)).await.unwrap();
    let result = LineResult {
        n: 1,
        file: ResultFile::Output,
        line: long_line(6_000_000),
    };
    queue.put_result("b1", result).await.unwrap();
    let mut over = batches::batch("b1", "a");
    over.enter(T0, BatchState::Completed);
    queue.put_batch(over).await.unwrap();
}

/// Returns the number of parts of files and of results of batches that are in the file.
pub(super) fn pieces_left(path: &Path) -> (u64, u64) {
    let conn = crate::schema::open_reader(path).unwrap();
    let select = "SELECT (SELECT count(*) FROM file_parts) AS parts,
        (SELECT count(*) FROM batch_lines) AS results";
    let counted = conn.query_row(select, [], |row| {
        Ok((row.get("parts")?, row.get("results")?))
    });
    let (parts, results): (i64, i64) = counted.unwrap();
    (parts.cast_unsigned(), results.cast_unsigned())
}
