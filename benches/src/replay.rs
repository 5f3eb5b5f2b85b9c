//! W4: an assistant with four overlays, which poll it twenty times a second each, or are pushed to.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use hearth_tests::test_bed::client;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    contestants::Contestant,
    fanout::Running,
    proc::Usage,
    stats::{Figure, Goal, Sample},
};

const OVERLAYS: u32 = 4;
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Interval of status changes: an assistant in conversation listens, thinks, speaks.
const CHANGE_EVERY: Duration = Duration::from_secs(1);
/// Number of changes per slice, and number of slices. Each of the four sides goes first once in a
/// slice: whoever is first after a second of rest finds the processor's caches cold.
const CHANGES: u32 = 4;
const ROUNDS: u32 = 5;
/// Time until everything is loaded and every overlay is connected.
const SETTLED: Duration = Duration::from_secs(2);

/// Lets all contestants serve the same conversation at the same time.
///
/// # Errors
/// If the hub does not start, or a status does not arrive.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut hub = start(Contestant::Hub).await?.context("the hub")?;
    let mut floor = start(Contestant::Floor).await?.context("the floor")?;
    let mut push = start(Contestant::Python).await?;
    let mut page = start(Contestant::FastApi).await?;
    let polling = page.as_ref().map(|page| poll(page.addr));
    sleep(SETTLED).await;
    let [mut own, mut least, mut pushed, mut polled] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let begun = [
            used(Some(&hub))?,
            used(Some(&floor))?,
            used(push.as_ref())?,
            used(page.as_ref())?,
        ];
        for change in 0..CHANGES {
            sleep(CHANGE_EVERY).await;
            let mut sides = [
                Some(&mut hub),
                Some(&mut floor),
                push.as_mut(),
                page.as_mut(),
            ];
            sides.rotate_left(change as usize);
            for side in sides.into_iter().flatten() {
                side.publish(1).await?;
            }
        }
        let ended = [
            used(Some(&hub))?,
            used(Some(&floor))?,
            used(push.as_ref())?,
            used(page.as_ref())?,
        ];
        let mut percent = begun.iter().zip(ended).map(|(begun, ended)| {
            let cpu = ended.since(*begun).cpu.as_secs_f64();
            100.0 * cpu / (CHANGE_EVERY * CHANGES).as_secs_f64()
        });
        own.extend(percent.next());
        least.extend(percent.next());
        pushed.extend(percent.next());
        polled.extend(percent.next());
    }
    drop(polling);
    let figure = |name: &str, over: &[f64], under: &[f64], goal| Figure {
        name: format!("W4 {OVERLAYS} overlays, server's CPU: {name}"),
        value: over
            .iter()
            .zip(under)
            .map(|(over, under)| over / under)
            .collect::<Sample>()
            .median(),
        goal,
        detail: format!(
            "{:.3} % against {:.3} % of a core",
            middle(over),
            middle(under)
        ),
    };
    let mut figures = vec![figure("hub / floor", &own, &least, Goal::None)];
    if page.is_some() {
        let goal = Goal::AtLeast(400.0);
        figures.push(figure("polled / hub", &polled, &own, goal));
        figures.push(figure("polled / floor", &polled, &least, Goal::None));
    }
    if push.is_some() {
        let goal = Goal::AtMost(0.3);
        figures.push(figure("hub / python", &own, &pushed, goal));
    }
    Ok(figures)
}

async fn start(who: Contestant) -> anyhow::Result<Option<Running>> {
    let overlays = if who == Contestant::FastApi {
        0
    } else {
        OVERLAYS
    };
    let running = Running::start(who, overlays).await?;
    if running.is_none() {
        writeln!(std::io::stderr(), "W4: {who:?} is not here")?;
    }
    Ok(running)
}

/// Overlays that poll the status, each over a persistent connection.
fn poll(addr: SocketAddr) -> JoinSet<()> {
    let mut polling = JoinSet::new();
    for _ in 0..OVERLAYS {
        polling.spawn(async move {
            let client = client();
            let mut turns = interval(POLL_EVERY);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                // The server may not be listening yet.
                if let Ok(page) = client.get(format!("http://{addr}/api/status")).send().await {
                    let _ = page.bytes().await;
                }
            }
        });
    }
    polling
}

fn used(side: Option<&Running>) -> anyhow::Result<Usage> {
    Ok(match side {
        Some(side) => Usage::of(side.process.id())?,
        None => Usage::default(),
    })
}

fn middle(values: &[f64]) -> f64 {
    values.iter().copied().collect::<Sample>().median()
}
