//! Q1, Q3 and Q4: durable enqueues, compared with the disk's own group commit and with one commit
//! each.

use std::{
    fs::File,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as blocking,
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{Account, Body, Dialect, JobId, ModelName, Op, Priority, Timestamp};
use queue::{NewJob, Owner, Queue};
use queue_sqlite::SqliteQueue;
use tokio::{sync::oneshot, task::JoinSet};

use crate::stats::{Figure, Goal, Sample};

/// Duration of a slice. Slices this short see the same disk: other load affects both contestants or
/// none.
pub(crate) const SLICE: Duration = Duration::from_millis(300);
const ROUNDS: u32 = 10;
/// Size of one queued job in the log, with rows and indexes; 1,065 bytes were measured.
const RECORD: usize = 1024;

/// The results of one slice.
pub(crate) struct Slice {
    pub(crate) per_second: f64,
    latencies: Vec<Duration>,
}

/// Measures with 64 and with 16 callers.
///
/// # Errors
/// If the store or the floor's file cannot be written.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (callers, goal) in [(64, 0.80), (16, 0.65)] {
        let folder = tempfile::tempdir()?;
        let floor = Floor::appending(&folder.path().join("floor"))?;
        let rows = Floor::inserting(&folder.path().join("rows.db"))?;
        let queue = Arc::new(SqliteQueue::open(
            &folder.path().join("queue.db"),
            Timestamp(0),
        )?);
        let next = Arc::new(AtomicU64::new(0));
        let (mut ratios, mut latencies, mut floors, mut queues) = (vec![], vec![], vec![], vec![]);
        let (mut row_ratios, mut inserts) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            let low = floor.slice(callers).await?;
            let row = rows.slice(callers).await?;
            let high = {
                let (queue, next) = (Arc::clone(&queue), Arc::clone(&next));
                let enqueue = move || {
                    let queue = Arc::clone(&queue);
                    let job = job(next.fetch_add(1, Ordering::Relaxed));
                    async move { Ok(queue.enqueue(Timestamp(0), job).await?) }
                };
                slice(callers, SLICE, enqueue).await?
            };
            // Drains the queue, so that the limit on queued jobs is not measured.
            drain(&queue).await?;
            ratios.push(high.per_second / low.per_second);
            row_ratios.push(high.per_second / row.per_second);
            inserts.push(row.per_second);
            floors.push(low.per_second);
            queues.push(high.per_second);
            latencies.extend(high.latencies);
        }
        queue.close().await?;
        let (floors, queues): (Sample, Sample) =
            (floors.into_iter().collect(), queues.into_iter().collect());
        let latency: Sample = latencies.into_iter().collect();
        figures.push(Figure {
            name: format!("Q1 durable enqueue / group-commit floor, c{callers}"),
            value: ratios.into_iter().collect::<Sample>().median(),
            goal: Goal::AtLeast(goal),
            detail: format!("{:.0}/s against {:.0}/s", queues.median(), floors.median()),
        });
        figures.push(Figure {
            name: format!("Q1 the same / a bare row of SQLite for each, c{callers}"),
            value: row_ratios.into_iter().collect::<Sample>().median(),
            goal: Goal::None,
            detail: format!(
                "{:.0}/s against {:.0}/s",
                queues.median(),
                inserts.into_iter().collect::<Sample>().median()
            ),
        });
        if callers == 64 {
            let alone = one_by_one(&folder.path().join("alone"), callers)?;
            figures.push(Figure {
                name: "Q4 contended enqueue p50 / a commit for each, c64".to_owned(),
                value: latency.median() / alone.median(),
                goal: Goal::AtMost(0.3),
                detail: format!(
                    "p50 {:.2} ms against {:.2} ms",
                    latency.median(),
                    alone.median()
                ),
            });
            figures.push(Figure {
                name: "Q3 enqueue p99 / p50, c64".to_owned(),
                value: latency.percentile(0.99) / latency.median(),
                goal: Goal::AtMost(15.0),
                detail: format!(
                    "p50 {:.2} ms, p99 {:.2} ms",
                    latency.median(),
                    latency.percentile(0.99)
                ),
            });
        }
    }
    Ok(figures)
}

pub(crate) async fn slice<F>(
    callers: usize,
    length: Duration,
    act: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<Slice>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let act = act.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < length {
                let asked = Instant::now();
                act().await?;
                latencies.push(asked.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let per_second = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Slice {
        per_second,
        latencies,
    })
}

pub(crate) fn job(number: u64) -> NewJob {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    NewJob {
        id: JobId(id),
        // Many accounts, so that the limit per account is not measured; the jobs of one account are
        // consecutive, as in practice.
        account: Account::new(format!("a{}", number / 64 % 1000))
            .unwrap_or_else(|_| unreachable!()),
        who: "bench".to_owned(),
        op: Op::Chat,
        model: ModelName::new("m").unwrap_or_else(|_| unreachable!()),
        priority: Priority::default(),
        body: Body::from(vec![b'x'; 200]),
        dialect: Dialect::Native,
        deadline: None,
        attended: false,
        worker: None,
    }
}

async fn drain(queue: &Arc<SqliteQueue>) -> anyhow::Result<()> {
    let waiting: Vec<_> = queue
        .list(Owner::Anyone, usize::MAX)
        .await?
        .into_iter()
        .filter(|job| !job.state.is_final())
        .map(|job| job.new.id)
        .collect();
    let mut tasks = JoinSet::new();
    for some in waiting.chunks(waiting.len().div_ceil(64).max(1)) {
        let (queue, some) = (Arc::clone(queue), some.to_vec());
        tasks.spawn(async move {
            for id in some {
                queue.cancel(Timestamp(0), Owner::Anyone, id).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Callers that each append and sync for themselves, in turn.
fn one_by_one(path: &std::path::Path, callers: usize) -> anyhow::Result<Sample> {
    let file = Mutex::new(File::create(path)?);
    let begun = Instant::now();
    let append = || -> std::io::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while begun.elapsed() < 3 * SLICE {
            let asked = Instant::now();
            let mut file = file.lock();
            file.write_all(&[b'x'; RECORD])?;
            file.sync_data()?;
            drop(file);
            latencies.push(asked.elapsed());
        }
        Ok(latencies)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(append)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let latencies = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a caller broke"))?;
            all.extend(latencies?);
        }
        Ok(all.into_iter().collect())
    })
}

/// One thread that writes all pending records and syncs once: the limit of the disk.
#[derive(Debug, Clone)]
struct Floor(blocking::SyncSender<oneshot::Sender<()>>);

impl Floor {
    /// Appends to a file.
    fn appending(path: &std::path::Path) -> anyhow::Result<Self> {
        let mut file = File::create(path)?;
        Self::start(move |count| {
            file.write_all(&vec![b'x'; RECORD * count])?;
            Ok(file.sync_data()?)
        })
    }

    /// Inserts rows of the same size into a table without an index, with the same durability.
    fn inserting(path: &std::path::Path) -> anyhow::Result<Self> {
        let mut conn = rusqlite::Connection::open(path)?;
        conn.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 4000;
             CREATE TABLE rows (seq INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;",
        )?;
        let record = [b'x'; RECORD];
        Self::start(move |count| {
            let group = conn.transaction()?;
            let mut insert = group.prepare_cached("INSERT INTO rows (record) VALUES (?1)")?;
            for _ in 0..count {
                insert.execute([&record[..]])?;
            }
            drop(insert);
            Ok(group.commit()?)
        })
    }

    /// A thread that writes the given number of records, and syncs.
    fn start(
        mut write: impl FnMut(usize) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, receiver) = blocking::sync_channel::<oneshot::Sender<()>>(1024);
        std::thread::Builder::new()
            .name("floor".to_owned())
            .spawn(move || {
                while let Ok(first) = receiver.recv() {
                    let mut group = vec![first];
                    group.extend(receiver.try_iter());
                    if write(group.len()).is_err() {
                        return;
                    }
                    for caller in group {
                        let _ = caller.send(());
                    }
                }
            })?;
        Ok(Self(sender))
    }

    async fn slice(&self, callers: usize) -> anyhow::Result<Slice> {
        let floor = self.clone();
        let commit = move || {
            let floor = floor.clone();
            async move { floor.commit().await }
        };
        slice(callers, SLICE, commit).await
    }

    async fn commit(&self) -> anyhow::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.0.try_send(sender)?;
        Ok(receiver.await?)
    }
}
