//! The shipped agent with the maximum number of subscribers, some of which read nothing.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use hearth_tests::{
    process::{PATIENCE, Process, finish},
    test_bed::TestBed,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

const SOCKETS: usize = 1_000;
const STREAMS: usize = 200;
/// Each subscriber needs a socket and some KiB; queued statuses would need much more.
const GROWTH_MAX_KIB: u64 = 64 * 1024;

/// The agent's resident memory in KiB.
fn memory(agent: &Process) -> u64 {
    let id = agent.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse().unwrap()
}

/// A connection with tiny buffers.
async fn narrow(at: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    socket.connect(at.parse().unwrap()).await.unwrap()
}

async fn socket(at: &str, stream: TcpStream) -> WebSocketStream<TcpStream> {
    let request = format!("ws://{at}/").into_client_request().unwrap();
    client_async(request, stream).await.unwrap().0
}

async fn until_monitoring(socket: &mut WebSocketStream<TcpStream>, is_on: bool) {
    let said = format!("\"monitoring\":{is_on}");
    loop {
        let message = socket.next().await.unwrap().unwrap();
        if matches!(&message, Message::Text(text) if text.contains(&said)) {
            return;
        }
    }
}

/// A reader of `/status/stream`.
async fn stream(at: &str, mut stream: TcpStream) -> BufReader<TcpStream> {
    let request = format!("GET /status/stream HTTP/1.1\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream)
}

async fn until_line(reader: &mut BufReader<TcpStream>, part: &str) {
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert_ne!(reader.read_line(&mut line).await.unwrap(), 0, "it ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscribers_of_the_agent_are_served_and_stalled_ones_cost_it_no_memory() {
    let (mut bed, _ollama) = TestBed::scripted().await;
    let agent = bed.agent.as_mut().unwrap();
    let hub = agent.says("status on ws://").await;
    let http = agent.says("local HTTP on http://").await;
    let before = memory(agent);

    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let stream = TcpStream::connect(&hub).await.unwrap();
        sockets.push(timeout(PATIENCE, socket(&hub, stream)).await.unwrap());
    }
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let reader = TcpStream::connect(&http).await.unwrap();
        streams.push(stream(&http, reader).await);
    }
    let stalled = (
        socket(&hub, narrow(&hub).await).await,
        stream(&http, narrow(&http).await).await,
    );
    for socket in &mut sockets {
        timeout(PATIENCE, until_monitoring(socket, true))
            .await
            .unwrap();
    }
    for reader in &mut streams {
        let said = until_line(reader, "\"monitoring\":true");
        timeout(PATIENCE, said).await.unwrap();
    }
    let served = memory(bed.agent.as_ref().unwrap());

    for round in 0..10 {
        let is_on = round % 2 == 1;
        let began = Instant::now();
        let word = if is_on { "resume" } else { "pause" };
        let done = finish(bed.hearth(&[word])).await;
        assert!(done.status.success(), "{}", done.stderr);
        for socket in &mut sockets {
            let seen = timeout(PATIENCE, until_monitoring(socket, is_on)).await;
            seen.expect("each overlay sees each change");
        }
        for reader in &mut streams {
            let said = format!("\"monitoring\":{is_on}");
            timeout(PATIENCE, until_line(reader, &said)).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    let after = memory(bed.agent.as_ref().unwrap());
    println!("the agent: {before} KiB, {served} KiB with all, {after} KiB after ten changes");
    assert!(served - before < GROWTH_MAX_KIB, "{before} -> {served} KiB");
    let grown = after.saturating_sub(served);
    assert!(grown < GROWTH_MAX_KIB / 4, "{served} -> {after} KiB");
    drop(stalled);
}
