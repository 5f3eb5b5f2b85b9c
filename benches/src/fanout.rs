//! W1, W2: what one status costs on its way to each overlay, beside those who do nothing else.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_tungstenite::client_async;

use crate::{
    contestants::{Contestant, MARK},
    proc::Usage,
    stats::{Figure, Goal, Sample},
};

/// Who takes turns here.
const ALL: [Contestant; 5] = [
    Contestant::Hub,
    Contestant::Floor,
    Contestant::Stock,
    Contestant::Python,
    Contestant::Node,
];
/// Statuses that are taken in one slice, by all overlays together, but no fewer than so many are
/// published; and the slices of each contestant, who take turns.
const TAKEN: u32 = 16_000;
const PUBLISHED: u32 = 32;
const ROUNDS: u32 = 6;
/// Statuses that are published at once in W2.
const BURST: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// A contestant at work, and the overlays that look at it.
pub(crate) struct Running {
    pub(crate) process: Child,
    pub(crate) addr: SocketAddr,
    orders: Option<ChildStdin>,
    _out: BufReader<ChildStdout>,
    overlays: u32,
    /// The number of each status that an overlay took.
    taken: mpsc::Receiver<u32>,
    _looking: JoinSet<()>,
    published: u32,
}

impl Running {
    /// `None` if what it needs is not there.
    pub(crate) async fn start(who: Contestant, overlays: u32) -> anyhow::Result<Option<Self>> {
        let mut command = who.command()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if who.is_foreign() {
            command.stderr(Stdio::null());
        }
        let Ok(mut process) = command.spawn() else {
            anyhow::ensure!(who.is_foreign(), "{who:?} does not start");
            return Ok(None);
        };
        let mut out = BufReader::new(process.stdout.take().context("a pipe")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let Ok(addr) = line.trim().parse::<SocketAddr>() else {
            let _ = process.wait();
            anyhow::ensure!(who.is_foreign(), "{who:?} says no address");
            return Ok(None);
        };
        let orders = process.stdin.take();
        let (sender, taken) = mpsc::channel(4_096);
        let mut looking = JoinSet::new();
        for _ in 0..overlays {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let (mut socket, _) = client_async(format!("ws://{addr}/"), stream).await?;
            socket.next().await.context("a first status")??;
            let sender = sender.clone();
            looking.spawn(async move {
                while let Some(Ok(message)) = socket.next().await {
                    let number = message.to_text().ok().and_then(number);
                    if let Some(number) = number
                        && sender.send(number).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
        Ok(Some(Self {
            process,
            addr,
            orders,
            _out: out,
            overlays,
            taken,
            _looking: looking,
            published: 0,
        }))
    }

    /// Has so many published at once, and waits until every overlay took the last of them.
    pub(crate) async fn publish(&mut self, count: u32) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("it ended")?;
        writeln!(orders, "{count}")?;
        self.published += count;
        let mut missing = self.overlays;
        while missing > 0 {
            let taken = timeout(PATIENCE, self.taken.recv()).await?;
            missing -= u32::from(taken.context("an overlay")? == self.published);
        }
        Ok(())
    }

    /// Microseconds of CPU for each status and overlay in one slice.
    async fn slice(&mut self, burst: u32) -> anyhow::Result<f64> {
        let statuses = (TAKEN / self.overlays).max(PUBLISHED);
        let before = Usage::of(self.process.id())?;
        for _ in 0..statuses / burst {
            self.publish(burst).await?;
        }
        let used = Usage::of(self.process.id())?.since(before);
        Ok(used.cpu.as_secs_f64() * 1e6 / f64::from(statuses * self.overlays))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn number(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once(MARK)?;
    rest.get(..8)?.parse().ok()
}

/// W1 with 100 and 1,000 overlays, W2 with bursts of eight.
///
/// # Errors
/// If one of ours does not start, or a status does not arrive.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, overlays, burst) in [
        ("W1 a status to 100 overlays", 100, 1),
        ("W1 a status to 1,000 overlays", 1_000, 1),
        ("W2 bursts of 8 to 100 overlays", 100, BURST),
    ] {
        figures.extend(compare(name, overlays, burst).await?);
    }
    Ok(figures)
}

async fn compare(name: &str, overlays: u32, burst: u32) -> anyhow::Result<Vec<Figure>> {
    let mut running = Vec::new();
    for who in ALL {
        match Running::start(who, overlays).await? {
            Some(contestant) => running.push((who, contestant, Vec::new())),
            None => writeln!(std::io::stderr(), "{name}: {who:?} is not here")?,
        }
    }
    for _ in 0..ROUNDS {
        for (_, contestant, slices) in &mut running {
            slices.push(contestant.slice(burst).await?);
        }
    }
    let slices = |who| {
        running
            .iter()
            .find(|(it, ..)| *it == who)
            .map(|(.., slices)| slices)
    };
    let hub = slices(Contestant::Hub).context("the hub ran")?;
    let goal = |who| match (who, burst) {
        (Contestant::Floor, 1) => Goal::AtMost(1.10),
        (Contestant::Floor, _) => Goal::AtMost(0.45),
        (Contestant::Stock, 1) => Goal::AtMost(0.50),
        (Contestant::Python, 1) => Goal::AtMost(0.55),
        (Contestant::Python, _) => Goal::AtMost(1.0 / 15.0),
        _ => Goal::None,
    };
    let against = |who: Contestant| {
        let other = slices(who)?;
        // Slices of one round lie beside each other: the machine was the same.
        let ratios = hub.iter().zip(other).map(|(own, other)| own / other);
        let middle = |values: &[f64]| values.iter().copied().collect::<Sample>().median();
        Some(Figure {
            name: format!("{name}: hub / {}", format!("{who:?}").to_lowercase()),
            value: ratios.collect::<Sample>().median(),
            goal: goal(who),
            detail: format!(
                "{:.2} against {:.2} us of CPU each",
                middle(hub),
                middle(other)
            ),
        })
    };
    let others = ALL.into_iter().filter(|who| *who != Contestant::Hub);
    Ok(others.filter_map(against).collect())
}
