//! Idempotency keys that outlive their job.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::future::join_all;
use proto::{JobId, limits::KEY_COST};
use queue::{
    IdempotencyKey, NewJob, Owner, Queue, RESULT_RETENTION, Submissions,
    conformance::{
        sample::{T0, id, job, job_of},
        submissions::named,
    },
};

use super::{Scratch, kept, run};

#[test]
fn names_that_are_due_together_are_erased_in_several_groups() {
    const JOBS: usize = 700;
    run(async {
        let queue = Scratch::new();
        let ids = (1..=JOBS as u128).map(|n| JobId(n.to_be_bytes()));
        let asked = ids.clone().map(|id| {
            let name = named(&id.to_string(), 7);
            queue.submit(T0, NewJob { id, ..job(1) }, name)
        });
        assert!(join_all(asked).await.into_iter().all(|asked| asked.is_ok()));
        let cancelled = ids.map(|id| queue.cancel(T0, Owner::Anyone, id));
        assert!(
            join_all(cancelled)
                .await
                .into_iter()
                .all(|told| told.is_ok())
        );
        let (now, free) = (T0 + RESULT_RETENTION, IdempotencyKey::kept_until(T0));
        let names = || {
            let kept = kept(&queue, &job(1).account);
            assert_eq!(kept % KEY_COST, 0, "{kept}");
            kept / KEY_COST
        };
        while queue.reap(now).await.unwrap().is_some_and(|at| at <= now) {}
        assert_eq!(names(), JOBS as u64);
        assert_eq!(queue.reap(now).await.unwrap(), Some(free));
        // A job that is due at the same time goes first.
        let ended = now + (free.since(now) - RESULT_RETENTION);
        queue.enqueue(ended, job_of(9, "b")).await.unwrap();
        queue.cancel(ended, Owner::Anyone, id(9)).await.unwrap();
        assert_eq!(queue.reap(free).await.unwrap(), Some(free));
        assert!(queue.get(Owner::Anyone, id(9)).await.unwrap().is_none());
        assert!((1..JOBS as u64).contains(&names()), "{}", names());
        assert_eq!(queue.reap(free).await.unwrap(), None);
        assert_eq!(names(), 0);
    });
}

#[test]
fn names_that_are_due_are_found_along_their_index() {
    let queue = Scratch::new();
    let conn = crate::schema::open_reader(&queue.path()).unwrap();
    let plan = format!("EXPLAIN QUERY PLAN {}", crate::submissions::ERASE_KEYS);
    let mut plan = conn.prepare(&plan).unwrap();
    let steps = plan.query_map([0, 9], |row| row.get::<_, String>("detail"));
    let steps: Vec<_> = steps.unwrap().map(Result::unwrap).collect();
    for step in [
        "SEARCH past_submissions USING PRIMARY KEY (account=? AND key=?)",
        "SEARCH past_submissions USING COVERING INDEX past_submissions_by_end (until<?)",
    ] {
        assert!(steps.iter().any(|found| found == step), "{steps:?}");
    }
}

#[test]
fn a_group_that_fails_neither_keeps_a_name_nor_erases_it() {
    run(async {
        // The number of commits until one fails.
        let fails_in = Arc::new(AtomicUsize::new(0));
        let left = fails_in.clone();
        let fails = move |left: usize| left.checked_sub(1);
        let queue = Scratch::on_commit(move || left.fetch_update(SeqCst, SeqCst, fails) == Ok(1));
        queue.submit(T0, job(1), named("k", 7)).await.unwrap();
        queue.cancel(T0, Owner::Anyone, id(1)).await.unwrap();
        let kept = || kept(&queue, &job(1).account);
        let (job, free) = (kept(), IdempotencyKey::kept_until(T0));
        for (now, was, is) in [(T0 + RESULT_RETENTION, job, KEY_COST), (free, KEY_COST, 0)] {
            // The first finds what is overdue, the second erases.
            fails_in.store(2, SeqCst);
            queue.reap(now).await.unwrap_err();
            assert_eq!((kept(), fails_in.load(SeqCst)), (was, 0));
            queue.reap(now).await.unwrap();
            assert_eq!(kept(), is);
        }
    });
}
