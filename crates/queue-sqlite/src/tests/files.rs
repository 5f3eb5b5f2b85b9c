//! Locking of the file, and which files are refused.

use std::{error::Error as _, fs};

use proto::{Account, Timestamp};
use queue::{
    Ceiling, KeyRecord, Keys, Queue, QueueError, RESULT_RETENTION, Scope, Serve,
    conformance::sample::{T0, job, leased},
};

use super::{Scratch, run};
use crate::{OpenError, SqliteKeys, SqliteQueue};

#[test]
fn a_second_relay_on_the_same_file_is_refused_until_the_first_has_gone() {
    run(async {
        let queue = Scratch::new();
        let second = SqliteQueue::open(&queue.path(), T0).unwrap_err();
        let reason = reason(&second);
        assert!(reason.contains("in use by another relay"), "{reason}");
        drop(queue.reopened(T0).await);
    });
}

#[test]
fn keys_are_made_and_revoked_from_outside_while_a_relay_runs() {
    run(async {
        let queue = Scratch::new();
        let outside = SqliteKeys::open(&queue.path()).unwrap();
        assert_eq!(queue.find_key("k1").await.unwrap(), None);
        outside.create_key(key()).await.unwrap();
        assert_eq!(queue.find_key("k1").await.unwrap(), Some(key()));
        outside.revoke_key(T0, "one").await.unwrap();
        assert_eq!(
            queue.find_key("k1").await.unwrap().unwrap().revoked_at,
            Some(T0)
        );
        queue.enqueue(T0, job(1)).await.unwrap();
    });
}

#[test]
fn keys_are_made_before_there_is_a_relay() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/queue.db");
        SqliteKeys::open(&path)
            .unwrap()
            .create_key(key())
            .await
            .unwrap();
        let queue = SqliteQueue::open(&path, T0).unwrap();
        assert_eq!(queue.list_keys().await.unwrap(), [key()]);
    });
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private/queue.db");
        let queue = SqliteQueue::open(&path, T0).unwrap();
        queue.enqueue(T0, job(1)).await.unwrap();
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert!(files.len() >= 3, "queue, log, lock");
        for file in files {
            let file = file.unwrap().path();
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    });
}

#[test]
fn a_file_of_another_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let later = rusqlite::Connection::open(&path).unwrap();
    later
        .execute_batch("CREATE TABLE jobs (x); PRAGMA user_version = 99;")
        .unwrap();
    drop(later);
    let before = fs::read(&path).unwrap();
    let reason = reason(&SqliteQueue::open(&path, T0).unwrap_err());
    assert!(
        reason.contains("has layout 99, this version knows only"),
        "{reason}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let foreign = reason(&SqliteQueue::open(&path, T0).unwrap_err());
    assert!(foreign.contains("tables of another program"), "{foreign}");
    fs::write(
        &path,
        "this is no database, but a letter to my aunt ".repeat(50),
    )
    .unwrap();
    let letter = reason(&SqliteQueue::open(&path, T0).unwrap_err());
    assert!(letter.contains("damaged or not a queue"), "{letter}");
    assert!(letter.contains("queue.db"), "{letter}");
}

#[test]
fn a_file_that_cannot_be_made_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let path = folder.path().join("file/queue.db");
    let reason = reason(&SqliteQueue::open(&path, T0).unwrap_err());
    assert!(
        reason.contains("cannot use") && reason.contains("file/queue.db"),
        "{reason}"
    );
}

/// Flips bytes all over a file: it is opened or refused, and nothing panics.
#[test]
fn a_damaged_file_is_refused_or_read_but_never_breaks_the_relay() {
    run(async {
        let queue = Scratch::new();
        for n in 1..=20 {
            leased(&*queue, T0, n).await;
        }
        let read = |name: &str| fs::read(queue.folder.path().join(name)).unwrap();
        let (file, log) = (read("queue.db"), read("queue.db-wal"));
        queue.close().await.unwrap();
        let clean = read("queue.db");
        for damaged in flipped(&log) {
            open_and_look(&file, &damaged).await;
        }
        let mut refused = 0;
        for damaged in flipped(&clean) {
            refused += usize::from(!open_and_look(&damaged, &[]).await);
        }
        assert!(refused > 0, "none of the damage was found");
    });
}

/// Returns about sixty copies of the bytes with one byte flipped in each.
fn flipped(whole: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..whole.len()).step_by(whole.len() / 60 + 1).map(|place| {
        let mut damaged = whole.to_vec();
        damaged[place] ^= 0x55;
        damaged
    })
}

/// Returns whether such a file opens; its contents may then be read or refused.
async fn open_and_look(file: &[u8], log: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    fs::write(&path, file).unwrap();
    fs::write(folder.path().join("queue.db-wal"), log).unwrap();
    match SqliteQueue::open(&path, T0) {
        Ok(opened) => {
            drop(opened.list(queue::Owner::Anyone, 100).await);
            drop(opened.close().await);
            true
        }
        Err(error) => {
            assert!(matches!(error, QueueError::Store(_)), "{error}");
            false
        }
    }
}

#[test]
fn an_erased_prompt_is_nowhere_in_the_file() {
    run(async {
        let queue = Scratch::new();
        let canary = "a-prompt-nobody-may-find";
        let secret = queue::NewJob {
            body: format!("{{\"x\":\"{canary}\"}}").into(),
            ..job(1)
        };
        queue.enqueue(T0, secret).await.unwrap();
        let token = leased(&*queue, T0, 2).await;
        queue
            .cancel(T0, queue::Owner::Anyone, token.job)
            .await
            .unwrap();
        queue.reap(T0 + RESULT_RETENTION).await.unwrap();
        queue
            .reap(T0 + RESULT_RETENTION + RESULT_RETENTION)
            .await
            .unwrap();
        queue.close().await.unwrap();
        for file in fs::read_dir(queue.folder.path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            let found = bytes
                .windows(canary.len())
                .any(|part| part == canary.as_bytes());
            assert!(!found);
        }
    });
}

/// The write-ahead log is beside the real file: two relays that use two names of it would both
/// write to it.
#[cfg(unix)]
#[test]
fn one_file_by_two_names_is_lent_to_one_relay() {
    run(async {
        let queue = Scratch::new();
        let elsewhere = tempfile::tempdir().unwrap();
        let name = elsewhere.path().join("other.db");
        std::os::unix::fs::symlink(queue.path(), &name).unwrap();
        let refused = SqliteQueue::open(&name, T0).unwrap_err();
        assert!(reason(&refused).contains("in use by another relay"));
        let keys = SqliteKeys::open(&name).unwrap();
        keys.create_key(key()).await.unwrap();
        assert!(queue.find_key("k1").await.unwrap().is_some());
        queue.close().await.unwrap();
        drop(queue.queue);
        let again = SqliteQueue::open(&name, T0).unwrap();
        again.close().await.unwrap();
        let left = fs::read_dir(elsewhere.path()).unwrap().count();
        assert_eq!(left, 1, "all files stand beside the real one");
    });
}

#[test]
fn the_bundled_sqlite_has_no_known_wal_fault() {
    assert!(
        rusqlite::version_number() >= 3_051_003,
        "{}",
        rusqlite::version()
    );
}

pub(super) fn reason(error: &QueueError) -> String {
    let source = error.source().unwrap();
    assert!(source.is::<OpenError>(), "{source}");
    source.to_string()
}

pub(super) fn key() -> KeyRecord {
    KeyRecord {
        id: "k1".into(),
        name: "one".into(),
        account: Account::new("a").unwrap(),
        scopes: [Scope::Read].into(),
        serve: Serve::All,
        secret_sha256: [1; 32],
        created_at: Timestamp(5),
        revoked_at: None,
        ceiling: Ceiling::default(),
        expires_at: None,
        last_used_at: None,
    }
}
