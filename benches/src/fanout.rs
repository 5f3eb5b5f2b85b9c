//! W1, W2: the cost of sending one status to each overlay, compared with servers that do nothing
//! else.

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

/// The contestants, in turn.
const ALL: [Contestant; 5] = [
    Contestant::Hub,
    Contestant::Floor,
    Contestant::Stock,
    Contestant::Python,
    Contestant::Node,
];
/// Number of bursts (in W1, of one status each) that all overlays together receive in a slice, their
/// minimum number in a slice, and number of slices per contestant.
const TAKEN: u32 = 16_000;
const PUBLISHED: u32 = 32;
const ROUNDS: u32 = 6;
/// Number of statuses published at once in W2.
const BURST: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// A running contestant with its overlays.
pub(crate) struct Running {
    pub(crate) process: Child,
    pub(crate) addr: SocketAddr,
    orders: Option<ChildStdin>,
    _out: BufReader<ChildStdout>,
    overlays: u32,
    /// The number of each status that an overlay received.
    taken: mpsc::Receiver<u32>,
    _looking: JoinSet<()>,
    published: u32,
}

impl Running {
    /// Starts a contestant; `None` if it is not installed.
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

    /// Publishes `count` statuses at once, and waits until every overlay has received the last.
    /// Returns how many statuses all overlays received together: a hub that sends only the latest
    /// skips some.
    pub(crate) async fn publish(&mut self, count: u32) -> anyhow::Result<u32> {
        let orders = self.orders.as_mut().context("it ended")?;
        writeln!(orders, "{count}")?;
        self.published += count;
        let (mut missing, mut delivered) = (self.overlays, 0);
        while missing > 0 {
            let taken = timeout(PATIENCE, self.taken.recv()).await?;
            missing -= u32::from(taken.context("an overlay")? == self.published);
            delivered += 1;
        }
        Ok(delivered)
    }

    /// Runs one slice.
    async fn slice(&mut self, burst: u32) -> anyhow::Result<Slice> {
        // As many bursts as there are single statuses in W1: a hub that sends one status of each
        // would otherwise be measured for so short a time that its cold caches decide.
        let bursts = (TAKEN / self.overlays).max(PUBLISHED);
        let statuses = bursts * burst;
        let before = Usage::of(self.process.id())?;
        let mut delivered = 0;
        for _ in 0..bursts {
            delivered += self.publish(burst).await?;
        }
        let used = Usage::of(self.process.id())?.since(before);
        let micros = used.cpu.as_secs_f64() * 1e6;
        Ok(Slice {
            published: micros / f64::from(statuses * self.overlays),
            delivered: micros / f64::from(delivered),
        })
    }
}

/// The cost of one slice, in microseconds of CPU time.
struct Slice {
    /// Per published status and overlay.
    published: f64,
    /// Per status that an overlay actually received.
    delivered: f64,
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

/// W1 with 100 and 1,000 overlays, W2 with bursts of eight: the cost per delivered and per
/// published status. The hub sends only the last status of a burst. No contestant is paced.
///
/// # Errors
/// If one of Hearth's contestants does not start, or a status does not arrive.
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
    let goal = |who, per| match (who, burst, per) {
        (Contestant::Floor, 1, Per::Delivered) => Goal::AtMost(1.10),
        (Contestant::Stock, 1, Per::Delivered) => Goal::AtMost(0.50),
        (Contestant::Python, 1, Per::Delivered) => Goal::AtMost(0.55),
        // Sending only the latest status of a burst is the purpose of the hub, so this goal is
        // higher.
        (Contestant::Python, BURST, Per::Published) => Goal::AtMost(1.0 / 15.0),
        _ => Goal::None,
    };
    let against = |who: Contestant, per: Per| {
        let other = slices(who)?;
        // Slices of one round are adjacent in time, so the machine's load was the same.
        let pairs = hub.iter().zip(other);
        let ratios = pairs.map(|(own, other)| per.of(own) / per.of(other));
        let middle = |slices: &[Slice]| {
            let each = slices.iter().map(|slice| per.of(slice));
            each.collect::<Sample>().median()
        };
        let (who_is, per_what) = (format!("{who:?}").to_lowercase(), per.what());
        Some(Figure {
            name: format!("{name}: hub / {who_is}, per status {per_what}"),
            value: ratios.collect::<Sample>().median(),
            goal: goal(who, per),
            detail: format!(
                "{:.2} against {:.2} us of CPU each",
                middle(hub),
                middle(other)
            ),
        })
    };
    let others = ALL.into_iter().filter(|who| *who != Contestant::Hub);
    let both = others.flat_map(|who| [(who, Per::Delivered), (who, Per::Published)]);
    // Without bursts, every published status is delivered.
    let both = both.filter(|(_, per)| burst > 1 || matches!(per, Per::Delivered));
    Ok(both.filter_map(|(who, per)| against(who, per)).collect())
}

/// The divisor of a cost.
#[derive(Debug, Clone, Copy)]
enum Per {
    Published,
    Delivered,
}

impl Per {
    const fn of(self, slice: &Slice) -> f64 {
        match self {
            Self::Published => slice.published,
            Self::Delivered => slice.delivered,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Delivered => "delivered",
        }
    }
}
