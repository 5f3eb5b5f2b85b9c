//! Slow, idle and large requests: their timeouts, and the room they leave for others.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::StatusCode;
use queue::Scope;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{client::Client, hygiene::READY, in_time, server::Server, worker::Scripted};

fn hasty() -> RelaySettings {
    let mut settings = RelaySettings::default();
    settings.head_patience = Duration::from_millis(200);
    settings.body_patience = Duration::from_millis(200);
    settings.write_patience = Duration::from_millis(200);
    settings
}

/// Sends one byte at intervals until the relay ends the request; returns its response.
async fn trickled(server: &Server, head: &str) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let (mut from, mut to) = socket.into_split();
    let drip = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if to.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    let read = async {
        let _ = from.read_to_end(&mut answer).await;
    };
    in_time(async {
        tokio::select! {
            () = read => {}
            () = drip => {}
        }
    })
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn who_dawdles_over_head_body_or_answer_is_cut_and_others_are_served() {
    let server = Server::with(hasty()).await;
    let key = server.key("default", &[Scope::Enqueue, Scope::Read]).await;
    let auth = format!("host: x\r\nauthorization: Bearer {key}\r\n");
    let slow_body = format!("POST /api/chat HTTP/1.1\r\n{auth}content-length: 100000\r\n\r\n");
    let slow_chunks =
        format!("POST /api/chat HTTP/1.1\r\n{auth}transfer-encoding: chunked\r\n\r\nffff\r\n");
    let login = "POST /api/login/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    // Over the size limit of that route.
    let refused = "POST /api/login/ HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n";
    let other = server.requester().await;
    let slow = async {
        tokio::join!(
            trickled(&server, "GET /api/tags HTTP/1.1\r\nhost: x\r\nx-slow: "),
            trickled(&server, &slow_body),
            trickled(&server, &slow_chunks),
            trickled(&server, login),
            trickled(&server, refused),
        )
    };
    let served = async {
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            let began = Instant::now();
            assert_eq!(other.get("/api/tags").await.status, StatusCode::OK);
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let ((head, body, chunks, login, refused), _) = tokio::join!(slow, served);
    assert_eq!(head, "", "its head never came");
    for answer in [body, chunks, login] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("x-hearth-error: too_slow"), "{answer}");
    }
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert_eq!(other.get("/api/tags").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_connection_that_rests_too_long_is_closed() {
    let mut settings = RelaySettings::default();
    settings.idle_patience = Duration::from_millis(200);
    let server = Server::with(settings).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let ask = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut told = Vec::new();
    for _ in 0..3 {
        socket.write_all(ask.as_bytes()).await.unwrap();
        while !told.ends_with(READY.as_bytes()) {
            assert_ne!(
                in_time(socket.read_buf(&mut told)).await.unwrap(),
                0,
                "too soon"
            );
        }
        told.clear();
    }
    assert_eq!(in_time(socket.read_buf(&mut told)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_large_body_on_a_slow_line_is_waited_for_as_long_as_it_comes() {
    let server = Server::with(hasty()).await;
    let key = server.key("default", &[Scope::Enqueue]).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let (part, parts) = (vec![b' '; 16 * 1024], 40);
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n",
        part.len() * parts
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..parts {
        // In total ten times as long as a body may stall.
        ticks.tick().await;
        socket.write_all(&part).await.unwrap();
    }
    let mut answer = [0; 1024];
    let read = in_time(socket.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(
        answer.starts_with("HTTP/1.1 400 "),
        "all of it was read: {answer}"
    );
    assert!(answer.contains("x-hearth-error: "), "{answer}");
}

#[tokio::test]
async fn long_bodies_that_are_on_their_way_leave_room_for_others() {
    const MIB: usize = 1024 * 1024;
    let mut settings = RelaySettings::default();
    settings.arriving_max = 12 * MIB;
    let server = Server::with(settings).await;
    let key = server.key("default", &[Scope::Enqueue, Scope::Read]).await;
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n",
        8 * MIB
    );
    let begun = async || {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        in_time(socket.write_all(&vec![b' '; 2 * MIB]))
            .await
            .unwrap();
        socket
    };
    // The second body exceeds the budget of one key.
    let (mut one, mut other) = (begun().await, begun().await);
    let (mut said, mut also) = ([0; 1024], [0; 1024]);
    let (read, first) = tokio::select! {
        read = in_time(one.read(&mut said)) => (read, true),
        read = in_time(other.read(&mut also)) => (read, false),
    };
    let told = if first { &said } else { &also };
    let told = String::from_utf8_lossy(&told[..read.unwrap()]).into_owned();
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    for header in ["x-hearth-error: busy", "retry-after: ", "connection: close"] {
        assert!(told.contains(header), "{told}");
    }
    let client = Client::new(server.base(), Some(key));
    let small = client.post("/api/chat", "{}").await;
    assert_eq!(small.header("x-hearth-error"), "no_worker", "it was read");
    let neighbour = server.requester().await;
    let long = format!("{{}}{}", " ".repeat(2 * MIB));
    let long = neighbour.post("/api/chat", long).await;
    assert_eq!(
        long.header("x-hearth-error"),
        "no_worker",
        "with another key"
    );
    drop(if first { one } else { other });
}

#[tokio::test]
async fn what_has_arrived_takes_no_room_from_what_still_comes_while_it_waits_for_an_agent() {
    const MIB: usize = 1024 * 1024;
    let mut settings = RelaySettings::default();
    settings.arriving_max = 12 * MIB;
    let server = Server::with(settings).await;
    let _busy = Scripted::serving(&server, "default", &["m"], 0).await;
    let client = server.requester().await;
    let words = "x".repeat(2 * MIB);
    let asked = |path: &str| match path {
        "/v1/responses" => serde_json::json!({"model": "m", "input": words}),
        "/v1/completions" => serde_json::json!({"model": "m", "prompt": words}),
        "/v1/embeddings" => serde_json::json!({"model": "m", "input": words}),
        _ => serde_json::json!({
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": words}],
        }),
    };
    let paths = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/api/chat",
    ];
    let mut waiting = Vec::new();
    for (n, path) in paths.iter().enumerate() {
        let (client, path, body) = (client.clone(), *path, asked(path).to_string());
        waiting.push(tokio::spawn(async move { client.post(path, body).await }));
        let came = server.until(|counts| counts.queued > n);
        let refused = async {
            let last = waiting.last_mut().unwrap();
            last.await.unwrap().text().await
        };
        tokio::select! {
            () = came => {}
            told = refused => panic!("{path}: {told}"),
        }
    }
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}
