//! F1: the start time of a relay's store with a long queue, after a kill and after a stop.

use std::{path::Path, sync::Arc, time::Instant};

use proto::{JobId, Timestamp};
use queue::{NewJob, Queue as _};
use queue_sqlite::SqliteQueue;
use tokio::task::JoinSet;

use crate::{
    commit::job,
    stats::{Figure, Goal},
};

const JOBS: u64 = 85_000;
const CALLERS: u64 = 512;
/// Typical size in bytes of a question with a little history.
const BODY: usize = 1_000;

/// Measures the start after a kill and after a stop.
///
/// # Errors
/// If the store cannot be written.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("queue.db");
    let queue = Arc::new(SqliteQueue::open(&path, Timestamp(0))?);
    let mut tasks = JoinSet::new();
    for caller in 0..CALLERS {
        let queue = Arc::clone(&queue);
        tasks.spawn(async move {
            for n in (caller..JOBS).step_by(usize::try_from(CALLERS).unwrap_or(1)) {
                let new = NewJob {
                    id: JobId(u128::from(n).to_be_bytes()),
                    body: vec![b'x'; BODY].into(),
                    ..job(n)
                };
                queue.enqueue(Timestamp(0), new).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let killed = tempfile::tempdir()?;
    for name in ["queue.db", "queue.db-wal"] {
        std::fs::copy(folder.path().join(name), killed.path().join(name))?;
    }
    queue.close().await?;
    drop(queue);
    let mut figures = Vec::new();
    for (how, path) in [("a kill", killed.path().join("queue.db")), ("a stop", path)] {
        figures.push(start(how, &path).await?);
    }
    Ok(figures)
}

async fn start(how: &str, path: &Path) -> anyhow::Result<Figure> {
    let begun = Instant::now();
    let queue = SqliteQueue::open(path, Timestamp(1))?;
    let took = begun.elapsed();
    let waiting = queue.counts().queued;
    queue.close().await?;
    let bytes = path.metadata()?.len();
    Ok(Figure {
        name: format!("F1 start after {how}, s"),
        value: took.as_secs_f64(),
        goal: Goal::AtMost(2.0),
        detail: format!("{waiting} jobs wait, {} MB", bytes / 1_000_000),
    })
}
