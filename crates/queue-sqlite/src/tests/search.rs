//! Searches in a large file.

use proto::JobState;
use queue::{
    JobFilter, LOOKED_AT_MAX, Owner, Queue as _, Submissions as _,
    conformance::sample::{T0, id, job, leased},
};

use super::{Scratch, run};

#[test]
fn unfinished_jobs_are_found_at_once_behind_any_number_that_ended_since() {
    run(async {
        let queue = Scratch::new();
        leased(&*queue, T0, 1).await;
        queue.enqueue(T0, job(2)).await.unwrap();
        queue.enqueue(T0, job(3)).await.unwrap();
        queue.cancel(T0, Owner::Anyone, id(3)).await.unwrap();
        queue
            .on_writer(|conn| {
                let copy = "CREATE TEMP TABLE ended AS SELECT * FROM jobs WHERE seq = 3";
                conn.execute_batch(copy).unwrap();
                for _ in 0..LOOKED_AT_MAX {
                    let next = "UPDATE ended SET seq = seq + 1, id = randomblob(16)";
                    conn.prepare_cached(next).unwrap().execute([]).unwrap();
                    let add = "INSERT INTO jobs SELECT * FROM ended";
                    conn.prepare_cached(add).unwrap().execute([]).unwrap();
                }
            })
            .await;
        let found = async |state| {
            let filter = JobFilter {
                state: Some(state),
                limit: 50,
                ..JobFilter::default()
            };
            let page = queue.search(Owner::Anyone, &filter).await.unwrap();
            let ids: Vec<_> = page.jobs.iter().map(|job| job.new.id).collect();
            (ids, page.next.is_some())
        };
        assert_eq!(found(JobState::Queued).await, (vec![id(2)], false));
        assert_eq!(found(JobState::Leased).await, (vec![id(1)], false));
        let (ended, has_more) = found(JobState::Cancelled).await;
        assert_eq!((ended.len(), has_more), (50, true));
    });
}
