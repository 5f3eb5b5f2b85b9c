//! D9 and D11: many idle workers, and many slow clients.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use hearth_tests::{process::Process, test_bed::TestBed};
use proto::{limits, worker::CLOSE_DRAIN};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message, client::IntoClientRequest as _, http::HeaderValue, protocol::WebSocketConfig,
    },
};

use crate::{
    proc::Usage,
    stats::{Figure, Goal, Sample},
};

type Socket = WebSocketStream<TcpStream>;

const SOCKETS: usize = 10_000;
/// Number of connections opened at once.
const STEP: usize = 250;
/// Long enough for a ping to each worker and its answer.
const IDLE: Duration = Duration::from_secs(limits::CARRIER_PING.as_secs() + 1);
const OFFENDERS: usize = 200;
/// Size of a file that exceeds the kernel's socket buffers, in bytes.
const FILE_BYTES: usize = 12 * 1024 * 1024;
const HEALTHY: Duration = Duration::from_secs(5);
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// D9: many workers that are connected and get no jobs.
///
/// # Errors
/// If the relay or the swarm does not start.
pub(crate) async fn idle() -> anyhow::Result<Vec<Figure>> {
    let bed = TestBed::relay_with(&["--connections-max", "12000"], "ollama").await;
    let pid = bed
        .relay
        .as_ref()
        .and_then(Process::id)
        .context("the relay runs")?;
    let empty = Usage::of(pid)?;
    let mut swarm = bed.home.command(std::env::current_exe()?);
    swarm
        .arg("swarm-child")
        .env("SWARM_RELAY", bed.address.to_string())
        .env("SWARM_KEY", &bed.worker);
    let mut swarm = Process::start("the swarm", swarm);
    for open in (STEP..=SOCKETS).step_by(STEP) {
        swarm.says(&format!("open: {open} ")).await;
    }
    let before = Usage::of(pid)?;
    sleep(IDLE).await;
    let used = Usage::of(pid)?.since(before);
    let begun = Instant::now();
    bed.relay.as_ref().context("it runs")?.ask_to_end();
    let pings = swarm
        .says(&format!("told: {SOCKETS} workers, pinged: "))
        .await;
    let told = begun.elapsed();
    swarm.kill().await;
    let pings: usize = pings.trim().parse()?;
    anyhow::ensure!(pings >= SOCKETS, "of {SOCKETS} workers {pings} were pinged");
    let grown = used.rss.saturating_sub(empty.rss);
    Ok(vec![
        Figure {
            name: format!("D9 memory with {SOCKETS} idle workers in MB"),
            value: used.rss as f64 / 1024.0,
            goal: Goal::AtMost(200.0),
            detail: format!("{:.1} kB each", grown as f64 / SOCKETS as f64),
        },
        Figure {
            name: "D9 of one processor, in percent".to_owned(),
            value: 100.0 * used.cpu.as_secs_f64() / IDLE.as_secs_f64(),
            goal: Goal::AtMost(2.0),
            detail: format!("over {IDLE:?}, in which each is pinged once"),
        },
        Figure {
            name: "D9 seconds until all are told of the relay's end".to_owned(),
            value: told.as_secs_f64(),
            goal: Goal::AtMost(1.0),
            detail: "relay and workers on the same cores".to_owned(),
        },
    ])
}

/// The swarm of workers as a process.
///
/// # Errors
/// If the environment does not name the relay.
pub(crate) async fn swarm() -> anyhow::Result<()> {
    use std::io::Write as _;
    let address: SocketAddr = std::env::var("SWARM_RELAY")?.parse()?;
    let key = std::env::var("SWARM_KEY")?;
    let mut open = JoinSet::new();
    for first in (0..SOCKETS).step_by(STEP) {
        let mut opening = JoinSet::new();
        for n in first..first + STEP {
            opening.spawn(worker(address, key.clone(), n));
        }
        while let Some(opened) = opening.join_next().await {
            open.spawn(listen(opened??));
        }
        writeln!(std::io::stdout(), "open: {} sockets", open.len())?;
    }
    let (mut told, mut pinged) = (0, 0);
    while let Some(ended) = open.join_next().await {
        pinged += usize::from(ended??);
        told += 1;
    }
    writeln!(std::io::stdout(), "told: {told} workers, pinged: {pinged}")?;
    // Runs until it is killed.
    std::future::pending().await
}

/// Reads messages, which answers pings, until the relay closes; returns whether it was pinged.
async fn listen(mut socket: Socket) -> anyhow::Result<bool> {
    let mut is_pinged = false;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Close(Some(frame)) if u16::from(frame.code) == CLOSE_DRAIN => {
                return Ok(is_pinged);
            }
            Message::Ping(_) => is_pinged = true,
            Message::Text(_)
            | Message::Binary(_)
            | Message::Pong(_)
            | Message::Close(_)
            | Message::Frame(_) => {}
        }
    }
    anyhow::bail!("the relay cut a worker that answers pings");
}

async fn worker(address: SocketAddr, key: String, n: usize) -> anyhow::Result<Socket> {
    let mut request = format!("ws://{address}/api/worker/v1").into_client_request()?;
    let headers = request.headers_mut();
    let bearer = HeaderValue::from_str(&format!("Bearer {key}"))?;
    headers.insert("authorization", bearer);
    let protocol = HeaderValue::from_static("hearth.worker.v1");
    headers.insert("sec-websocket-protocol", protocol);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(1024);
    let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    let report = json!({ "engine": "ollama", "engine_version": "0.33.0", "engine_up": true,
        "models": [] });
    let hello = json!({ "type": "hello", "worker": format!("idle-{n}"), "version": "0",
        "report": report });
    socket.send(Message::text(hello.to_string())).await?;
    Ok(socket)
}

/// D11: clients that send their heads byte by byte, and clients that read nothing.
///
/// # Errors
/// If the relay does not answer.
pub(crate) async fn slow() -> anyhow::Result<Vec<Figure>> {
    let bed = TestBed::relay_only("ollama").await;
    let path = upload(&bed).await?;
    let mut quiet = healthy(&bed).await?;
    let began = Instant::now();
    let mut offenders = JoinSet::new();
    for n in 0..OFFENDERS {
        offenders.spawn(dawdle(bed.address, n));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {}\r\n\r\n",
            bed.requester
        );
        offenders.spawn(stall(bed.address, request, n));
    }
    let loaded = healthy(&bed).await?;
    let mut gone = 0;
    if let Some(ended) = offenders.try_join_next() {
        ended??;
        anyhow::bail!("one was cut while the others were measured");
    }
    while let Ok(Some(ended)) = timeout(GONE_WITHIN, offenders.join_next()).await {
        // A client that was refused is an error of the benchmark.
        ended??;
        gone += 1;
    }
    let took = began.elapsed();
    // Before and after, so that other load on the machine is in both.
    quiet.extend(healthy(&bed).await?);
    let (quiet, loaded): (Sample, Sample) =
        (quiet.into_iter().collect(), loaded.into_iter().collect());
    Ok(vec![
        Figure {
            name: "D11 p99 beside 400 that dawdle / alone".to_owned(),
            value: loaded.percentile(0.99) / quiet.percentile(0.99),
            goal: Goal::AtMost(1.2),
            detail: format!(
                "{:.2} ms against {:.2} ms",
                loaded.percentile(0.99),
                quiet.percentile(0.99)
            ),
        },
        Figure {
            name: "D11 seconds until all of them are gone".to_owned(),
            value: took.as_secs_f64(),
            goal: Goal::AtMost(15.0),
            detail: format!("{gone} of {} were cut", 2 * OFFENDERS),
        },
    ])
}

/// Uploads a file that exceeds the kernel's socket buffers; returns its path.
async fn upload(bed: &TestBed) -> anyhow::Result<String> {
    let line = format!(
        "{}\n",
        json!({"custom_id": "x", "method": "POST", "url": "/v1/embeddings", "body": "x".repeat(1024)})
    );
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n{}\r\n--b--\r\n",
        line.repeat(FILE_BYTES / line.len())
    );
    let url = format!("http://{}/v1/files", bed.address);
    let posted = bed.http.post(url).bearer_auth(&bed.requester);
    let posted = posted.header("content-type", "multipart/form-data; boundary=b");
    let answer = posted.body(form).send().await?.error_for_status()?;
    let answer: serde_json::Value = answer.json().await?;
    let id = answer["id"].as_str().context("a file has an id")?;
    Ok(format!("/v1/files/{id}/content"))
}

/// Waits for the nth part of a second, so that the clients do not all act at once.
async fn in_turn(n: usize) {
    #[expect(clippy::cast_precision_loss, reason = "some hundred")]
    let share = n as f64 / OFFENDERS as f64;
    sleep(Duration::from_secs_f64(share)).await;
}

/// Sends a request and reads only the first bytes, until the relay closes.
async fn stall(address: SocketAddr, request: String, n: usize) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut socket = socket.connect(address).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut first = [0; 12];
    socket.read_exact(&mut first).await?;
    anyhow::ensure!(&first == b"HTTP/1.1 200", "it was not served");
    in_turn(n).await;
    // Writing fails once the relay has closed; whitespace between requests is ignored.
    while socket.write_all(b" ").await.is_ok() {
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Sends requests one after another, as a well-behaved client.
async fn healthy(bed: &TestBed) -> anyhow::Result<Vec<Duration>> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < HEALTHY {
        let asked = Instant::now();
        bed.get("/api/jobs?limit=1")
            .send()
            .await?
            .error_for_status()?;
        took.push(asked.elapsed());
    }
    Ok(took)
}

/// Sends a head at one byte per second, or a whole head without the body, until the relay closes.
async fn dawdle(address: SocketAddr, n: usize) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    let head = if n.is_multiple_of(2) {
        "GET / HTTP/1.1\r\nX: "
    } else {
        "POST /api/login HTTP/1.1\r\nHost: relay\r\nContent-Length: 1000\r\n\r\n{"
    };
    socket.write_all(head.as_bytes()).await?;
    in_turn(n).await;
    let mut piece = [0; 1024];
    loop {
        match timeout(Duration::from_secs(1), socket.read(&mut piece)).await {
            Ok(Ok(0) | Err(_)) => return Ok(()),
            Ok(Ok(_)) => {}
            Err(_) => {
                if socket.write_all(b" ").await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
