//! Q2 and Q3: whole life cycles of durable jobs in the queue alone, with each step on disk before
//! it is confirmed, compared with straightforward `SQLite`, and with Redis and PostgreSQL where
//! installed.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::{End, Timestamp, WorkerId};
use queue::{LeaseQuery, ModelPatterns, Models, Queue, Serve};
use queue_sqlite::SqliteQueue;
use tokio::task::JoinSet;

use crate::{
    commit::job,
    peers::{Postgres, Redis},
    stats::{Figure, Goal, Sample},
};

/// Duration of a contestant's turn.
pub(crate) const SLICE: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 4;
const CALLERS: usize = 64;
/// Number of callers for the timing of claims.
const CLAIMERS: usize = 16;
const LEASE: Duration = Duration::from_secs(60);

/// Measures all contestants that are installed.
///
/// # Errors
/// If a store cannot be written, or an installed contestant does not start.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let ours = Ours::open(&folder.path().join("queue.db"))?;
    let naive = Naive::make(&folder.path().join("naive.db"))?;
    let redis = Redis::start().await?;
    let postgres = Postgres::start().await?;
    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        rates[0].push(ours.slice(CALLERS).await?.0);
        let naive = naive.clone();
        rates[1].push(tokio::task::spawn_blocking(move || naive.slice()).await??);
        if let Some(redis) = &redis {
            rates[2].push(redis.slice(CALLERS).await?);
        }
        if let Some(postgres) = &postgres {
            rates[3].push(postgres.slice(CALLERS).await?);
        }
    }
    let (_, claims) = ours.slice(CLAIMERS).await?;
    ours.queue.close().await?;
    if let Some(redis) = redis {
        redis.end().await;
    }
    if let Some(postgres) = postgres {
        postgres.end().await?;
    }
    let claims: Sample = claims.into_iter().collect();
    let mut figures = vec![Figure {
        name: format!("Q3 claim p99 in ms, c{CLAIMERS}"),
        value: claims.percentile(0.99),
        goal: Goal::AtMost(10.0),
        detail: format!("p50 {:.2} ms", claims.median()),
    }];
    let own: Sample = rates[0].iter().copied().collect();
    let peers = [
        ("naive SQLite", 20.0),
        ("Redis, AOF always", 2.0),
        ("PostgreSQL, SKIP LOCKED", 5.0),
    ];
    for ((name, goal), theirs) in peers.into_iter().zip(&rates[1..]) {
        if theirs.is_empty() {
            continue;
        }
        let ratios = rates[0].iter().zip(theirs).map(|(own, their)| own / their);
        let their: Sample = theirs.iter().copied().collect();
        figures.push(Figure {
            name: format!("Q2 durable cycles / {name}, c{CALLERS}"),
            value: ratios.collect::<Sample>().median(),
            goal: Goal::AtLeast(goal),
            detail: format!("{:.0}/s against {:.0}/s", own.median(), their.median()),
        });
    }
    Ok(figures)
}

struct Ours {
    queue: Arc<SqliteQueue>,
    next: Arc<AtomicU64>,
}

impl Ours {
    fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            queue: Arc::new(SqliteQueue::open(path, Timestamp(0))?),
            next: Arc::default(),
        })
    }

    /// Cycles per second, and the duration of each claim. A caller may lease another caller's job.
    async fn slice(&self, callers: usize) -> anyhow::Result<(f64, Vec<Duration>)> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for n in 0..callers {
            let (queue, next) = (Arc::clone(&self.queue), Arc::clone(&self.next));
            let query = query(n)?;
            tasks.spawn(async move {
                let mut claims = Vec::new();
                while begun.elapsed() < SLICE {
                    claims.push(cycle(&queue, &next, &query).await?);
                }
                anyhow::Ok(claims)
            });
        }
        let mut claims = Vec::new();
        while let Some(done) = tasks.join_next().await {
            claims.extend(done??);
        }
        Ok((per_second(claims.len(), begun), claims))
    }
}

async fn cycle(
    queue: &SqliteQueue,
    next: &AtomicU64,
    query: &LeaseQuery,
) -> anyhow::Result<Duration> {
    let now = Timestamp(0);
    let new = job(next.fetch_add(1, Ordering::Relaxed));
    queue.enqueue(now, new).await?;
    let asked = Instant::now();
    let lent = queue.lease_many(now, query, LEASE, 1).await?;
    let claimed = asked.elapsed();
    let lease = lent.first().context("as many jobs wait as callers claim")?;
    let line = Bytes::from_static(br#"{"done":true}"#);
    queue.append(now, lease.token, 1, vec![line]).await?;
    queue.complete(now, lease.token, 1, End::Completed).await?;
    Ok(claimed)
}

fn query(n: usize) -> anyhow::Result<LeaseQuery> {
    Ok(LeaseQuery {
        worker: WorkerId::new(format!("worker-{n}"))?,
        serve: Serve::All,
        models: Models::Any,
        allowed_models: ModelPatterns::default(),
        excluded_models: BTreeSet::new(),
        accepts_model_changes: false,
        request_max: usize::MAX,
    })
}

pub(crate) fn per_second(count: usize, begun: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let count = count as f64;
    count / begun.elapsed().as_secs_f64()
}

/// One connection and transaction per caller and step, serialized by the file lock.
#[derive(Debug, Clone)]
struct Naive {
    connections: Arc<Vec<Mutex<rusqlite::Connection>>>,
}

impl Naive {
    fn make(path: &Path) -> anyhow::Result<Self> {
        let tables = "
            CREATE TABLE IF NOT EXISTS jobs (
                seq INTEGER PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL, line BLOB);
            CREATE INDEX IF NOT EXISTS waiting ON jobs (state, seq);";
        Ok(Self {
            connections: Arc::new(connections(path, CALLERS, tables)?),
        })
    }

    fn slice(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let count = AtomicUsize::new(0);
        let work = |conn: &Mutex<rusqlite::Connection>| -> rusqlite::Result<()> {
            let conn = conn.lock();
            while begun.elapsed() < SLICE {
                conn.prepare_cached("INSERT INTO jobs (state, body) VALUES (0, ?1)")?
                    .execute([&[b'x'; 200][..]])?;
                let claim = "UPDATE jobs SET state = 1 WHERE seq =
                    (SELECT seq FROM jobs WHERE state = 0 ORDER BY seq LIMIT 1) RETURNING seq";
                let seq: i64 = conn
                    .prepare_cached(claim)?
                    .query_row([], |row| row.get(0))?;
                let end = "UPDATE jobs SET state = 2, line = ?2 WHERE seq = ?1";
                conn.prepare_cached(end)?
                    .execute((seq, &br#"{"done":true}"#[..]))?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .connections
                .iter()
                .map(|conn| scope.spawn(|| work(conn)))
                .collect();
            for thread in threads {
                thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a caller broke"))??;
            }
            anyhow::Ok(())
        })?;
        Ok(per_second(count.into_inner(), begun))
    }
}

/// Opens so many connections to one file with these tables. The file lock serializes them, and each
/// commit is synced.
pub(crate) fn connections(
    path: &Path,
    count: usize,
    tables: &str,
) -> rusqlite::Result<Vec<Mutex<rusqlite::Connection>>> {
    let connect = |_| {
        let conn = rusqlite::Connection::open(path)?;
        conn.busy_timeout(Duration::from_secs(60))?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        conn.execute_batch(tables)?;
        Ok(Mutex::new(conn))
    };
    (0..count).map(connect).collect()
}
