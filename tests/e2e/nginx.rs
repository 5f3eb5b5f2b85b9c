//! The relay behind nginx, with the configuration from `deploy/`.

use std::{net::SocketAddr, path::Path};

use hearth_tests::{
    not_tried,
    process::{PATIENCE, Process, finish},
    scripted_ollama::{Answer, Gate, ScriptedOllama, Step},
    test_bed::TestBed,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    process::Command,
    time::timeout,
};

const WORD: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"one"},"done":false}"#;
const DONE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;
const SHIPPED: &str = include_str!("../../deploy/nginx.conf");
const BEHIND: &[&str] = &[
    "--behind-proxy",
    "127.0.0.1",
    "--metrics",
    "127.0.0.1:0",
    "--failures-per-minute",
    "0",
];

/// nginx in front of a test bed's relay.
struct Nginx {
    _process: Process,
    address: SocketAddr,
    /// Reserves the port: nginx binds it too, and is the only listener.
    _port: TcpSocket,
}

/// The shipped configuration with its paths and ports replaced.
fn here(shipped: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(shipped.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the shipped settings lack {from:?}");
        text.replace(from, to)
    })
}

impl Nginx {
    /// Starts nginx, with or without TLS. `None` if nginx is not installed.
    async fn before(bed: &TestBed, is_secure: bool) -> Option<Self> {
        let asked = std::process::Command::new("nginx").arg("-v").output();
        if !asked.is_ok_and(|asked| asked.status.success()) {
            not_tried("there is no nginx here to stand before the relay");
            return None;
        }
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseport(true).unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap();
        let home = bed.home.path();
        let path = |name: &str| home.join(name).display().to_string();
        let tls = if is_secure { "ssl http2 " } else { "" };
        let settings = here(
            SHIPPED,
            &[
                ("443 ssl http2", format!("{address} {tls}reuseport")),
                ("127.0.0.1:8787", bed.address.to_string()),
                (
                    "/etc/letsencrypt/live/relay.example/fullchain.pem",
                    path("cert.pem"),
                ),
                (
                    "/etc/letsencrypt/live/relay.example/privkey.pem",
                    path("key.pem"),
                ),
                ("/var/log/nginx/hearth.log", path("access.log")),
                ("/var/log/nginx/hearth-error.log", path("error.log")),
            ],
        );
        certify(home);
        let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {};", path(what)));
        let main = format!(
            "daemon off; master_process off; pid {}; error_log stderr notice;
             events {{ worker_connections 256; }}
             http {{ {} access_log off; {settings} }}",
            path("nginx.pid"),
            folders.concat()
        );
        std::fs::write(home.join("nginx.conf"), main).unwrap();
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(home)
            .arg("-c")
            .arg(home.join("nginx.conf"));
        command.kill_on_drop(true);
        let mut process = Process::start("nginx", command);
        process.says("event method").await;
        Some(Self {
            _process: process,
            address,
            _port: port,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }
}

fn certify(home: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(home.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(home.join("key.pem"), key.serialize_pem()).unwrap();
}

/// A client that trusts nginx's certificate.
fn client(home: &Path) -> reqwest::Client {
    let cert = std::fs::read(home.join("cert.pem")).unwrap();
    reqwest::Client::builder()
        .add_root_certificate(reqwest::Certificate::from_pem(&cert).unwrap())
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

#[tokio::test]
async fn agents_and_tokens_come_through_the_nginx_that_is_shipped_and_no_key_gets_into_its_log() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let bed = TestBed::relay_with(BEHIND, &format!("ollama:{}", ollama.url())).await;
    let Some(nginx) = Nginx::before(&bed, true).await else {
        return;
    };
    let mut options = bed.options();
    let direct = format!("http://{}", bed.address);
    let relay = options
        .iter_mut()
        .find(|option| **option == direct)
        .unwrap();
    *relay = nginx.url("");
    let mut command = bed.hearth(&["agent"]);
    command.args(&options).env("HEARTH_KEY", &bed.worker);
    command.env("SSL_CERT_FILE", bed.home.path().join("cert.pem"));
    let mut agent = Process::start("the agent", command);
    agent.says("status on ws://").await;
    bed.until("ready").await;
    let metrics = bed.metrics().await;
    assert!(
        metrics.contains(r#"carrier="websocket"} 1"#),
        "it fell back to polls: {metrics}"
    );

    let gate = Gate::default();
    let answer = Answer::begin()
        .send_lines([WORD])
        .then(Step::Wait(gate.clone()))
        .send_lines([DONE])
        .then(Step::Finish);
    ollama.script("/api/chat", answer);
    let http = client(bed.home.path());
    let message = json!({"role": "user", "content": "x"});
    let body = json!({"model": "tiny", "messages": [message]});
    let request = http.post(nginx.url("/api/chat")).json(&body);
    let mut reply = request.bearer_auth(&bed.requester).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert!(reply.headers().contains_key("strict-transport-security"));
    let first = reply.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(br#"{"model":"tiny""#), "{first:?}");
    gate.open();
    let mut rest = Vec::new();
    while let Some(more) = reply.chunk().await.unwrap() {
        rest.extend(more);
    }
    assert!(rest.ends_with(b"\n"), "{rest:?}");

    let key = &bed.requester;
    for (path, status) in [
        (format!("/k/{key}/api/tags"), 200),
        (format!("/api/{key}"), 404),
        (format!("/api/tags?token={key}"), 400),
    ] {
        let told = http.get(nginx.url(&path)).send().await.unwrap();
        assert_eq!(told.status(), status, "{path}");
    }
    let ended = finish({
        let mut command = bed.hearth(&["ask", "--relay", &nginx.url(""), "Hello?"]);
        command.env("HEARTH_KEY", key);
        command.env("SSL_CERT_FILE", bed.home.path().join("cert.pem"));
        ollama.settle("/api/chat", Answer::lines([WORD, DONE]));
        command
    });
    assert_eq!(ended.await.stdout.trim(), "one");
    let logs = ["access.log", "error.log"].map(|log| bed.home.path().join(log));
    let logged = logs.map(|log| std::fs::read_to_string(log).unwrap_or_default());
    assert!(logged[0].lines().count() >= 6, "{logged:?}");
    let secret = key.rsplit('_').next().unwrap();
    assert!(logged.iter().all(|log| !log.contains(secret)), "{logged:?}");
}

/// A request inside the body of another, if the server parses it separately.
const SECOND: &str = "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n";

/// Requests that one server may parse as one request and another server as two.
fn ambiguous() -> Vec<String> {
    let length = SECOND.len();
    let no_chunk = format!("0\r\n\r\n{SECOND}");
    let (all, te) = (no_chunk.len(), "transfer-encoding: chunked");
    let with = |head: &str, body: &str| {
        format!("POST /api/login/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n\r\n{body}")
    };
    let mut table = vec![
        with(&format!("content-length: {all}\r\n{te}"), &no_chunk),
        with(&format!("{te}\r\ncontent-length: {all}"), &no_chunk),
        with(
            &format!("content-length: {length}\r\ncontent-length: 0"),
            SECOND,
        ),
        with(
            &format!("content-length: 0\r\ncontent-length: {length}"),
            SECOND,
        ),
        with(&format!("content-length: 0, {length}"), SECOND),
        with(&format!("content-length: 0\r\n {length}"), SECOND),
        with(&format!("content-length : {length}"), SECOND),
        with("content-length: +0", SECOND),
        with("content-length: 0x0", SECOND),
    ];
    for odd in [
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
        "transfer-encoding:\tchunked",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: \x0bchunked",
        "x: y\r\n transfer-encoding: chunked",
        "transfer_encoding: chunked",
    ] {
        // By its length this is one request; by the other header it is two.
        table.push(with(&format!("content-length: {all}\r\n{odd}"), &no_chunk));
    }
    table
}

#[tokio::test]
async fn no_request_is_one_to_nginx_and_two_to_the_relay() {
    let bed = TestBed::relay_with(BEHIND, "none").await;
    let Some(nginx) = Nginx::before(&bed, false).await else {
        return;
    };
    for request in ambiguous() {
        let told = told(nginx.address, &request).await;
        assert!(told.starts_with("HTTP/1.1 "), "{request:?}: {told:?}");
    }
    // A request of its own would be counted as refused for an unknown route.
    let unknown = r#"hearth_refused_total{code="unknown_route"} "#;
    let count = |metrics: String| {
        let mut lines = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(unknown));
        lines.next().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(count(bed.metrics().await), 0);
    let alone = SECOND.replace("host: x", "host: x\r\nconnection: close");
    let told = told(nginx.address, &alone);
    assert!(told.await.starts_with("HTTP/1.1 404"));
    assert_eq!(count(bed.metrics().await), 1);
}

async fn told(address: SocketAddr, request: &str) -> String {
    let mut line = TcpStream::connect(address).await.unwrap();
    line.write_all(request.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    let read = timeout(PATIENCE, line.read_to_end(&mut told)).await;
    read.expect("it is answered").unwrap();
    String::from_utf8_lossy(&told).into_owned()
}
