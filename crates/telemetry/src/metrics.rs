//! The relay's metrics: their names, their labels, and the text for a scraper.
//!
//! Events are counted when they happen; gauges are read at scrape time. Every label value comes
//! from a fixed list, except model names, of which only the first [`MODELS_MAX`] are distinguished.

use std::{collections::HashMap, fmt, time::Duration};

use parking_lot::RwLock;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use proto::{Dialect, ErrorCode, JobState};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Maximum number of distinct model labels; all further models share the label `other`.
pub const MODELS_MAX: usize = 50;
const OTHER: &str = "other";
/// Maximum length of a model name as a label, in bytes.
const MODEL_NAME_MAX: usize = 128;

/// From a millisecond to ten minutes, because a model may have to be loaded first.
const WAITS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
];
/// From a commit on a fast disk to one on a failing disk.
const COMMITS: [f64; 11] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0,
];
const GROUPS: [f64; 9] = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0];

type Label = [(&'static str, &'static str); 1];
type ModelLabels = [(&'static str, String); 2];

/// The gauges, read at scrape time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Number of queued jobs per priority; the first entry counts jobs that need no slot.
    pub queued: [usize; LEVELS],
    /// Request bytes of the queued jobs.
    pub queued_bytes: usize,
    /// Number of leased jobs.
    pub leased: usize,
    /// Number of failed jobs that are kept.
    pub dead: usize,
    /// Number of workers on a WebSocket.
    pub workers_by_socket: usize,
    /// Number of Hearth's own workers that poll.
    pub workers_by_long_poll: usize,
    /// Number of workers of older systems.
    pub workers_by_legacy: usize,
}

/// Ten priorities, and the level of jobs that need no slot.
pub const LEVELS: usize = 11;

/// Counters and gauges of one relay.
pub struct RelayMetrics {
    registry: Registry,
    queued: HashMap<Dialect, Counter>,
    leases: Counter,
    ended: [Counter; 3],
    refused: HashMap<ErrorCode, Counter>,
    tokens: Family<ModelLabels, Counter>,
    models: RwLock<HashMap<String, Tokens>>,
    queue_wait: Histogram,
    first_token: Histogram,
    commit: Histogram,
    group: Histogram,
    connections: Gauge,
    now: Gauges,
}

impl fmt::Debug for RelayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayMetrics")
    }
}

#[derive(Debug, Clone)]
struct Tokens {
    prompt: Counter,
    answer: Counter,
}

#[derive(Debug)]
struct Gauges {
    queued: [Gauge; LEVELS],
    queued_bytes: Gauge,
    leased: Gauge,
    dead: Gauge,
    by_socket: Gauge,
    by_long_poll: Gauge,
    by_legacy: Gauge,
}

const DIALECTS: [(Dialect, &str); 6] = [
    (Dialect::Native, "native"),
    (Dialect::Ollama, "ollama"),
    (Dialect::OpenAi, "openai"),
    (Dialect::Anthropic, "anthropic"),
    (Dialect::RelayPolling, "relay_polling"),
    (Dialect::Queries, "queries"),
];
const PRIORITIES: [&str; LEVELS] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];

impl Default for RelayMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl RelayMetrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("hearth");
        let all = &mut registry;
        let queued = counters(all, "jobs_queued", "Jobs accepted");
        let queued = DIALECTS
            .map(|(dialect, name)| (dialect, one(&queued, "dialect", name)))
            .into();
        let leases = Counter::default();
        all.register("leases", "Leases granted", leases.clone());
        let ended = counters(all, "jobs_ended", "Jobs that ended");
        let ended = ["completed", "failed", "cancelled"].map(|state| one(&ended, "state", state));
        let refused = counters(all, "refused", "Requests refused");
        let refused = ErrorCode::ALL
            .iter()
            .map(|code| (*code, one(&refused, "code", code.as_str())))
            .collect();
        let tokens = Family::default();
        all.register(
            "tokens",
            "Prompt and answer tokens, as counted by the engines",
            tokens.clone(),
        );
        let mut histogram = |name: &str, help: &str, buckets: &[f64]| {
            let histogram = Histogram::new(buckets.iter().copied());
            all.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        let queue_wait = histogram("queue_wait", "Time from acceptance to first lease", &WAITS);
        let first_token = histogram(
            "first_token",
            "Time from acceptance to the first answer line",
            &WAITS,
        );
        let commit = histogram("commit", "Duration of a commit to disk", &COMMITS);
        let group = Histogram::new(GROUPS);
        all.register("commit_decisions", "Decisions per commit", group.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            all.register(name, help, gauge.clone());
            gauge
        };
        let connections = gauge("connections", "Open connections");
        let queued_bytes = gauge("queue_bytes", "Request bytes of queued jobs");
        let leased = gauge("leased_jobs", "Leased jobs");
        let dead = gauge("dead_jobs", "Failed jobs that were not retried");
        let waiting: Family<Label, Gauge> = Family::default();
        all.register("queue_jobs", "Queued jobs, by priority", waiting.clone());
        let workers: Family<Label, Gauge> = Family::default();
        all.register("workers", "Workers online, by carrier", workers.clone());
        let by = |carrier| workers.get_or_create_owned(&[("carrier", carrier)]);
        let now = Gauges {
            queued: PRIORITIES.map(|level| waiting.get_or_create_owned(&[("priority", level)])),
            queued_bytes,
            leased,
            dead,
            by_socket: by("websocket"),
            by_long_poll: by("long_poll"),
            by_legacy: by("legacy"),
        };
        Self {
            registry,
            queued,
            leases,
            ended,
            refused,
            tokens,
            models: RwLock::default(),
            queue_wait,
            first_token,
            commit,
            group,
            connections,
            now,
        }
    }

    /// Counts an accepted job.
    pub fn queued(&self, dialect: Dialect) {
        if let Some(counter) = self.queued.get(&dialect) {
            counter.inc();
        }
    }

    /// Counts a lease; `waited` is the time since acceptance, on the job's first lease.
    pub fn leased(&self, waited: Option<Duration>) {
        self.leases.inc();
        if let Some(waited) = waited {
            self.queue_wait.observe(waited.as_secs_f64());
        }
    }

    /// Records the time from acceptance to the first line of an answer.
    pub fn first_line(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    /// Counts an ended job.
    pub fn ended(&self, state: JobState) {
        let [completed, failed, cancelled] = &self.ended;
        match state {
            JobState::Completed => completed,
            JobState::Failed => failed,
            JobState::Cancelled => cancelled,
            JobState::Queued | JobState::Leased => return,
        }
        .inc();
    }

    /// Counts a refused request.
    pub fn refused(&self, code: ErrorCode) {
        if let Some(counter) = self.refused.get(&code) {
            counter.inc();
        }
    }

    /// Counts the tokens of one job, as reported by the engine.
    pub fn tokens(&self, model: &str, prompt: u64, answer: u64) {
        let counters = self.of_model(model);
        counters.prompt.inc_by(prompt);
        counters.answer.inc_by(answer);
    }

    /// Records a commit: its duration on disk and its number of decisions.
    pub fn committed(&self, took: Duration, decisions: usize) {
        self.commit.observe(took.as_secs_f64());
        let decisions = u32::try_from(decisions).unwrap_or(u32::MAX);
        self.group.observe(decisions.into());
    }

    /// Counts a connection until the returned value is dropped.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }

    /// The text for a scraper, in the format of [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self, now: &Now) -> String {
        let set = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let gauges = &self.now;
        for (gauge, queued) in gauges.queued.iter().zip(now.queued) {
            set(gauge, queued);
        }
        set(&gauges.queued_bytes, now.queued_bytes);
        set(&gauges.leased, now.leased);
        set(&gauges.dead, now.dead);
        set(&gauges.by_socket, now.workers_by_socket);
        set(&gauges.by_long_poll, now.workers_by_long_poll);
        set(&gauges.by_legacy, now.workers_by_legacy);
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn of_model(&self, model: &str) -> Tokens {
        {
            let models = self.models.read();
            let known = models
                .get(model)
                .or_else(|| (models.len() >= MODELS_MAX).then(|| models.get(OTHER))?);
            if let Some(known) = known {
                return known.clone();
            }
        }
        let mut models = self.models.write();
        // One of the labels is `other`.
        let is_told_apart = models.len() + 1 < MODELS_MAX && model.len() <= MODEL_NAME_MAX;
        let name = if is_told_apart { model } else { OTHER };
        let label = |kind: &str| {
            let labels = [("model", name.to_owned()), ("kind", kind.to_owned())];
            self.tokens.get_or_create_owned(&labels)
        };
        let counters = || Tokens {
            prompt: label("prompt"),
            answer: label("answer"),
        };
        models
            .entry(name.to_owned())
            .or_insert_with(counters)
            .clone()
    }
}

/// An open connection, see [`RelayMetrics::connected`].
#[derive(Debug)]
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Family<Label, Counter> {
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn one(family: &Family<Label, Counter>, label: &'static str, value: &'static str) -> Counter {
    family.get_or_create_owned(&[(label, value)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_models_make_no_more_series_than_fifty() {
        let metrics = RelayMetrics::new();
        let before = series(&metrics);
        for n in 0..10_000 {
            metrics.tokens(&format!("model-{n}"), 1, 2);
        }
        metrics.tokens(&"long".repeat(100), 1, 2);
        assert_eq!(series(&metrics) - before, MODELS_MAX * 2);
        let text = metrics.render(&Now::default());
        let others = 10_000 - (MODELS_MAX - 1) + 1;
        let line = format!(r#"hearth_tokens_total{{model="other",kind="prompt"}} {others}"#);
        assert!(text.contains(&line), "{text}");
    }

    fn series(metrics: &RelayMetrics) -> usize {
        let text = metrics.render(&Now::default());
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn what_happened_and_what_is_stand_in_the_text() {
        let metrics = RelayMetrics::new();
        metrics.queued(Dialect::Ollama);
        metrics.leased(Some(Duration::from_millis(30)));
        metrics.leased(None);
        metrics.first_line(Duration::from_millis(300));
        metrics.ended(JobState::Completed);
        metrics.ended(JobState::Leased);
        metrics.refused(ErrorCode::QueueFull);
        metrics.committed(Duration::from_millis(2), 7);
        let connected = (metrics.connected(), metrics.connected());
        drop(connected.0);
        let mut now = Now {
            leased: 3,
            workers_by_long_poll: 2,
            workers_by_legacy: 1,
            ..Now::default()
        };
        now.queued[1] = 5;
        let text = metrics.render(&now);
        for line in [
            r#"hearth_jobs_queued_total{dialect="ollama"} 1"#,
            "hearth_leases_total 2",
            "hearth_queue_wait_seconds_count 1",
            r#"hearth_queue_wait_seconds_bucket{le="0.05"} 1"#,
            r#"hearth_queue_wait_seconds_bucket{le="0.025"} 0"#,
            "hearth_first_token_seconds_count 1",
            r#"hearth_jobs_ended_total{state="completed"} 1"#,
            r#"hearth_jobs_ended_total{state="failed"} 0"#,
            r#"hearth_refused_total{code="queue_full"} 1"#,
            "hearth_commit_seconds_count 1",
            r#"hearth_commit_decisions_bucket{le="8.0"} 1"#,
            "hearth_connections 1",
            r#"hearth_queue_jobs{priority="1"} 5"#,
            "hearth_leased_jobs 3",
            r#"hearth_workers{carrier="long_poll"} 2"#,
            r#"hearth_workers{carrier="legacy"} 1"#,
            r#"hearth_workers{carrier="websocket"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
