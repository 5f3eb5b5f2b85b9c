//! Clients that stop reading, and clients that resume.

use std::time::Duration;

use hearth_relay::RelaySettings;
use proptest::prelude::*;
use proto::{End, worker::RelayMessage};
use queue::Scope;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    client::Client,
    in_time,
    server::Server,
    wire::{question, strict_events},
    worker::{CHAT_DONE, Scripted, chat},
};

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_its_job_cancelled() {
    let mut settings = RelaySettings::default();
    settings.write_patience = Duration::from_millis(200);
    let server = Server::with(settings).await;
    let mut worker = Scripted::ready(&server).await;
    let key = server.key("default", &[Scope::Enqueue]).await;
    let body = question("/api/chat", true);
    let request = format!(
        "POST /api/chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let stuck = stuck(&server, &request).await;
    let job = worker.lease().await;
    // More than the kernel buffers for a socket.
    let line = chat(&"x".repeat(1024 * 1024));
    for n in 1..=16 {
        worker.line(job.token(), n, &line).await;
    }
    let token = job.token();
    assert_eq!(worker.next().await, RelayMessage::Cancel { token });
    drop(stuck);
}

/// Opens a socket with a tiny receive buffer and sends a request over it.
pub(crate) async fn stuck(server: &Server, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = in_time(socket.connect(server.address)).await.unwrap();
    stuck.write_all(request.as_bytes()).await.unwrap();
    stuck
}

/// Otherwise every client that stops reading would keep a whole answer in memory.
#[tokio::test]
async fn long_answers_that_are_not_taken_leave_room_for_others() {
    const MIB: usize = 1024 * 1024;
    let mut settings = RelaySettings::default();
    settings.gathered_max = 160 * MIB;
    settings.write_patience = Duration::from_secs(3600);
    let server = Server::with(settings).await;
    let mut worker = Scripted::ready(&server).await;
    let key = server.key("default", &[Scope::Enqueue, Scope::Read]).await;
    let client = Client::new(server.base(), Some(key.clone()));
    let asked = r#"{"op":"chat","body":{"model":"m"}}"#;
    let id = client.post("/api/jobs", asked).await.json().await["id"].take();
    let job = worker.lease().await;
    let line = chat(&"x".repeat(MIB));
    for n in 1..=16 {
        worker.line(job.token(), n, &line).await;
    }
    worker.line(job.token(), 17, CHAT_DONE).await;
    worker.end(job.token(), 17, End::Completed).await;
    let id = id.as_str().unwrap();
    let path = format!("/api/jobs/{id}/answer?wait=20");
    let polled = format!("/api/ollama/status/{id}");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");

    let mut slow = [
        stuck(&server, &request).await,
        stuck(&server, &request).await,
    ];
    let mut head = [0; 12];
    for reader in &mut slow {
        in_time(reader.read_exact(&mut head)).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    for path in [&path, &polled] {
        let refused = client.get(path).await;
        assert_eq!(refused.header("x-hearth-error"), "busy", "{path}");
        assert!(refused.header("retry-after").parse::<u32>().is_ok());
    }
    let small = client.get("/api/tags").await;
    assert_eq!(small.status, http::StatusCode::OK);
    let other = server.requester().await;
    let whole = other.get(&path).await;
    assert_eq!(whole.status, http::StatusCode::OK, "with another key");
    drop((whole, slow));
    let answered = async {
        while client.get(&path).await.status != http::StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    in_time(answered).await;
    assert_eq!(
        client.get(&polled).await.json().await["status"],
        "completed"
    );
}

#[tokio::test]
async fn lists_of_queries_that_are_not_taken_leave_room_for_others() {
    const MIB: usize = 1024 * 1024;
    let mut settings = RelaySettings::default();
    settings.gathered_max = 96 * MIB;
    settings.write_patience = Duration::from_secs(3600);
    let server = Server::with(settings).await;
    let key = server.key("default", &[Scope::Enqueue, Scope::Read]).await;
    let client = Client::new(server.base(), Some(key.clone()));
    let _worker = Scripted::serving(&server, "default", &["m"], 0).await;
    let asked = format!(
        r#"{{"project":1,"query_text":"{}"}}"#,
        "x".repeat(60 * 1024)
    );
    for _ in 0..300 {
        let made = client.post("/api/queries/", asked.clone()).await;
        assert_eq!(made.status, http::StatusCode::CREATED);
    }
    let path = "/api/queries/by_status/?status=queued";
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    let mut slow = stuck(&server, &request).await;
    let mut head = [0; 12];
    in_time(slow.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let refused = client.get(path).await;
    assert_eq!(refused.header("x-hearth-error"), "busy");
    drop(slow);
    let listed = async {
        loop {
            let reply = client.get(path).await;
            if reply.status == http::StatusCode::OK {
                return reply.text().await.len();
            }
            tokio::task::yield_now().await;
        }
    };
    let listed = in_time(listed).await;
    assert!((16 * MIB..18 * MIB).contains(&listed), "{listed}");
}

#[tokio::test]
async fn a_connection_may_rest_longer_than_a_head_may_take() {
    let mut settings = RelaySettings::default();
    settings.head_patience = Duration::from_millis(100);
    let server = Server::with(settings).await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut resting = TcpStream::connect(server.address).await.unwrap();
    let mut answer = [0; 1024];
    for round in 0..3 {
        resting.write_all(request).await.unwrap();
        let read = in_time(resting.read(&mut answer)).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "round {round}");
        // While it is idle, connections that stall within a head are closed.
        for part in ["", "GET /healthz HTTP/1.1\r\nho"] {
            let mut slow = TcpStream::connect(server.address).await.unwrap();
            slow.write_all(part.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            in_time(slow.read_to_end(&mut rest)).await.unwrap();
        }
    }
    // It is closed itself when it stalls within a later head.
    resting.write_all(&request[..9]).await.unwrap();
    let mut rest = Vec::new();
    in_time(resting.read_to_end(&mut rest)).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_stream_cut_anywhere_and_resumed_gives_the_same_text(
        texts in proptest::collection::vec("[a-zé\"\n ]{0,12}", 1..6),
        cut in 0.0..1.0_f64,
        by_header: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(cut_and_resumed(&texts, cut, by_header));
    }
}

async fn cut_and_resumed(texts: &[String], cut: f64, by_header: bool) {
    let server = Server::start().await;
    let client = server.requester().await;
    let native = r#"{"op":"chat","body":{"model":"m","messages":[]}}"#;
    let job = client.post("/api/jobs", native).await.json().await;
    let events = format!("/api/jobs/{}/events", job["id"].as_str().unwrap());
    let (one, two) = (client.get(&events).await, client.get(&events).await);
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    worker.answer(&job, &texts).await;
    let whole = one.text().await;
    assert_eq!(two.text().await, whole, "two watchers");

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short text"
    )]
    let at = (whole.len() as f64 * cut) as usize;
    let seen = String::from_utf8_lossy(&whole.as_bytes()[..at]).into_owned();
    // A client keeps whole events only.
    let kept = seen.rfind("\n\n").map_or("", |end| &seen[..end + 2]);
    let last = kept
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .next_back();
    let rest = match (last, by_header) {
        (None, _) => client.get(&events).await,
        (Some(last), true) => {
            let header = [("last-event-id", last)];
            client
                .send_with(http::Method::GET, &events, &header, "")
                .await
        }
        (Some(last), false) => client.get(&format!("{events}?after={last}")).await,
    };
    let resumed = kept.to_owned() + &rest.text().await;
    assert_eq!(
        strict_events(&resumed),
        strict_events(&whole),
        "cut at {at}"
    );
}
