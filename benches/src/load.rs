//! D7 and D10: whole life cycles of durable jobs per second over HTTP, and under five times that
//! load.

mod clients;
mod phase;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hearth_tests::{process::Process, test_bed::TestBed};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use self::{
    clients::{Clients, REQUESTERS, WORKERS, submit},
    phase::{Recovery, Window, acknowledged, per_second, rate},
};
use crate::{
    proc::Usage,
    stats::{Figure, Goal, Sample},
};

/// Length of the phases without an overload, one before it and one after the recovery from it: the
/// machine itself is not equally fast all the time.
const QUIET: Duration = Duration::from_secs(10);
const OVERLOAD: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(10);
/// Interval between batches of overload requests.
const TICK: Duration = Duration::from_millis(10);
/// Maximum number of unanswered overload requests; further ones are not sent.
const UNANSWERED_MAX: usize = 1_000;
/// Timeout of the last of them.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// The results of an overload.
struct Overload {
    sent: usize,
    /// Number of requests that were not sent, because too many were unanswered.
    held_back: usize,
    ended: usize,
    /// The relay's maximum memory in KiB.
    largest: u64,
    /// Time until the last of its requests was answered.
    drained: Duration,
}

/// Measures both on one relay.
///
/// # Errors
/// If the relay does not answer.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    // One client stands for many.
    let options = ["--keep-fetched", "1"];
    let bed = TestBed::relay_with(&options, "ollama").await;
    let pid = bed
        .relay
        .as_ref()
        .and_then(Process::id)
        .context("the relay runs")?;
    let clients = Clients::start(bed)?;
    let counts = &clients.counts;
    let quiet = clients.steady(QUIET).await;
    let before = rate(&quiet);
    let (refused, _) = counts.refusals();
    anyhow::ensure!(refused == 0, "{refused} were refused without an overload");

    let over = overload(&clients, 5.0 * before, pid).await?;
    let goodput = per_second(over.ended, OVERLOAD);
    let (refused, rude) = counts.refusals();
    let loaded: Sample = counts.acknowledged().await.into_iter().collect();
    anyhow::ensure!(!loaded.is_empty(), "nothing was accepted in the overload");
    let (recovering, later) = (clients.steady(RECOVERY).await, clients.steady(QUIET).await);
    clients.end().await?;
    let after = rate(&later);
    let usual: Vec<Window> = quiet.into_iter().chain(later).collect();
    let (peak, quiet) = (rate(&usual), acknowledged(&usual));
    let p99 = quiet.percentile(0.99);
    let recovery = Recovery::of(&recovering, before.min(after), p99);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
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
            (over.drained + recovery.after).as_secs_f64(),
            Goal::AtMost(5.0),
            format!(
                "{recovery}; its last requests were answered {:.2} s after it",
                over.drained.as_secs_f64()
            ),
        ),
        figure(
            "D10 lives a second after it / before it",
            after / before,
            Goal::AtLeast(0.8),
            format!("{after:.0}/s against {before:.0}/s"),
        ),
    ])
}

/// Sends requests at this rate, regardless of the answers.
async fn overload(clients: &Clients, per_second: f64, pid: u32) -> anyhow::Result<Overload> {
    let Clients { bed, counts, .. } = clients;
    let begun = Instant::now();
    let before = counts.ended();
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
    let ended = counts.ended() - before;
    // Slow and unanswered requests count as well.
    let last = Instant::now();
    let answered = async { while asking.join_next().await.is_some() {} };
    let is_answered = timeout(ANSWERED_WITHIN, answered).await.is_ok();
    let unanswered = if is_answered { 0 } else { asking.len() };
    counts.unanswered(unanswered);
    Ok(Overload {
        sent,
        held_back,
        ended,
        largest,
        drained: last.elapsed(),
    })
}
