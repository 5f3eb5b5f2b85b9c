//! The one-line result: numbers of jobs, faults and hostile inputs, and what was lost, doubled or
//! leaked, counted in this run.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{collections::BTreeMap, fmt, io, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    auditor::{Verdict, judge},
    cluster::Cluster,
    crowd::Crowd,
    hostile::{Assault, by_hand, by_the_document, operations, paths_beyond_use},
    kills::{Plan, Report},
    leaks,
    test_bed::{TestBed, create_key},
};

/// The results so far.
#[derive(Debug, Default)]
pub struct Headline {
    /// The results of the jobs.
    pub verdict: Verdict,
    /// The injected faults, with their numbers.
    pub faults: BTreeMap<&'static str, usize>,
    /// The results of the hostile requests.
    pub assault: Assault,
    /// Secrets found where they must not be.
    pub leaked: Vec<String>,
}

impl Headline {
    /// Whether nothing was lost, doubled, leaked or broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.leaked.is_empty() && self.assault.broken.is_empty()
    }

    /// Adds the report of a plan.
    pub fn add(&mut self, report: Report) {
        self.leaked
            .extend(leaks::find(&report.said, &report.secrets));
        self.verdict.add(report.verdict);
        for (fault, count) in report.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: usize = self.faults.values().sum();
        let doubled = self.verdict.doubled.len() + self.verdict.mixed.len();
        write!(
            f,
            "{} jobs, {faults} faults of {} kinds, {} bad inputs: lost {}, doubled {doubled}, \
             leaked {}",
            self.verdict.asked,
            self.faults.len(),
            self.assault.requests,
            self.verdict.lost.len(),
            self.leaked.len()
        )?;
        for leak in self.leaked.iter().take(5) {
            write!(f, "\n  leaked: {leak}")?;
        }
        Ok(())
    }
}

/// Runs a relay that keeps fetched answers for one second, and searches its files for the questions
/// afterwards.
///
/// # Errors
/// If the files cannot be read.
pub async fn erasure(seed: u64) -> io::Result<Headline> {
    let mut cluster = Cluster::with(&["--keep-fetched", "1"], 1, 4).await;
    cluster.start_agent(0).await;
    cluster.until_ready(0).await;
    let mut load = Plan::kills(0, seed).load;
    load.canary = format!("erased{seed:x}");
    let keys = cluster.keys.clone();
    let patience = Duration::from_secs(60);
    let mut crowd = Crowd::new(cluster.bed.address, keys, load.clone(), patience);
    crowd.ask(100).await;
    crowd.all_ended().await;
    let until = Instant::now() + ERASED_WITHIN;
    let home = cluster.bed.home.path().to_owned();
    let mut leaked = leaks::files_with(&home, &load.canary)?;
    while !leaked.is_empty() && Instant::now() < until {
        sleep(Duration::from_secs(1)).await;
        leaked = leaks::files_with(&home, &load.canary)?;
    }
    let secrets: Vec<String> = cluster.secrets().collect();
    for secret in &secrets {
        leaked.extend(leaks::files_with(&home, secret)?);
    }
    let canaries: Vec<String> = secrets.into_iter().chain([load.canary]).collect();
    leaked.extend(leaks::find(&cluster.said().await, &canaries));
    Ok(Headline {
        verdict: judge(&crowd.notes()),
        leaked,
        ..Headline::default()
    })
}

/// The write-ahead log is truncated at most once a minute, and fetched answers are erased as often.
const ERASED_WITHIN: Duration = Duration::from_secs(180);

/// Options of keys with limits, with more rights, or with an expiry.
const ODD_KEYS: [&[&str]; 4] = [
    &[
        "--scope",
        "enqueue",
        "--model",
        "other*",
        "--max-priority",
        "9",
    ],
    &["--scope", "work", "--serve", "all"],
    &[
        "--scope",
        "enqueue",
        "--scope",
        "read",
        "--account",
        "another",
    ],
    &["--scope", "admin", "--expires", "1s"],
];

/// Sends hostile requests: `count` handwritten ones, and `examples` per operation and kind of key
/// by schemathesis, which is not needed for none.
///
/// # Errors
/// If schemathesis is not installed as pinned, or the relay does not serve its OpenAPI document.
pub async fn hostile(count: usize, examples: u32, seed: u64) -> io::Result<Headline> {
    let open = ["--failures-per-minute", "0", "--metrics", "127.0.0.1:0"];
    let (bed, ollama) = TestBed::scripted_with(&open, 4).await;
    let mut keys = Vec::new();
    for scope in ["enqueue", "read", "work", "admin"] {
        keys.push(create_key(&bed.home, &["--name", scope, "--scope", scope]).await);
    }
    let operations = operations(&bed.http, bed.address).await?;
    let mut shown = keys.clone();
    for (n, odd) in ODD_KEYS.iter().enumerate() {
        let name = format!("odd-{n}");
        let args = [&["--name", &name][..], odd].concat();
        shown.push(create_key(&bed.home, &args).await);
    }
    let mut assault = by_hand(bed.address, &shown, &operations, count, seed).await;
    let patience = Duration::from_secs(3_600);
    let kinds = keys.iter().map(|key| Some(key.as_str())).chain([None]);
    for key in kinds.filter(|_| examples > 0) {
        let more = by_the_document(bed.address, key, examples, seed, patience).await?;
        assault.add(more);
    }
    let secrets: Vec<String> = shown
        .iter()
        .map(|key| key.split('_').nth(2).unwrap().to_owned())
        .collect();
    let relay = bed
        .relay
        .as_ref()
        .map(|relay| relay.log())
        .unwrap_or_default();
    let beyond = paths_beyond_use(&ollama).into_iter();
    assault
        .broken
        .extend(beyond.map(|path| format!("the engine was asked for {path}")));
    assault.said.extend([relay, bed.metrics().await]);
    let leaked = leaks::find(&assault.said, &secrets);
    assault.said.clear();
    Ok(Headline {
        assault,
        leaked,
        ..Headline::default()
    })
}
