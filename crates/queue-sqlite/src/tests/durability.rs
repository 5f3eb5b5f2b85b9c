//! Acknowledged data is on disk, one fsync serves many callers, and tokens do not wait for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use futures_util::{FutureExt as _, future::join_all};
use proto::{End, EventId, JobId};
use queue::{
    Batches as _, Extras, Keys as _, NewJob, Owner, Queue, QueueError, QueueLimits, Renewal,
    Renewed, Sessions as _, Submissions as _, Users as _,
    conformance::{
        keys::key,
        sample::{T0, after, at, found, id, job, leased, lines, next},
        sessions::session,
        users::user,
    },
};

use super::{Scratch, run};
use crate::{queries::counting, sqlite::READERS};

#[test]
fn a_job_is_acknowledged_after_its_commit_and_not_before() {
    run(async {
        let (release, held) = mpsc::channel();
        let (reached, at_commit) = mpsc::channel();
        let queue = Scratch::on_commit(move || {
            // When the test is over the channels are closed, and nothing is held.
            let _ = reached.send(());
            let _ = held.recv();
            false
        });
        let enqueue = queue.enqueue(T0, job(1));
        let reached = tokio::task::spawn_blocking(move || at_commit.recv());
        tokio::pin!(enqueue);
        tokio::select! {
            _ = &mut enqueue => panic!("acknowledged before the commit"),
            reached = reached => reached.unwrap().unwrap(),
        }
        assert!(queue.get(Owner::Anyone, id(1)).await.unwrap().is_none());
        release.send(()).unwrap();
        enqueue.await.unwrap();
        drop(release);
        assert_eq!(found(&*queue, id(1)).await.new, job(1));
    });
}

#[test]
fn a_lease_is_on_disk_before_it_is_handed_out() {
    run(async {
        let queue = Scratch::new();
        queue.enqueue(T0, job(1)).await.unwrap();
        let lease = next(&*queue, T0).await.unwrap();
        let after_kill = queue.killed(T0);
        assert_eq!(
            found(&*after_kill, id(1)).await.attempt,
            lease.token.attempt
        );
    });
}

#[test]
fn who_asks_during_one_commit_shares_the_next() {
    run(async {
        let commits = Arc::new(AtomicUsize::new(0));
        let counter = commits.clone();
        let queue = Scratch::on_commit(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            false
        });
        let release = queue.hold_writer().await;
        let before = commits.load(Ordering::SeqCst);
        let together = join_all((1..=50).map(|n| queue.enqueue(T0, job(n))));
        tokio::pin!(together);
        tokio::select! {
            biased;
            _ = &mut together => panic!("the writer is held"),
            () = queue.waiting(50) => {}
        }
        release.send(()).unwrap();
        assert!(together.await.into_iter().all(|answer| answer.is_ok()));
        assert_eq!(
            commits.load(Ordering::SeqCst) - before,
            2,
            "the held one and theirs"
        );
        assert_eq!(queue.disk().len(), 50);
    });
}

/// With a connection of their own they would compete with the writer: each would wait in SQLite's
/// busy handler, and logins for seconds.
#[test]
fn keys_users_and_sessions_share_the_groups_of_jobs() {
    run(async {
        let commits = Arc::new(AtomicUsize::new(0));
        let counter = commits.clone();
        let queue = Scratch::on_commit(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            false
        });
        let user = queue.create_user(user("eva")).await.unwrap();
        let session = session(1, user);
        queue.open_session(T0, session.clone()).await.unwrap();
        queue.create_key(key("k1", "one")).await.unwrap();
        let renewal = Renewal {
            from: session.renewal,
            to: [9; 16],
            until: at(200),
        };
        let release = queue.hold_writer().await;
        let before = commits.load(Ordering::SeqCst);
        let together = async {
            let (renewed, revoked, ..) = tokio::join!(
                queue.renew_session(session.id, renewal),
                queue.revoke_key(T0, "k1"),
                async { queue.logged_in(T0, user).await.unwrap() },
                async { queue.note_key_used(T0, "k1").await.unwrap() },
                async { queue.create_key(key("k2", "two")).await.unwrap() },
                async { queue.enqueue(T0, job(1)).await.unwrap() },
            );
            assert!(matches!(renewed.unwrap(), Renewed::Done(_)));
            assert!(revoked.unwrap());
        };
        tokio::pin!(together);
        tokio::select! {
            biased;
            () = &mut together => panic!("the writer is held"),
            () = queue.waiting(6) => {}
        }
        // Reads do not wait for the group.
        assert_eq!(queue.list_keys().await.unwrap().len(), 1);
        assert_eq!(queue.list_users().await.unwrap().len(), 1);
        release.send(()).unwrap();
        together.await;
        let shared = commits.load(Ordering::SeqCst) - before;
        assert_eq!(shared, 2, "the held one and theirs");
        assert_eq!(queue.list_keys().await.unwrap().len(), 2);
    });
}

/// Waking the writer is a system call, which concurrent callers would otherwise wait for.
#[test]
fn a_writer_that_works_is_not_woken() {
    run(async {
        let queue = Scratch::new();
        let release = queue.hold_writer().await;
        let before = queue.shared.inbox.woken();
        let together = join_all((1..=50).map(|n| queue.enqueue(T0, job(n))));
        tokio::pin!(together);
        tokio::select! {
            biased;
            _ = &mut together => panic!("the writer is held"),
            () = queue.waiting(50) => {}
        }
        assert_eq!(queue.shared.inbox.woken(), before);
        release.send(()).unwrap();
        assert!(together.await.into_iter().all(|answer| answer.is_ok()));
    });
}

/// A long list does not delay the read of a single job.
#[test]
fn a_job_is_found_while_others_list() {
    run(async {
        let queue = Scratch::new();
        queue.enqueue(T0, job(1)).await.unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let mut lists = Vec::new();
        let (reached, mut reading) = tokio::sync::mpsc::channel(8);
        for _ in 0..8 {
            let (held, reader, reached) = (held.clone(), queue.lists.clone(), reached.clone());
            lists.push(tokio::spawn(async move {
                let list = reader.read(move |_| {
                    reached.try_send(()).unwrap();
                    let _ = held.lock().unwrap().recv();
                    Ok(())
                });
                list.await.unwrap();
            }));
        }
        for _ in 0..READERS {
            reading.recv().await.unwrap();
        }
        assert_eq!(found(&*queue, id(1)).await.new, job(1));
        assert_eq!(queue.file(Owner::Anyone, "f").await.unwrap(), None);
        assert_eq!(queue.batch(Owner::Anyone, "b").await.unwrap(), None);
        drop(release);
        for list in lists {
            list.await.unwrap();
        }
        assert_eq!(queue.list(Owner::Anyone, 9).await.unwrap().len(), 1);
    });
}

/// Clients poll the query service: a poll must not scan the queries of other accounts.
#[test]
fn queries_are_counted_by_an_index_of_their_account() {
    let queue = Scratch::new();
    let conn = crate::schema::open_reader(&queue.path()).unwrap();
    let plan = |select: &str, seqs: Option<&str>| {
        let mut select = conn
            .prepare(&format!("EXPLAIN QUERY PLAN {select}"))
            .unwrap();
        let steps = select.query_map((Some("a"), "[]", seqs), |row| {
            row.get::<_, String>("detail")
        });
        let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
        steps.join("; ")
    };
    let own = plan(&counting(Some("a"), "[]", None), None);
    assert!(
        own.contains("SEARCH queries USING COVERING INDEX queries_by_account"),
        "{own}"
    );
    let waiting = plan(&counting(Some("a"), "[0]", Some("[1]")), Some("[1]"));
    assert!(
        waiting.contains("SEARCH queries USING") && waiting.contains("(seq=?)"),
        "{waiting}"
    );
    assert!(
        !waiting.contains("SCAN queries") && !waiting.contains("SCAN jobs"),
        "{waiting}"
    );
}

#[test]
fn sessions_that_are_over_are_found_by_when_they_ended() {
    let queue = Scratch::new();
    let conn = crate::schema::open_reader(&queue.path()).unwrap();
    let plan = format!("EXPLAIN QUERY PLAN {}", crate::sessions::FORGET);
    let step = conn.query_row(&plan, [0], |row| row.get::<_, String>("detail"));
    let step = step.unwrap();
    assert!(
        step.contains("SEARCH sessions USING INDEX sessions_by_end"),
        "{step}"
    );
}

#[test]
fn a_line_is_read_while_the_disk_stands_still() {
    run(async {
        let queue = Scratch::new();
        let token = leased(&*queue, T0, 1).await;
        let log = queue.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
        let release = queue.hold_writer().await;
        assert_eq!(
            queue.append(T0, token, 1, lines(&["now"])).await.unwrap(),
            0,
            "not on disk"
        );
        assert_eq!(log.head().borrow().last, after(1, 1));
        assert_eq!(
            log.read(EventId::default(), 1).await.unwrap().chunks.len(),
            1
        );
        let ended = queue.complete(T0, token, 1, End::Completed);
        tokio::pin!(ended);
        tokio::select! {
            biased;
            _ = &mut ended => panic!("acknowledged before it was on disk"),
            () = queue.waiting(1) => {}
        }
        assert_eq!(
            log.head().borrow().end,
            None,
            "an end is shown only from disk"
        );
        release.send(()).unwrap();
        ended.await.unwrap();
        assert_eq!(log.head().borrow().end, Some(End::Completed));
    });
}

#[test]
fn what_there_is_no_room_for_is_refused_while_the_disk_stands_still() {
    run(async {
        let limits = QueueLimits {
            jobs_max: 1,
            ..QueueLimits::default()
        };
        let queue = Scratch::on(limits);
        queue.enqueue(T0, job(1)).await.unwrap();
        let release = queue.hold_writer().await;
        let refused = queue.enqueue(T0, job(2)).now_or_never();
        assert!(
            matches!(refused, Some(Err(QueueError::Full(_)))),
            "{refused:?}"
        );
        let refused = queue.submit(T0, job(2), Extras::default()).now_or_never();
        assert!(
            matches!(refused, Some(Err(QueueError::Full(_)))),
            "{refused:?}"
        );
        release.send(()).unwrap();
    });
}

#[test]
fn more_jobs_than_the_writer_has_room_for_are_refused_at_once() {
    run(async {
        let queue = Scratch::new();
        let release = queue.hold_writer().await;
        let one = |n: usize| NewJob {
            id: JobId((n as u128).to_be_bytes()),
            ..job(1)
        };
        let many = join_all((0..1_024).map(|n| queue.enqueue(T0, one(n))));
        tokio::pin!(many);
        tokio::select! {
            biased;
            _ = &mut many => panic!("the writer is held"),
            () = queue.waiting(1_024) => {}
        }
        let refused = queue.enqueue(T0, one(5_000)).await.unwrap_err();
        assert!(matches!(refused, QueueError::Full(_)), "{refused}");
        release.send(()).unwrap();
        let accepted = many.await.into_iter().filter(Result::is_ok).count();
        assert_eq!(accepted, proto::limits::QUEUED_PER_ACCOUNT_MAX);
    });
}

#[test]
fn a_killed_process_keeps_what_it_acknowledged() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::durability::enqueue_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("HEARTH_TEST_QUEUE", &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged: Vec<JobId> = output
        .filter_map(|line| line.unwrap().strip_prefix("ack ")?.parse().ok())
        .take(100)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(acknowledged.len(), 100);
    run(async move {
        let queue = crate::SqliteQueue::open(&path, T0).unwrap();
        for id in acknowledged {
            assert_eq!(found(&queue, id).await.new.body, job(1).body);
        }
    });
}

#[test]
#[ignore = "the child of a_killed_process_keeps_what_it_acknowledged"]
fn enqueue_until_killed() {
    run(async {
        let path = std::env::var_os("HEARTH_TEST_QUEUE").unwrap();
        let queue = crate::SqliteQueue::open(path.as_ref(), T0).unwrap();
        for n in 0_u128..900 {
            let id = JobId(n.to_be_bytes());
            queue.enqueue(T0, NewJob { id, ..job(1) }).await.unwrap();
            println!("ack {id}");
        }
        std::future::pending::<()>().await;
    });
}
