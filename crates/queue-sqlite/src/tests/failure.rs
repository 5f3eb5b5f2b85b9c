//! A group that cannot be written has no effect, for exactly the callers in it.

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use proto::{End, ErrorCode, JobState, worker::Retry};
use queue::{
    NewJob, Owner, Queue,
    conformance::sample::{
        LEASE, T0, after, anyone, at, found, id, job, leased, lines, next, page, texts, urgent, why,
    },
};

use super::{Scratch, kept, run};
use crate::error::Fault;

#[test]
fn a_failed_commit_is_told_to_its_group_and_leaves_memory_equal_to_disk() {
    run(async {
        let fails = Arc::new(AtomicBool::new(false));
        let flag = fails.clone();
        let queue = Scratch::on_commit(move || flag.load(Ordering::SeqCst));
        let ending = leased(&*queue, T0, 1).await;
        let returned = leased(&*queue, T0, 2).await;
        let unwanted = leased(&*queue, T0, 3).await;
        queue.enqueue(T0, urgent(4, 1)).await.unwrap();
        queue.enqueue(T0, job(5)).await.unwrap();
        let before = queue.memory();
        let account = job(1).account;
        let kept = || kept(&queue, &account);
        let kept_before = kept();
        let log = queue.log(Owner::Anyone, id(1)).await.unwrap().unwrap();

        let release = queue.hold_writer().await;
        let query = anyone();
        let asked = async {
            queue.append(T0, ending, 1, lines(&["x"])).await.unwrap();
            tokio::join!(
                queue.complete(T0, ending, 1, End::Completed),
                queue.nack(T0, returned, Retry::Now, why(ErrorCode::Draining)),
                queue.cancel(T0, Owner::Anyone, unwanted.job),
                queue.cancel(T0, Owner::Anyone, id(5)),
                async { queue.lease(T0, &query, LEASE).await.map(drop) },
                queue.enqueue(T0, job(6)),
                async { queue.reap(T0).await.map(drop) },
            )
        };
        tokio::pin!(asked);
        tokio::select! {
            biased;
            _ = &mut asked => panic!("the writer is held"),
            () = queue.waiting(7) => fails.store(true, Ordering::SeqCst),
        }
        release.send(()).unwrap();
        let (a, b, c, d, e, f, g) = asked.await;
        for answer in [a, b, c, d, e, f, g] {
            assert_eq!(answer.unwrap_err().code(), ErrorCode::StoreUnavailable);
        }
        fails.store(false, Ordering::SeqCst);

        assert_eq!(queue.memory(), before);
        assert_eq!(queue.disk(), before);
        assert_eq!(kept(), kept_before);
        assert_eq!(log.head().borrow().end, None, "nobody was told");
        assert!(queue.get(Owner::Anyone, id(6)).await.unwrap().is_none());

        queue
            .complete(at(1), ending, 1, End::Completed)
            .await
            .unwrap();
        assert_eq!(
            texts(&page(&*queue, id(1), after(0, 0)).await),
            ["x"],
            "the line was kept"
        );
        assert_eq!(next(&*queue, at(1)).await.unwrap().job.id, id(4));
        queue.enqueue(at(1), job(6)).await.unwrap();
        assert_eq!(queue.disk(), queue.memory());
    });
}

#[test]
fn a_full_disk_refuses_new_jobs_and_recovers_by_itself() {
    run(async {
        let queue = Scratch::new();
        let token = leased(&*queue, T0, 1).await;
        queue
            .on_writer(|conn| {
                let pages: i64 = conn
                    .query_row("PRAGMA page_count", [], |row| row.get(0))
                    .unwrap();
                let limit = format!("PRAGMA max_page_count = {}", pages + 1);
                conn.query_row(&limit, [], |_| Ok(())).unwrap();
            })
            .await;
        let large = NewJob {
            body: vec![b'x'; 100_000].into(),
            ..job(2)
        };
        let refused = queue.enqueue(T0, large.clone()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DiskFull);
        assert_eq!(queue.memory(), queue.disk());
        assert_eq!(queue.counts().queued, 0);
        queue.complete(T0, token, 0, End::Completed).await.unwrap();
        assert_eq!(
            found(&*queue, id(1)).await.state,
            JobState::Completed,
            "small ends still fit"
        );

        queue
            .on_writer(|conn| {
                conn.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))
                    .unwrap();
            })
            .await;
        let recovered = async {
            while queue.enqueue(T0, large.clone()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(5);
        tokio::time::timeout(patience, recovered).await.unwrap();
    });
}

#[test]
fn nothing_is_written_after_a_failure_inside_a_group() {
    run(async {
        let queue = Scratch::new();
        let release = queue.hold_writer().await;
        let leave = queue.ask(|group| {
            group.conn.execute_batch("ROLLBACK")?;
            Err::<(), _>(rusqlite::Error::InvalidQuery.into())
        });
        let asked = async { tokio::join!(leave, queue.enqueue(T0, job(1))) };
        tokio::pin!(asked);
        tokio::select! {
            biased;
            _ = &mut asked => panic!("the writer is held"),
            () = queue.waiting(2) => {}
        }
        release.send(()).unwrap();
        let (left, enqueued) = asked.await;
        assert!(left.is_err() && enqueued.is_err());
        assert!(queue.disk().is_empty() && queue.memory().is_empty());
        queue.enqueue(T0, job(1)).await.unwrap();
    });
}

#[test]
fn lines_that_one_refused_line_kept_off_the_disk_are_written_with_the_next_group() {
    run(async {
        let queue = Scratch::new();
        let refused = leased(&*queue, T0, 1).await;
        let behind = leased(&*queue, T0, 2).await;
        queue
            .on_writer(|conn| {
                conn.execute_batch(
                    "CREATE TRIGGER refuse BEFORE INSERT ON lines WHEN NEW.seq = 1
                     BEGIN SELECT RAISE(ABORT, 'refused'); END",
                )
                .unwrap();
            })
            .await;
        let release = queue.hold_writer().await;
        queue.append(T0, refused, 1, lines(&["x"])).await.unwrap();
        queue.append(T0, behind, 1, lines(&["y"])).await.unwrap();
        release.send(()).unwrap();
        let failed = queue.enqueue(T0, job(3)).await.unwrap_err();
        assert_eq!(failed.code(), ErrorCode::StoreUnavailable);

        queue
            .on_writer(|conn| conn.execute_batch("DROP TRIGGER refuse").unwrap())
            .await;
        for token in [refused, behind] {
            assert_eq!(queue.stored(token).await.unwrap(), 1, "{}", token.job);
            queue.complete(T0, token, 1, End::Completed).await.unwrap();
        }
        let queue = queue.reopened(at(1)).await;
        assert_eq!(texts(&page(&*queue, id(1), after(0, 0)).await), ["x"]);
        assert_eq!(texts(&page(&*queue, id(2), after(0, 0)).await), ["y"]);
    });
}

#[test]
fn an_end_takes_its_lines_along_even_if_nobody_knows_they_are_not_on_disk() {
    run(async {
        let queue = Scratch::new();
        let token = leased(&*queue, T0, 1).await;
        let release = queue.hold_writer().await;
        queue.append(T0, token, 1, lines(&["x"])).await.unwrap();
        drop(queue.shared.live.lock().take_unstored());
        release.send(()).unwrap();
        queue.complete(T0, token, 1, End::Completed).await.unwrap();
        assert_eq!(texts(&page(&*queue, id(1), after(0, 0)).await), ["x"]);
    });
}

#[test]
fn a_writer_that_breaks_down_is_told_as_a_failure_of_the_store() {
    run(async {
        let queue = Scratch::new();
        queue.enqueue(T0, job(1)).await.unwrap();
        let broken = queue.ask(|_| -> Result<(), Fault> { panic!("planted") });
        assert!(broken.await.is_err());
        let failure = queue.failure().await;
        assert_eq!(failure.code(), ErrorCode::OutcomeUnknown);
        let reason = failure.source().unwrap().to_string();
        assert!(reason.contains("its writer thread failed"), "{reason}");
        assert!(queue.enqueue(T0, job(2)).await.is_err());
        queue.close().await.unwrap_err();
        assert_eq!(queue.disk().len(), 1);
    });
}
