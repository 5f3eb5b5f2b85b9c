//! W3: the cost of an idle status hub with a hundred overlays.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use status::{LocalToken, StatusHub, StatusServer, bind_loopback};
use tokio::{net::TcpStream, sync::mpsc, time::sleep};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

use crate::{
    proc::Usage,
    stats::{Figure, Goal},
};

const SUBSCRIBERS: u32 = 100;
const WATCHED: Duration = Duration::from_secs(30);
/// Time for the new connections to settle before the counters are read.
const SETTLED: Duration = Duration::from_secs(2);

/// The hub alone in a process: prints its port, and ends with its standard input.
///
/// # Errors
/// If no port is free.
pub(crate) async fn child() -> anyhow::Result<()> {
    let bound = bind_loopback(&[0]).await?;
    writeln!(std::io::stdout(), "{}", bound.addr)?;
    let (commands, _kept) = mpsc::channel(1);
    let server = StatusServer::new(StatusHub::default(), LocalToken::new([7; 32]), commands);
    let stop = CancellationToken::new();
    let ended = stop.clone();
    std::thread::Builder::new().spawn(move || {
        let _ = std::io::stdin().lines().next();
        ended.cancel();
    })?;
    Ok(server.serve(bound.listener, stop).await?)
}

struct Hub {
    process: Child,
    addr: SocketAddr,
}

impl Hub {
    fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("hub-child")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process
            .stdout
            .take()
            .context("the child's output is a pipe")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        Ok(Self {
            process,
            addr: line.trim().parse()?,
        })
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Ok(Usage::of(self.process.id())?)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Measures for half a minute.
///
/// # Errors
/// If the hub does not start or a subscriber is refused.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let hub = Hub::start()?;
    let _first = subscribe(hub.addr).await?;
    let before = hub.usage()?;
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        subscribers.push(subscribe(hub.addr).await?);
    }
    sleep(SETTLED).await;
    let begun = hub.usage()?;
    sleep(WATCHED).await;
    let used = hub.usage()?.since(begun);
    let grown = begun.rss.saturating_sub(before.rss);
    let detail = format!("{SUBSCRIBERS} subscribers, {} s", WATCHED.as_secs());
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    Ok(vec![
        Figure {
            name: "W3 hub idle: ms of CPU".to_owned(),
            value: used.cpu.as_secs_f64() * 1000.0,
            goal: Goal::AtMost(1.0),
            detail: detail.clone(),
        },
        Figure {
            name: "W3 hub idle: wake-ups".to_owned(),
            value: used.waits as f64,
            goal: Goal::AtMost(0.0),
            detail,
        },
        Figure {
            name: "W3 memory per connection, kB".to_owned(),
            value: grown as f64 / f64::from(SUBSCRIBERS),
            goal: Goal::AtMost(8.0),
            detail: format!("{grown} kB resident for {SUBSCRIBERS}"),
        },
    ])
}

async fn subscribe(addr: SocketAddr) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async(format!("ws://{addr}/"), stream).await?;
    socket.next().await.context("the hub closed")??;
    Ok(socket)
}
