//! W1, W2: what one status costs on its way to each overlay, beside those who do nothing else.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc as threads,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use proto::status::{ServerMessage, Status};
use status::{Limits, LocalToken, StatusHub, StatusServer, bind_loopback};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    accept_async, client_async,
    tungstenite::{Message, handshake::derive_accept_key},
};
use tokio_util::sync::CancellationToken;

use crate::{
    proc::Usage,
    stats::{Figure, Goal, Sample},
};

/// Statuses that are taken in one slice, by all overlays together, but no fewer than so many are
/// published; and the slices of each contestant, who take turns.
const TAKEN: u32 = 16_000;
const PUBLISHED: u32 = 32;
const ROUNDS: u32 = 6;
/// Statuses that are published at once in W2.
const BURST: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(30);
/// Stands before the number of a status in its text.
const MARK: char = '#';

/// Who sends. Each is a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Contestant {
    /// Hearth's hub.
    Hub,
    /// One thread, one `write` for each status and overlay: nobody can do with less.
    Floor,
    /// The library as its own examples use it: a task and a queue for each overlay.
    Stock,
    /// Python's `websockets`, if it is there.
    Python,
    /// Node's `ws`, if it is there.
    Node,
}

/// Publishes as many statuses as each line of standard input says, and ends with it.
///
/// # Errors
/// If no port can be had.
pub(crate) async fn child(who: Contestant) -> anyhow::Result<()> {
    match who {
        Contestant::Hub => hub().await,
        Contestant::Floor => floor(),
        Contestant::Stock => stock().await,
        Contestant::Python | Contestant::Node => Ok(()),
    }
}

fn say(addr: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{addr}")?;
    out.flush()
}

/// The numbers of standard input, from a thread of their own.
fn orders() -> anyhow::Result<mpsc::Receiver<u32>> {
    let (sender, orders) = mpsc::channel(4);
    std::thread::Builder::new().spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let sent = line.trim().parse().map(|count| sender.blocking_send(count));
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    })?;
    Ok(orders)
}

fn status(number: u32) -> Status {
    Status {
        text: format!("Working for somebody {MARK}{number:08}"),
        seq: number.into(),
        ..Status::default()
    }
}

fn json(number: u32) -> String {
    let data = status(number);
    serde_json::to_string(&ServerMessage::Status { data }).unwrap_or_default()
}

async fn hub() -> anyhow::Result<()> {
    let bound = bind_loopback(&[0]).await?;
    let (commands, _kept) = mpsc::channel(1);
    let limits = Limits {
        pace: Duration::ZERO,
        ..Limits::default()
    };
    let hub = StatusHub::default();
    let token = LocalToken::new([7; 32]);
    let server = StatusServer::new(hub.clone(), token, commands).limit(limits);
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(server.serve(bound.listener, stop.clone()));
    say(bound.addr)?;
    let (mut orders, mut number) = (orders()?, 0);
    while let Some(count) = orders.recv().await {
        for _ in 0..count {
            number += 1;
            hub.update(|now| *now = status(number));
        }
    }
    stop.cancel();
    while serving.join_next().await.is_some() {}
    Ok(())
}

fn floor() -> anyhow::Result<()> {
    let listener = StdListener::bind("127.0.0.1:0")?;
    say(listener.local_addr()?)?;
    let (sender, accepted) = threads::sync_channel(2_048);
    std::thread::Builder::new().spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // It is counted in before its first status tells it so.
            let met = shake(&stream)
                .and_then(|()| Ok(stream.try_clone()?))
                .and_then(|own| Ok(sender.send(own)?));
            let first = frame(&json(0));
            if met.and_then(|()| Ok((&stream).write_all(&first)?)).is_err() {
                return;
            }
        }
    })?;
    let (mut overlays, mut number) = (Vec::new(), 0);
    for line in std::io::stdin().lines() {
        overlays.extend(accepted.try_iter());
        for _ in 0..line?.trim().parse()? {
            number += 1;
            let frame = frame(&json(number));
            for overlay in &mut overlays {
                overlay.write_all(&frame)?;
            }
        }
    }
    Ok(())
}

fn shake(mut stream: &StdStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.context("a key")?.1.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Ok(stream.write_all(answer.as_bytes())?)
}

fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![0x81, 126];
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

async fn stock() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?)?;
    let (sender, _) = broadcast::channel::<String>(1_024);
    let (mut orders, mut number, mut serving) = (orders()?, 0, JoinSet::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, mut statuses) = (accepted?.0, sender.subscribe());
                stream.set_nodelay(true)?;
                serving.spawn(async move {
                    let mut socket = accept_async(stream).await?;
                    socket.send(Message::text(json(0))).await?;
                    while let Ok(text) = statuses.recv().await {
                        socket.send(Message::text(text)).await?;
                    }
                    anyhow::Ok(())
                });
            }
            order = orders.recv() => {
                let Some(count) = order else { return Ok(()) };
                for _ in 0..count {
                    number += 1;
                    let _ = sender.send(json(number));
                }
            }
        }
    }
}

const PYTHON: &str = r##"
import asyncio, json, sys, websockets
status = {"type": "status", "data": {"status": "starting", "text": "", "is_listening": False, "is_speaking": False,
  "wake_word_detected": False, "overlay_visible": True, "monitoring": True, "jobs": [],
  "relay": {"state": "unknown", "name": ""}, "engine": {"state": "unknown", "name": ""}, "carrier": None, "seq": 0}}
def text(n):
    status["data"].update(text="Working for somebody #%08d" % n, seq=n)
    return json.dumps(status)
async def main():
    overlays = set()
    async def meet(socket, *_):
        overlays.add(socket)
        await socket.send(text(0))
        await socket.wait_closed()
    async with websockets.serve(meet, "127.0.0.1", 0, compression=None) as server:
        print("%s:%d" % server.sockets[0].getsockname()[:2], flush=True)
        n, lines = 0, asyncio.get_running_loop()
        while line := await lines.run_in_executor(None, sys.stdin.readline):
            for _ in range(int(line)):
                n += 1
                websockets.broadcast(overlays, text(n))
asyncio.run(main())
"##;

const NODE: &str = r##"
const { WebSocketServer } = require("ws");
const status = { type: "status", data: { status: "starting", text: "", is_listening: false, is_speaking: false,
  wake_word_detected: false, overlay_visible: true, monitoring: true, jobs: [],
  relay: { state: "unknown", name: "" }, engine: { state: "unknown", name: "" }, carrier: null, seq: 0 } };
const text = (n) => {
  Object.assign(status.data, { text: "Working for somebody #" + String(n).padStart(8, "0"), seq: n });
  return JSON.stringify(status);
};
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
server.on("listening", () => console.log("127.0.0.1:" + server.address().port));
server.on("connection", (socket) => socket.send(text(0)));
let n = 0;
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  for (let i = 0; i < Number(line); i++) {
    const next = Buffer.from(text(++n));
    for (const socket of server.clients) socket.send(next, { binary: false });
  }
}).on("close", () => process.exit());
"##;

/// A contestant at work, and the overlays that look at it.
struct Running {
    process: Child,
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
    async fn start(who: Contestant, overlays: u32) -> anyhow::Result<Option<Self>> {
        let mut command = match who {
            Contestant::Python => {
                let python = std::env::var("HEARTH_BENCH_PYTHON").unwrap_or("python3".to_owned());
                let mut command = Command::new(python);
                command.args(["-c", PYTHON]);
                command
            }
            Contestant::Node => {
                let mut command = Command::new("node");
                command.args(["-e", NODE]);
                command
            }
            Contestant::Hub | Contestant::Floor | Contestant::Stock => {
                let mut command = Command::new(std::env::current_exe()?);
                let name = format!("{who:?}").to_lowercase();
                command.args(["fanout-child", "--contestant", &name]);
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let is_foreign = matches!(who, Contestant::Python | Contestant::Node);
        if is_foreign {
            command.stderr(Stdio::null());
        }
        let Ok(mut process) = command.spawn() else {
            anyhow::ensure!(is_foreign, "{who:?} does not start");
            return Ok(None);
        };
        let mut out = BufReader::new(process.stdout.take().context("a pipe")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let Ok(addr) = line.trim().parse::<SocketAddr>() else {
            let _ = process.wait();
            anyhow::ensure!(is_foreign, "{who:?} says no address");
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
            orders,
            _out: out,
            overlays,
            taken,
            _looking: looking,
            published: 0,
        }))
    }

    /// Has so many published at once, and waits until every overlay took the last of them.
    async fn publish(&mut self, count: u32) -> anyhow::Result<()> {
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
    let all: &[Contestant] = clap::ValueEnum::value_variants();
    let mut running = Vec::new();
    for who in all {
        match Running::start(*who, overlays).await? {
            Some(contestant) => running.push((*who, contestant, Vec::new())),
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
        (Contestant::Hub | Contestant::Stock | Contestant::Node, _) => Goal::None,
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
    let others = all.iter().filter(|who| **who != Contestant::Hub);
    Ok(others.filter_map(|who| against(*who)).collect())
}
