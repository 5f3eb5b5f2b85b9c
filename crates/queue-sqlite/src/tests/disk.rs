//! Tests with a disk that is full, that fails, or that must not be written.

use std::{
    collections::BTreeMap,
    error::Error as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use proto::{End, ErrorCode, JobId, JobState};
use queue::{
    Batches as _, NewJob, Owner, Queries as _, Queue, QueueError, QueueLimits, RESULT_RETENTION,
    conformance::sample::{T0, after, anyone, at, found, id, job, leased, lines, page, texts},
};
use rusqlite::ffi;

use super::{
    Scratch,
    erasure::{self, pieces_left, put_long},
    run,
};
use crate::SqliteQueue;

/// A small file system for one test; only root can create it.
struct Small(PathBuf);

impl Small {
    /// Mounts it; `None` if this user may not and the environment permits skipping the test.
    fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "hearth-test"])
            .arg(folder)
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(folder.to_owned()));
        }
        assert!(
            std::env::var_os("HEARTH_WITHOUT_ROOT").is_some(),
            "only root may mount a small file system; HEARTH_WITHOUT_ROOT=1 leaves these tests out"
        );
        None
    }

    fn remount(&self, how: &str) {
        let remounted = Command::new("mount")
            .args(["-o", how])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(remounted.success());
    }

    /// Fills the disk.
    fn fill(&self) -> PathBuf {
        self.fill_with("filler")
    }

    fn fill_with(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        let mut filler = fs::File::create(&path).unwrap();
        for part in [vec![1; 64 * 1024], vec![1; 512]] {
            while filler.write_all(&part).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success());
        }
    }
}

fn large(n: usize) -> NewJob {
    NewJob {
        id: JobId((1_000 + n as u128).to_be_bytes()),
        body: vec![b'x'; 100_000].into(),
        ..job(1)
    }
}

/// Submits until the job is accepted, because the end of a full disk is noticed with a delay.
async fn accepted_soon(queue: &SqliteQueue, job: NewJob) {
    let accepted = async {
        while queue.enqueue(T0, job.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), accepted)
        .await
        .expect("there is room, but jobs are still refused");
}

#[test]
fn on_a_full_disk_what_runs_ends_and_new_jobs_are_refused_until_there_is_room() {
    const RESERVE: u64 = 2 * 1024 * 1024;
    const FILLS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), 12 * 1024 * 1024) else {
        return;
    };
    run(async {
        let path = folder.path().join("queue.db");
        let open = || SqliteQueue::open_with(&path, T0, QueueLimits::default(), RESERVE, |_| ());
        let queue = open().unwrap();
        let mut kept = Vec::new();
        for n in 0..FILLS {
            let token = leased(&queue, T0, u8::try_from(n + 1).unwrap()).await;
            let filler = small.fill();
            let refused = loop {
                let n = 10 * n + kept.len();
                match queue.enqueue(T0, large(n)).await {
                    Ok(()) => kept.push(large(n).id),
                    Err(refused) => break refused,
                }
            };
            assert_eq!(refused.code(), ErrorCode::DiskFull, "{refused}");
            // Data of queries is refused, too, because it would consume the reserve.
            let entry = queue.log_query(T0, 1, "x".into(), 9).await.unwrap_err();
            let draft = queue.draft_query(1, "x".into()).await.unwrap_err();
            for error in [entry, draft] {
                assert_eq!(error.code(), ErrorCode::DiskFull, "{error}");
            }
            // Running jobs continue, and existing data can be read.
            assert_eq!(found(&queue, token.job).await.state, JobState::Leased);
            queue
                .append(T0, token, 1, lines(&["x", "y"]))
                .await
                .unwrap();
            queue.complete(T0, token, 2, End::Completed).await.unwrap();
            queue.list(Owner::Anyone, 100).await.unwrap();
            let again = queue.enqueue(T0, large(9_999)).await.unwrap_err();
            assert_eq!(again.code(), ErrorCode::DiskFull);
            fs::remove_file(filler).unwrap();
            let next = large(500 + n);
            accepted_soon(&queue, next.clone()).await;
            // Cancelled again, so that the file keeps its size.
            queue.cancel(T0, Owner::Anyone, next.id).await.unwrap();
        }
        queue.close().await.unwrap();
        drop(queue);
        let queue = open().unwrap();
        for n in 1..=FILLS {
            let id = id(u8::try_from(n).unwrap());
            assert_eq!(found(&queue, id).await.state, JobState::Completed);
            assert_eq!(texts(&page(&queue, id, after(1, 0)).await), ["x", "y"]);
        }
        for id in kept {
            assert_eq!(found(&queue, id).await.new.body, large(0).body);
        }
        queue.close().await.unwrap();
    });
    drop(small);
}

/// The file never shrinks: new jobs reuse the space of erased ones.
#[test]
fn a_disk_that_the_queue_itself_filled_takes_jobs_again_once_the_old_ones_are_erased() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), 72 * 1024 * 1024) else {
        return;
    };
    run(async {
        let path = folder.path().join("queue.db");
        let queue = SqliteQueue::open(&path, T0).unwrap();
        let mut kept = Vec::new();
        // One of them is too large to be erased at once.
        let first = NewJob {
            body: vec![b'x'; 10_000_000].into(),
            ..large(0)
        };
        queue.enqueue(T0, first).await.unwrap();
        kept.push(large(0).id);
        let refused = loop {
            match queue.enqueue(T0, large(kept.len())).await {
                Ok(()) => kept.push(large(kept.len()).id),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.code(), ErrorCode::DiskFull, "{refused}");
        assert!(kept.len() > 50, "{}", kept.len());
        for id in &kept {
            queue.cancel(T0, Owner::Anyone, *id).await.unwrap();
        }
        let late = queue.enqueue(T0, large(9_998)).await.unwrap_err();
        assert_eq!(late.code(), ErrorCode::DiskFull, "nothing was erased yet");
        let now = T0 + RESULT_RETENTION;
        while queue.reap(now).await.unwrap().is_some_and(|at| at <= now) {}
        assert!(queue.list(Owner::Anyone, 1).await.unwrap().is_empty());
        for n in 0..kept.len() / 2 {
            queue.enqueue(now, large(n)).await.unwrap();
        }
        queue.close().await.unwrap();
    });
    drop(small);
}

#[test]
fn files_and_results_that_a_full_disk_did_not_let_go_are_erased_in_little_room() {
    const RESERVE: u64 = 2 * 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), 64 * 1024 * 1024) else {
        return;
    };
    run(async {
        let path = folder.path().join("queue.db");
        let open = || SqliteQueue::open_with(&path, T0, QueueLimits::default(), RESERVE, |_| ());
        let queue = open().unwrap();
        put_long(&queue).await;
        queue.close().await.unwrap();
        drop(queue);
        let queue = open().unwrap();
        small.fill();
        let refused = queue.enqueue(T0, large(0)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DiskFull, "{refused}");
        // Others take what was kept free, but for some pages.
        let crumb = folder.path().join("crumb");
        fs::write(&crumb, [1; 128 * 1024]).unwrap();
        let filler = small.fill_with("other");
        fs::remove_file(crumb).unwrap();
        let left = pieces_left(&path);
        let refused = queue.expire_files(at(60)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DiskFull, "{refused}");
        assert_eq!(queue.file(Owner::Anyone, "f1").await.unwrap(), None);
        assert!(queue.part("f1", 0).await.unwrap().is_none());
        assert_eq!(pieces_left(&path), left);
        // Less than the longest result takes, and less than one group erases elsewhere.
        fs::remove_file(filler).unwrap();
        assert_eq!(queue.expire_files(at(60)).await.unwrap(), None);
        assert_eq!(pieces_left(&path), (0, 0));
        assert!(!path.with_extension("db.reserve").exists());
        queue.close().await.unwrap();
        assert_eq!(erasure::found(folder.path()), [""; 0]);
    });
    drop(small);
}

#[test]
fn a_start_on_a_full_disk_uses_what_was_kept_free_and_goes_on_erasing() {
    const RESERVE: u64 = 2 * 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), 64 * 1024 * 1024) else {
        return;
    };
    run(async {
        let path = folder.path().join("queue.db");
        let open = || SqliteQueue::open_with(&path, T0, QueueLimits::default(), RESERVE, |_| ());
        let queue = open().unwrap();
        put_long(&queue).await;
        queue.forget_file("f1").await.unwrap();
        queue.close().await.unwrap();
        drop(queue);
        small.fill();
        let queue = open().unwrap();
        let left = pieces_left(&path);
        assert!(
            left.0 > 20 && left.1 == 1,
            "nothing was erased yet: {left:?}"
        );
        let refused = queue.enqueue(T0, large(0)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DiskFull, "{refused}");
        queue.expire_files(T0).await.unwrap();
        assert_eq!(pieces_left(&path), (0, 0));
        // Erasing made room in the file itself.
        accepted_soon(&queue, large(1)).await;
        queue.close().await.unwrap();
    });
    drop(small);
}

#[test]
fn an_upgrade_without_room_for_its_copy_changes_nothing_and_says_how_much_it_needs() {
    const MIB: u64 = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), 16 * MIB) else {
        return;
    };
    run(async {
        let path = folder.path().join("queue.db");
        let open = || SqliteQueue::open_with(&path, T0, QueueLimits::default(), 2 * MIB, |_| ());
        let queue = open().unwrap();
        for n in 0..40 {
            queue.enqueue(T0, large(n)).await.unwrap();
        }
        queue.close().await.unwrap();
        drop(queue);
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch("DROP TABLE past_submissions; DROP TABLE erasures")
            .unwrap();
        old.pragma_update(None, "user_version", 14).unwrap();
        drop(old);
        let filler = small.fill();
        // Room for the copy with the reserve, and not without.
        let shorter = filler.metadata().unwrap().len() - 3 * MIB;
        let file = fs::File::options().write(true).open(&filler).unwrap();
        file.set_len(shorter).unwrap();
        drop(file);
        let before = sizes(folder.path());
        for _ in 0..2 {
            let refused = open().unwrap_err();
            let reason = refused.source().unwrap().to_string();
            assert!(reason.contains("make 5 MiB free beside it"), "{reason}");
            assert_eq!(sizes(folder.path()), before);
        }
        fs::remove_file(&filler).unwrap();
        let queue = open().unwrap();
        assert_eq!(queue.counts().queued, 40);
        queue.enqueue(T0, large(40)).await.unwrap();
        queue.close().await.unwrap();
    });
    drop(small);
}

fn sizes(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    files
        .map(|file| (file.path(), file.metadata().unwrap().len()))
        .filter(|(path, _)| !path.to_string_lossy().ends_with("-shm"))
        .collect()
}

/// After a failed fsync it is unknown what is on disk, and a retry would not tell.
#[test]
fn a_write_that_the_disk_broke_is_not_acknowledged_and_ends_the_store() {
    run(async {
        let queue = Scratch::new();
        queue.enqueue(T0, job(1)).await.unwrap();
        let release = queue.hold_writer().await;
        let broken = queue.ask(|_| {
            let error = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
            let text = Some("disk I/O error".into());
            Err::<(), _>(rusqlite::Error::SqliteFailure(error, text).into())
        });
        let asked = async { tokio::join!(queue.enqueue(T0, job(2)), broken) };
        tokio::pin!(asked);
        tokio::select! {
            biased;
            _ = &mut asked => panic!("the writer is held"),
            () = queue.waiting(2) => {}
        }
        release.send(()).unwrap();
        let (beside, broken) = asked.await;
        // They share a group. A failed fsync does not tell whether it was that of the commit.
        for error in [beside.unwrap_err(), broken.unwrap_err()] {
            assert_eq!(error.code(), ErrorCode::OutcomeUnknown, "{error}");
        }
        // Callers between the last group and the end of the writer get an error, too.
        let between = queue.enqueue(T0, job(4)).await.unwrap_err();
        assert_eq!(between.code(), ErrorCode::StoreUnavailable);
        let why = queue.failure().await;
        assert_eq!(why.code(), ErrorCode::OutcomeUnknown);
        let reason = why.source().unwrap().to_string();
        let extended = ffi::SQLITE_IOERR_FSYNC.to_string();
        assert!(reason.contains(&extended), "{reason}");
        let later = queue.enqueue(T0, job(3)).await.unwrap_err();
        assert_eq!(later.code(), ErrorCode::StoreUnavailable);
        queue.close().await.unwrap_err();
        let after = queue.killed(at(1));
        assert_eq!(after.counts().queued, 1, "what was acknowledged before");
        assert_eq!(found(&*after, id(1)).await.new, job(1));
    });
}

#[test]
fn an_ordinary_refusal_of_the_disk_does_not_end_the_store() {
    run(async {
        let queue = Scratch::new();
        let refused = queue.ask(|_| {
            let error = ffi::Error::new(ffi::SQLITE_BUSY);
            Err::<(), _>(rusqlite::Error::SqliteFailure(error, None).into())
        });
        refused.await.unwrap_err();
        tokio::select! {
            biased;
            why = queue.failure() => panic!("{why}"),
            accepted = queue.enqueue(T0, job(1)) => accepted.unwrap(),
        }
    });
}

#[test]
fn a_place_that_must_not_be_written_to_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path(), 4 * 1024 * 1024) else {
        return;
    };
    run(async {
        let path = folder.path().join("queue.db");
        let open = || SqliteQueue::open_with(&path, T0, QueueLimits::default(), 1024, |_| ());
        let queue = open().unwrap();
        queue.enqueue(T0, job(1)).await.unwrap();
        queue.close().await.unwrap();
        drop(queue);
        small.remount("remount,ro");
        let refused = open().unwrap_err();
        let QueueError::Store(reason) = &refused else {
            panic!("{refused}");
        };
        let reason = reason.to_string();
        assert!(
            reason.contains("queue.db") && reason.contains("Read-only file system"),
            "{reason}"
        );
        assert_eq!(reason.lines().count(), 1, "{reason}");
        small.remount("remount,rw");
        let queue = open().unwrap();
        let lease = queue
            .lease(T0, &anyone(), Duration::from_secs(1))
            .await
            .unwrap();
        assert_eq!(lease.unwrap().job, job(1));
        queue.close().await.unwrap();
    });
    drop(small);
}
