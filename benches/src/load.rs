//! D7 and D10: whole life cycles of durable jobs per second over HTTP, and under five times that
//! load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hearth_tests::{process::Process, test_bed::TestBed};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{Mutex, Notify},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    proc::Usage,
    stats::{Figure, Goal, Sample},
};

const QUIET: Duration = Duration::from_secs(10);
const OVERLOAD: Duration = Duration::from_secs(20);
/// Window in which recovery from the overload is measured, and maximum time for it.
const WINDOW: Duration = Duration::from_millis(500);
const RECOVERY: Duration = Duration::from_secs(30);
/// Number of clients that submit a job, wait for the acknowledgement, and repeat.
const REQUESTERS: usize = 64;
/// Number of unfinished jobs at which clients stop submitting: enough for every worker, and half of
/// the limit per account, so that nothing is refused.
const UNDER_WAY_MAX: usize = 512;
/// Number of workers, and of slots per worker.
const WORKERS: usize = 8;
const SLOTS: u32 = 16;
/// Interval between batches of overload requests.
const TICK: Duration = Duration::from_millis(10);
/// Maximum number of unanswered overload requests; further ones are not sent.
const UNANSWERED_MAX: usize = 1_000;
/// Timeout of the last of them.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// The counters of clients and workers.
#[derive(Debug, Default)]
struct Counts {
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

    async fn taken(&self) -> Sample {
        let taken = std::mem::take(&mut *self.acknowledged.lock().await);
        taken.into_iter().collect()
    }

    fn refusals(&self) -> (usize, usize) {
        let (refused, rude) = (&self.refused, &self.rude);
        (
            refused.load(Ordering::Relaxed),
            rude.load(Ordering::Relaxed),
        )
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

/// The results of an overload.
struct Overload {
    sent: usize,
    /// Number of requests that were not sent, because too many were unanswered.
    held_back: usize,
    ended: usize,
    /// The relay's maximum memory in KiB.
    largest: u64,
}

/// Measures both on one relay.
///
/// # Errors
/// If the relay does not answer.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    // One client stands for many.
    let options = ["--keep-fetched", "1"];
    let bed = Arc::new(TestBed::relay_with(&options, "ollama").await);
    let pid = bed
        .relay
        .as_ref()
        .and_then(Process::id)
        .context("the relay runs")?;
    let counts = Arc::new(Counts::default());
    let mut workers = JoinSet::new();
    // On threads and connections of their own: they stand for other machines, and must not wait
    // behind this program's overload requests.
    let apart = Apart::start()?;
    for n in 0..WORKERS {
        let working = work(Arc::clone(&bed), Arc::clone(&counts), n);
        workers.spawn_on(working, apart.handle());
    }
    let begun = Instant::now();
    let mut requesters = JoinSet::new();
    for _ in 0..REQUESTERS {
        let (bed, counts) = (Arc::clone(&bed), Arc::clone(&counts));
        requesters.spawn(async move {
            while begun.elapsed() < QUIET {
                counts.room().await;
                submit(&bed, &counts).await;
            }
        });
    }
    requesters.join_all().await;
    #[expect(clippy::cast_precision_loss, reason = "some thousands a second")]
    let per_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    let peak = per_second(counts.ended.load(Ordering::SeqCst), begun.elapsed());
    let quiet = counts.taken().await;
    let p99 = quiet.percentile(0.99);
    let (refused, _) = counts.refusals();
    anyhow::ensure!(refused == 0, "{refused} were refused without an overload");

    let over = overload(&bed, &counts, 5.0 * peak, pid).await?;
    let goodput = per_second(over.ended, OVERLOAD);
    let (refused, rude) = counts.refusals();
    let loaded = counts.taken().await;
    anyhow::ensure!(!loaded.is_empty(), "nothing was accepted in the overload");
    let again = until_normal(&bed, &counts, peak, p99).await;
    counts.over.store(true, Ordering::Relaxed);
    while let Some(worked) = workers.join_next().await {
        worked??;
    }
    let rudely = rude as f64 / refused.max(1) as f64;
    let figure = |name: &str, value, goal, detail| Figure {
        name: name.to_owned(),
        value,
        goal,
        detail,
    };
    Ok(vec![
        figure(
            "D7 durable job lives a second through HTTP",
            peak,
            Goal::AtLeast(2_000.0),
            format!("{REQUESTERS} requesters, {WORKERS} workers, none refused"),
        ),
        figure(
            "D7 acknowledgement after the fsync, p99 in ms",
            p99,
            Goal::AtMost(50.0),
            format!("p50 {:.1} ms", quiet.median()),
        ),
        figure(
            "D10 lives a second in an overload / peak",
            goodput / peak,
            Goal::AtLeast(0.9),
            format!(
                "{goodput:.0}/s against {peak:.0}/s; of {} due at 5 x the peak {} were sent, while \
                 {UNANSWERED_MAX} waited for their answer at most, and {refused} refused",
                over.sent + over.held_back,
                over.sent
            ),
        ),
        figure(
            "D10 p99 of what is accepted / without overload",
            loaded.percentile(0.99) / p99,
            Goal::AtMost(3.0),
            format!("{:.1} ms against {p99:.1} ms", loaded.percentile(0.99)),
        ),
        figure(
            "D10 refusals without 429 or 503 and when to come",
            rudely,
            Goal::AtMost(0.0),
            format!("{rude} of {refused}"),
        ),
        figure(
            "D10 memory of the relay in MB",
            over.largest as f64 / 1024.0,
            Goal::AtMost(256.0),
            "resident, its largest".to_owned(),
        ),
        figure(
            "D10 seconds until all is as before",
            again.as_secs_f64(),
            Goal::AtMost(5.0),
            "0.9 of the peak accepted and ended, none refused, p99 at most doubled".to_owned(),
        ),
    ])
}

/// Sends requests at this rate, regardless of the answers.
async fn overload(
    bed: &Arc<TestBed>,
    counts: &Arc<Counts>,
    per_second: f64,
    pid: u32,
) -> anyhow::Result<Overload> {
    let begun = Instant::now();
    let before = counts.ended.load(Ordering::SeqCst);
    let (mut sent, mut held_back, mut largest) = (0, 0, 0);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asking = JoinSet::new();
    while begun.elapsed() < OVERLOAD {
        tick.tick().await;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "some hundred thousand"
        )]
        let due = (begun.elapsed().as_secs_f64() * per_second) as usize;
        while sent + held_back < due {
            if asking.len() < UNANSWERED_MAX {
                let (bed, counts) = (Arc::clone(bed), Arc::clone(counts));
                asking.spawn(async move { submit(&bed, &counts).await });
                sent += 1;
            } else {
                held_back += 1;
            }
        }
        while asking.try_join_next().is_some() {}
        largest = largest.max(Usage::of(pid)?.rss);
    }
    let ended = counts.ended.load(Ordering::SeqCst) - before;
    // Slow and unanswered requests count as well.
    let answered = async { while asking.join_next().await.is_some() {} };
    let is_answered = timeout(ANSWERED_WITHIN, answered).await.is_ok();
    let unanswered = if is_answered { 0 } else { asking.len() };
    counts.refused.fetch_add(unanswered, Ordering::Relaxed);
    counts.rude.fetch_add(unanswered, Ordering::Relaxed);
    Ok(Overload {
        sent,
        held_back,
        ended,
        largest,
    })
}

/// Time after an overload until as many new jobs are accepted as before, as quickly, as many end,
/// and none is refused.
async fn until_normal(bed: &Arc<TestBed>, counts: &Arc<Counts>, peak: f64, p99: f64) -> Duration {
    let mut requesters = JoinSet::new();
    for _ in 0..REQUESTERS {
        let (bed, counts) = (Arc::clone(bed), Arc::clone(counts));
        requesters.spawn(async move {
            loop {
                counts.room().await;
                submit(&bed, &counts).await;
            }
        });
    }
    let begun = Instant::now();
    loop {
        let from = begun.elapsed();
        let ended = counts.ended.load(Ordering::SeqCst);
        let refused = counts.refusals();
        counts.taken().await;
        sleep(WINDOW).await;
        let taken = counts.taken().await;
        let ended = counts.ended.load(Ordering::SeqCst) - ended;
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let is_normal = taken.len().min(ended) as f64 >= 0.9 * peak * WINDOW.as_secs_f64()
            && counts.refusals() == refused
            && taken.percentile(0.99) <= 2.0 * p99;
        if is_normal || from > RECOVERY {
            return from;
        }
    }
}

async fn submit(bed: &TestBed, counts: &Counts) {
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
