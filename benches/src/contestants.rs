//! Servers that send a status to overlays: Hearth's hub, and those it is compared with. Each is a
//! process that prints its address, publishes as many statuses as each line of its standard input
//! says, and ends with its standard input.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    os::fd::AsFd as _,
    pin::pin,
    process::Command,
    sync::mpsc as threads,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{self, Stream},
};
use proto::status::{ServerMessage, Status};
use status::{Limits, LocalToken, StatusHub, StatusServer, bind_loopback};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, unix::pipe},
    sync::{broadcast, mpsc},
    task::JoinSet,
};
use tokio_tungstenite::{
    accept_async,
    tungstenite::{Message, handshake::derive_accept_key},
};
use tokio_util::sync::CancellationToken;

/// Precedes the number of a status in its text.
pub(crate) const MARK: char = '#';

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Contestant {
    /// Hearth's hub.
    Hub,
    /// One thread, and one `write` per status and overlay: the minimum possible.
    Floor,
    /// The WebSocket library as in its examples: one task and one queue per overlay.
    Stock,
    /// Python's `websockets`, if installed.
    Python,
    /// Node's `ws`, if installed.
    Node,
    /// A `FastAPI` page that overlays poll, if installed.
    FastApi,
}

impl Contestant {
    /// Whether it may be missing.
    pub(crate) fn is_foreign(self) -> bool {
        match self {
            Self::Hub | Self::Floor | Self::Stock => false,
            Self::Python | Self::Node | Self::FastApi => true,
        }
    }

    /// The command that starts it.
    ///
    /// # Errors
    /// If this program does not know its own path.
    pub(crate) fn command(self) -> anyhow::Result<Command> {
        let with = |program: &str, args: [&str; 2]| {
            let mut command = Command::new(program);
            command.args(args);
            command
        };
        let python = || std::env::var("HEARTH_BENCH_PYTHON").unwrap_or("python3".to_owned());
        Ok(match self {
            Self::Python => with(&python(), ["-c", PYTHON]),
            Self::FastApi => with(&python(), ["-c", FASTAPI]),
            Self::Node => with("node", ["-e", NODE]),
            Self::Hub | Self::Floor | Self::Stock => {
                let mut command = Command::new(std::env::current_exe()?);
                let name = format!("{self:?}").to_lowercase();
                command.args(["fanout-child", "--contestant", &name]);
                command
            }
        })
    }
}

/// Publishes as many statuses as each line of standard input says, and ends with it.
///
/// # Errors
/// If no port is free.
pub(crate) async fn child(who: Contestant) -> anyhow::Result<()> {
    match who {
        // Runs on the runtime's worker threads, as in an agent, instead of the main thread.
        Contestant::Hub => tokio::spawn(hub()).await?,
        Contestant::Floor => floor(),
        Contestant::Stock => tokio::spawn(stock()).await?,
        Contestant::Python | Contestant::Node | Contestant::FastApi => Ok(()),
    }
}

fn say(addr: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{addr}")?;
    out.flush()
}

/// The numbers on standard input, read by the runtime that publishes: an agent's events arrive the
/// same way, and Python and Node read them in their own loop.
fn orders() -> anyhow::Result<impl Stream<Item = u32>> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
    let lines = BufReader::new(pipe::Receiver::from_owned_fd(stdin)?).lines();
    Ok(stream::unfold(lines, |mut lines| async {
        let line = lines.next_line().await.ok()??;
        Some((line.trim().parse().ok()?, lines))
    }))
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
    let mut orders = pin!(orders()?);
    let mut number = 0;
    while let Some(count) = orders.next().await {
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
            // It is counted before its first status tells it so.
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
    let mut orders = pin!(orders()?);
    let (mut number, mut serving) = (0, JoinSet::new());
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
            order = orders.next() => {
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

const FASTAPI: &str = r##"
import os, socket, sys, threading, fastapi, uvicorn
status = {"status": "starting", "text": "", "is_listening": False, "is_speaking": False,
  "wake_word_detected": False, "overlay_visible": True, "monitoring": True}
def obey():
    n = 0
    for line in sys.stdin:
        n += int(line)
        status.update(text="Working for somebody #%08d" % n)
    os._exit(0)
app = fastapi.FastAPI()
@app.get("/api/status")
async def show():
    return status
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
print("%s:%d" % listening.getsockname(), flush=True)
threading.Thread(target=obey, daemon=True).start()
uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error")).run(sockets=[listening])
"##;
