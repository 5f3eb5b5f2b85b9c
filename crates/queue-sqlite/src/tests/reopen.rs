//! A restart keeps everything.

use bytes::Bytes;
use proto::{
    End, ErrorCode, EventId, JobState,
    limits::{KEY_COST, RESTART_GRACE},
    worker::Retry,
};
use queue::{
    IdempotencyKey, NewJob, Owner, Queue, QueueError, RESULT_RETENTION, Submissions,
    conformance::{
        bounds,
        sample::{
            LEASE, T0, after, at, found, id, job, job_of, leased, lines, next, page, texts, why,
        },
        submissions::named,
    },
};

use super::{Scratch, kept, run};
use crate::SqliteQueue;

#[test]
fn a_restart_keeps_the_queue_and_its_order() {
    run(async {
        let queue = Scratch::new();
        for new in [
            job(3),
            job(1),
            NewJob {
                attended: true,
                ..job_of(2, "b")
            },
        ] {
            queue.enqueue(T0, new).await.unwrap();
        }
        let before = queue.memory();
        for after in [queue.killed(at(1)), queue.reopened(at(1)).await] {
            assert_eq!(after.memory(), before);
            assert_eq!(after.counts().queued, 3);
            assert_eq!(after.attended().await.unwrap()[0].new.id, id(2));
            assert_eq!(next(&*after, at(1)).await.unwrap().job, job(3));
            after.enqueue(at(1), job(9)).await.unwrap();
            assert_eq!(after.list(Owner::Anyone, 1).await.unwrap()[0].new.id, id(9));
        }
    });
}

#[test]
fn a_restart_keeps_leases_and_their_workers_go_on() {
    run(async {
        let queue = Scratch::new();
        let token = leased(&*queue, T0, 1).await;
        queue
            .append(T0, token, 1, lines(&["1", "2"]))
            .await
            .unwrap();
        while queue.stored(token).await.unwrap() < 2 {
            tokio::task::yield_now().await;
        }
        for after_restart in [queue.killed(at(500)), queue.reopened(at(500)).await] {
            let held = at(500) + RESTART_GRACE;
            assert_eq!(after_restart.reap(at(501)).await.unwrap(), Some(held));
            assert_eq!(after_restart.stored(token).await.unwrap(), 2);
            assert_eq!(
                texts(&page(&*after_restart, id(1), after(1, 1)).await),
                ["2"]
            );
            after_restart
                .append(at(502), token, 2, lines(&["2", "3"]))
                .await
                .unwrap();
            after_restart
                .complete(at(502), token, 3, End::Completed)
                .await
                .unwrap();
            let page = page(&*after_restart, id(1), after(0, 0)).await;
            assert_eq!(texts(&page), ["1", "2", "3"]);
        }
    });
}

#[test]
fn a_restart_keeps_ends_answers_and_wishes() {
    run(async {
        let queue = Scratch::new();
        let answered = leased(&*queue, T0, 1).await;
        queue
            .append(T0, answered, 1, lines(&["x", "y"]))
            .await
            .unwrap();
        queue
            .complete(at(1), answered, 2, End::Completed)
            .await
            .unwrap();
        let dead = leased(&*queue, at(1), 2).await;
        queue
            .nack(at(2), dead, Retry::Never, why(ErrorCode::EngineRefused))
            .await
            .unwrap();
        let later = leased(&*queue, at(2), 3).await;
        queue
            .nack(
                at(2),
                later,
                Retry::AfterMs(60_000),
                why(ErrorCode::EngineFailed),
            )
            .await
            .unwrap();
        let unwanted = leased(&*queue, at(2), 4).await;
        queue.cancel(at(2), Owner::Anyone, id(4)).await.unwrap();
        let mut jobs = Vec::new();
        for n in 1..=4 {
            jobs.push(found(&*queue, id(n)).await);
        }
        for after_restart in [queue.killed(at(3)), queue.reopened(at(3)).await] {
            for (n, before) in (1..=4).zip(&jobs) {
                assert_eq!(found(&*after_restart, id(n)).await, *before);
            }
            assert_eq!(
                texts(&page(&*after_restart, id(1), after(1, 0)).await),
                ["x", "y"]
            );
            after_restart
                .complete(at(3), answered, 2, End::Completed)
                .await
                .unwrap();
            assert!(
                next(&*after_restart, at(61)).await.is_none(),
                "not before its time"
            );
            after_restart.cancelled(unwanted).await;
            let told = after_restart.extend(at(3), unwanted, LEASE).await.unwrap();
            assert_eq!(told, queue::Extended::Cancelled);
            assert_eq!(
                next(&*after_restart, at(62)).await.unwrap().token.attempt,
                2
            );
        }
    });
}

#[test]
fn counted_attempts_survive_a_restart() {
    run(async {
        let mut queue = Scratch::new();
        queue.enqueue(T0, job(1)).await.unwrap();
        for _ in 0..5 {
            let token = next(&*queue, T0).await.unwrap().token;
            queue
                .nack(T0, token, Retry::AfterMs(0), why(ErrorCode::EngineFailed))
                .await
                .unwrap();
            queue = queue.reopened(T0).await;
        }
        assert_eq!(found(&*queue, id(1)).await.state, JobState::Failed);
    });
}

#[test]
fn a_new_attempt_forgets_the_lines_of_the_old_one_on_disk_too() {
    run(async {
        let queue = Scratch::new();
        let first = leased(&*queue, T0, 1).await;
        queue
            .append(T0, first, 1, lines(&["old", "older"]))
            .await
            .unwrap();
        queue.reap(T0 + LEASE).await.unwrap();
        let waiting = queue.killed(T0 + LEASE);
        assert_eq!(
            texts(&page(&*waiting, id(1), after(1, 0)).await),
            ["old", "older"]
        );
        let second = next(&*queue, T0 + LEASE).await.unwrap().token;
        queue
            .append(T0 + LEASE, second, 1, lines(&["new"]))
            .await
            .unwrap();
        queue
            .complete(T0 + LEASE, second, 1, End::Completed)
            .await
            .unwrap();
        let page = page(&*queue.killed(T0 + LEASE), id(1), after(1, 2)).await;
        assert!(page.restarted);
        assert_eq!((texts(&page), page.attempt), (vec!["new".to_owned()], 2));
    });
}

#[test]
fn a_restart_keeps_what_a_name_stands_for() {
    run(async {
        let queue = Scratch::new();
        let named = |fingerprint| named("k", fingerprint);
        queue.submit(T0, job(1), named(7)).await.unwrap();
        let stands = async |queue: &Scratch, now, queued| {
            let again = queue.submit(now, job(2), named(7)).await;
            assert_eq!(again.unwrap().id(), id(1));
            let other = queue.submit(now, job(2), named(8)).await.unwrap_err();
            assert!(matches!(other, QueueError::OtherRequest), "{other}");
            assert_eq!(queue.counts().queued, queued);
        };
        stands(&queue.killed(at(1)), at(1), 1).await;
        let queue = queue.reopened(at(1)).await;
        stands(&queue, at(1), 1).await;

        // The job is erased, and its key is not.
        queue.cancel(at(1), Owner::Anyone, id(1)).await.unwrap();
        let erased = at(1) + RESULT_RETENTION;
        queue.reap(erased).await.unwrap();
        for after in [queue.killed(erased), queue.reopened(erased).await] {
            stands(&after, erased, 0).await;
            assert_eq!(kept(&after, &job(1).account), KEY_COST);
            let free = IdempotencyKey::kept_until(T0);
            assert_eq!(after.reap(erased).await.unwrap(), Some(free));
            after.reap(free).await.unwrap();
            assert_eq!(kept(&after, &job(1).account), 0);
            let new = after.submit(free, job(3), named(8)).await.unwrap();
            assert_eq!(new.id(), id(3));
        }
    });
}

#[test]
fn an_accounts_jobs_are_found_along_their_index() {
    run(async {
        let queue = Scratch::new();
        queue
            .on_writer(|conn| {
                let plan = "EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE account = ?1
                    AND created_at >= ?2 AND created_at < ?3 AND (created_at, seq) < (?4, ?5)
                    ORDER BY created_at DESC, seq DESC";
                let plan: Vec<String> = conn
                    .prepare(plan)
                    .unwrap()
                    .query_map(("a", 0, 9, 9, 9), |row| row.get("detail"))
                    .unwrap()
                    .map(Result::unwrap)
                    .collect();
                assert!(plan[0].contains("USING INDEX jobs_by_account"), "{plan:?}");
                assert_eq!(plan.len(), 1, "nothing is sorted: {plan:?}");
            })
            .await;
    });
}

#[test]
fn a_log_that_is_erased_while_it_is_read_ends_with_an_error() {
    run(async {
        let queue = Scratch::new();
        let token = leased(&*queue, T0, 1).await;
        queue
            .append(T0, token, 1, lines(&["1", "2"]))
            .await
            .unwrap();
        queue.complete(T0, token, 2, End::Completed).await.unwrap();
        let log = queue.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
        let begun = log.read(after(0, 0), 1).await.unwrap();
        assert_eq!((texts(&begun), &begun.end), (vec!["1".to_owned()], &None));
        queue.reap(T0 + RESULT_RETENTION).await.unwrap();
        let rest = log.read(after(1, 1), 1).await;
        assert!(matches!(rest, Err(QueueError::Erased(_))), "{rest:?}");
    });
}

/// The lines are dropped from memory at the end, which a slow reader must not notice.
#[test]
fn a_reader_of_a_long_answer_goes_on_from_the_disk_once_the_job_ended() {
    run(async {
        let queue = Scratch::new();
        let token = leased(&*queue, T0, 1).await;
        let log = queue.log(Owner::Anyone, id(1)).await.unwrap().unwrap();
        let long = |n: usize| Bytes::from(format!("{n}{}", "x".repeat(50_000)));
        for n in 1..=8 {
            let first = u64::try_from(n).unwrap();
            queue.append(T0, token, first, vec![long(n)]).await.unwrap();
        }
        let begun = log.read(EventId::default(), 60_000).await.unwrap();
        assert_eq!((begun.chunks.len(), &begun.end), (1, &None));
        queue.complete(T0, token, 8, End::Completed).await.unwrap();
        assert_eq!(log.head().borrow().end, Some(End::Completed));
        let mut read: Vec<Bytes> = begun.chunks.into_iter().map(|chunk| chunk.line.0).collect();
        loop {
            let n = read.len() as u64;
            let page = log.read(after(1, n), 60_000).await.unwrap();
            assert!(!page.restarted);
            read.extend(page.chunks.into_iter().map(|chunk| chunk.line.0));
            if page.end.is_some() {
                break;
            }
        }
        assert_eq!(read, (1..=8).map(long).collect::<Vec<_>>());
    });
}

#[test]
fn a_restart_forgets_nothing_of_what_is_kept_of_an_account() {
    run(async {
        let queue = Scratch::on(bounds::limits());
        let body = || vec![b'x'; 500].into();
        let new = |n| NewJob {
            body: body(),
            ..job(n)
        };
        let mut n = 0;
        while queue.enqueue(T0, new(n)).await.is_ok() {
            queue.cancel(T0, Owner::Anyone, id(n)).await.unwrap();
            n += 1;
        }
        assert!(n > 9);
        queue.close().await.unwrap();
        let path = queue.path();
        let again = SqliteQueue::open_limited(&path, T0, bounds::limits()).unwrap();
        let refused = again.enqueue(T0, new(n)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::AccountFull);
        again.close().await.unwrap();
    });
}
