//! The clients of a loaded relay: requesters that submit jobs, and workers that end them at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hearth_tests::test_bed::TestBed;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{Mutex, Notify},
    task::JoinSet,
    time::sleep,
};

use super::phase::Window;

/// Number of clients that submit a job, wait for the acknowledgement, and repeat.
pub(super) const REQUESTERS: usize = 64;
/// Number of unfinished jobs at which clients stop submitting: enough for every worker, and half of
/// the limit per account, so that nothing is refused.
const UNDER_WAY_MAX: usize = 512;
/// Number of workers, and of slots per worker.
pub(super) const WORKERS: usize = 8;
const SLOTS: u32 = 16;
/// Length of the windows of a phase.
const WINDOW: Duration = Duration::from_millis(500);

/// The counters of clients and workers.
#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: AtomicUsize,
    ended: AtomicUsize,
    /// Signals the end of a job.
    fewer: Notify,
    refused: AtomicUsize,
    /// Number of requests refused without a 429 or 503 with `retry-after`, or not answered.
    rude: AtomicUsize,
    acknowledged: Mutex<Vec<Duration>>,
    over: AtomicBool,
}

impl Counts {
    /// Waits until another job would not be refused.
    async fn room(&self) {
        loop {
            let ended = self.ended.load(Ordering::SeqCst);
            if self.accepted.load(Ordering::SeqCst) < ended + UNDER_WAY_MAX {
                return;
            }
            self.fewer.notified().await;
        }
    }

    /// The times until an acknowledgement since this was last asked.
    pub(super) async fn acknowledged(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.acknowledged.lock().await)
    }

    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Number of refused requests, and of those refused without saying when to retry.
    pub(super) fn refusals(&self) -> (usize, usize) {
        let (refused, rude) = (&self.refused, &self.rude);
        (
            refused.load(Ordering::Relaxed),
            rude.load(Ordering::Relaxed),
        )
    }

    /// Counts requests that were not answered.
    pub(super) fn unanswered(&self, count: usize) {
        self.refused.fetch_add(count, Ordering::Relaxed);
        self.rude.fetch_add(count, Ordering::Relaxed);
    }
}

/// A separate runtime for some tasks.
struct Apart(Option<Runtime>);

impl Apart {
    fn start() -> anyhow::Result<Self> {
        let mut threads = runtime::Builder::new_multi_thread();
        Ok(Self(Some(threads.worker_threads(2).enable_all().build()?)))
    }

    fn handle(&self) -> &Handle {
        self.0
            .as_ref()
            .map_or_else(|| unreachable!(), Runtime::handle)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

/// A relay with workers.
pub(super) struct Clients {
    pub(super) bed: Arc<TestBed>,
    pub(super) counts: Arc<Counts>,
    workers: JoinSet<anyhow::Result<()>>,
    _apart: Apart,
}

impl Clients {
    /// Starts the workers, on threads and connections of their own: they stand for other machines,
    /// and must not wait behind this program's requests.
    pub(super) fn start(bed: TestBed) -> anyhow::Result<Self> {
        let (bed, counts) = (Arc::new(bed), Arc::new(Counts::default()));
        let apart = Apart::start()?;
        let mut workers = JoinSet::new();
        for n in 0..WORKERS {
            let working = work(Arc::clone(&bed), Arc::clone(&counts), n);
            workers.spawn_on(working, apart.handle());
        }
        Ok(Self {
            bed,
            counts,
            workers,
            _apart: apart,
        })
    }

    /// Lets the requesters submit for so long, not more than can be accepted.
    pub(super) async fn steady(&self, length: Duration) -> Vec<Window> {
        let begun = Instant::now();
        let mut requesters = JoinSet::new();
        for _ in 0..REQUESTERS {
            let (bed, counts) = (Arc::clone(&self.bed), Arc::clone(&self.counts));
            requesters.spawn(async move {
                while begun.elapsed() < length {
                    counts.room().await;
                    submit(&bed, &counts).await;
                }
            });
        }
        let mut windows = Vec::new();
        while begun.elapsed() < length {
            windows.push(window(&self.counts).await);
        }
        requesters.join_all().await;
        self.counts.acknowledged().await;
        windows
    }

    /// Ends the workers.
    ///
    /// # Errors
    /// If one of them got no answer.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.counts.over.store(true, Ordering::Relaxed);
        while let Some(worked) = self.workers.join_next().await {
            worked??;
        }
        Ok(())
    }
}

async fn window(counts: &Counts) -> Window {
    let begun = Instant::now();
    let (ended, (refused, _)) = (counts.ended(), counts.refusals());
    counts.acknowledged().await;
    sleep(WINDOW).await;
    Window {
        acknowledged: counts.acknowledged().await,
        ended: counts.ended() - ended,
        refused: counts.refusals().0 - refused,
        length: begun.elapsed(),
    }
}

/// Submits one job, and counts what becomes of it.
pub(super) async fn submit(bed: &TestBed, counts: &Counts) {
    let message = json!({ "role": "user", "content": "x" });
    let body = json!({ "model": "tiny", "messages": [message] });
    let job = json!({ "op": "chat", "body": body, "deadline_ms": 60_000 });
    let asked = Instant::now();
    let answer = bed.post("/api/jobs", &job).send().await;
    let taken = asked.elapsed();
    match answer {
        Ok(answer) if answer.status().is_success() => {
            counts.accepted.fetch_add(1, Ordering::SeqCst);
            counts.acknowledged.lock().await.push(taken);
        }
        Ok(answer) => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            let is_busy = [429, 503].contains(&answer.status().as_u16());
            if !is_busy || !answer.headers().contains_key("retry-after") {
                counts.rude.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(_) => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            counts.rude.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Leases jobs by long polls, and ends each with one line.
async fn work(bed: Arc<TestBed>, counts: Arc<Counts>, n: usize) -> anyhow::Result<()> {
    let tag = json!({ "name": "tiny", "model": "tiny", "size": 1 });
    let report = json!({ "engine": "ollama", "engine_version": "0.33.0", "engine_up": true,
        "models": [{ "name": "tiny", "loaded": true, "tag": tag }] });
    let poll = json!({ "worker": format!("worker-{n}"), "version": "0", "report": report,
        "free": SLOTS, "held": [], "wait_ms": 1_000 });
    while !counts.over.load(Ordering::Relaxed) {
        let polled = post(&bed, "/api/worker/v1/poll", poll.to_string()).await?;
        if polled.status() != StatusCode::OK {
            // No job within the poll, or the poll must be repeated.
            continue;
        }
        let polled: Value = polled.json().await?;
        let mut jobs = JoinSet::new();
        for lease in polled["leases"].as_array().into_iter().flatten() {
            let token = &lease["token"];
            let job = token["job"].as_str().unwrap_or_default();
            let path = format!("/api/worker/v1/jobs/{job}/{}", token["attempt"]);
            let (bed, counts) = (Arc::clone(&bed), Arc::clone(&counts));
            jobs.spawn(async move {
                const LINE: &str = concat!(
                    r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","#,
                    r#""message":{"role":"assistant","content":"y"},"done":true}"#,
                    "\n"
                );
                post(&bed, &format!("{path}/lines?first=1"), LINE.into()).await?;
                let end = json!({ "lines": 1, "end": { "state": "completed" } });
                let ended = post(&bed, &format!("{path}/end"), end.to_string()).await?;
                let ended = usize::from(ended.status().is_success());
                counts.ended.fetch_add(ended, Ordering::SeqCst);
                counts.fewer.notify_one();
                anyhow::Ok(())
            });
        }
        jobs.join_all().await;
    }
    Ok(())
}

async fn post(bed: &TestBed, path: &str, body: String) -> anyhow::Result<reqwest::Response> {
    let request = bed.http.post(bed.url(path)).bearer_auth(&bed.worker);
    Ok(request.body(body).send().await?)
}
