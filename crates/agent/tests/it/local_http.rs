//! The local HTTP server, byte for byte.

use std::net::SocketAddr;

use proto::status::Command;
use serde_json::Value;
use tests::scripted_ollama::ScriptedOllama;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::support::{Running, settings, soon, text, with_engine};

async fn ask(addr: SocketAddr, line: &str, headers: &str) -> (u16, String, Value) {
    let (status, head, body) = text(addr, line, headers).await;
    (
        status,
        head,
        serde_json::from_str(&body).unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_status_is_served_with_the_nine_fields_and_only_to_whom_it_may_concern() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let addr = agent.handle.http().unwrap();
    let host = format!("Host: {addr}\r\n");

    let (status, head, body) = ask(addr, "GET /api/status", &host).await;
    assert_eq!(status, 200);
    assert!(!head.contains("access-control"), "{head}");
    for flag in [
        "is_listening",
        "is_speaking",
        "wake_word_detected",
        "overlay_visible",
        "monitoring",
        "tts_playing",
    ] {
        assert!(body[flag].is_boolean(), "{flag} in {body}");
    }
    assert_eq!(body["status"], "relay_offline");
    assert_eq!(body["text"], body["last_tts"]);
    assert_eq!(body["relay"]["name"], "not configured");

    let (status, _, body) = ask(addr, "GET /healthz", &host).await;
    assert_eq!((status, &body["status"]), (200, &Value::from("ok")));

    let (status, head, body) = text(addr, "GET /metrics", &host).await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text"));
    assert!(body.ends_with("# EOF\n"), "{body}");

    for (line, headers, status, code) in [
        (
            "GET /metrics",
            host.clone() + "Origin: https://evil.com\r\n",
            403,
            "forbidden_origin",
        ),
        (
            "GET /api/status",
            host.clone() + "Origin: https://evil.com\r\n",
            403,
            "forbidden_origin",
        ),
        (
            "GET /healthz",
            host.clone() + "Origin: null\r\n",
            403,
            "forbidden_origin",
        ),
        (
            "GET /api/status",
            "Host: evil.com\r\n".to_owned(),
            403,
            "forbidden_host",
        ),
        (
            "GET /nothing",
            "Host: evil.com\r\n".to_owned(),
            403,
            "forbidden_host",
        ),
        (
            "GET /status/stream",
            host.clone() + "Origin: https://evil.com\r\n",
            403,
            "forbidden_origin",
        ),
        (
            "GET /status/stream",
            "Host: evil.com\r\n".to_owned(),
            403,
            "forbidden_host",
        ),
        (
            "POST /status/stream",
            host.clone(),
            405,
            "method_not_allowed",
        ),
        ("GET /api/status?token=x", host.clone(), 400, "token_in_url"),
        ("GET /nothing", host.clone(), 404, "unknown_route"),
        ("POST /api/status", host.clone(), 405, "method_not_allowed"),
        ("DELETE /healthz", host.clone(), 405, "method_not_allowed"),
    ] {
        let (found, _, body) = ask(addr, line, &headers).await;
        assert_eq!(
            (found, &body["error"]["code"]),
            (status, &Value::from(code)),
            "{line} {headers}"
        );
    }
    let own = host + "Origin: tauri://localhost\r\n";
    let (status, head, _) = ask(addr, "GET /api/status", &own).await;
    assert_eq!(status, 200);
    for header in [
        "access-control-allow-origin: tauri://localhost",
        "x-content-type-options: nosniff",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-store",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn every_change_is_pushed_and_the_end_is_told_before_the_stream_ends() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let addr = agent.handle.http().unwrap();
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = format!("GET /status/stream HTTP/1.1\r\nHost: {addr}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        readers.push(BufReader::new(stream).lines());
    }
    for reader in &mut readers {
        let first = event(reader, |_| true).await;
        assert_eq!(first["overlay_enabled"], true);
        assert_eq!(first["monitoring"], true);
    }
    agent.hub.send(Command::ToggleMonitoring).await.unwrap();
    for reader in &mut readers {
        let paused = event(reader, |status| status["status"] == "paused").await;
        assert_eq!(paused["monitoring"], false);
        // Stream readers do not block other requests.
        let (_, _, asked) = ask(addr, "GET /api/status", &format!("Host: {addr}\r\n")).await;
        assert_eq!(asked["seq"], paused["seq"]);
    }
    agent.stop().await;
    for reader in &mut readers {
        event(reader, |status| status["status"] == "stopping").await;
        while soon(reader.next_line()).await.unwrap().is_some() {}
    }
}

#[tokio::test]
async fn the_overlay_is_a_page_without_scripts_of_its_own_that_no_frame_may_hold() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let addr = agent.handle.http().unwrap();
    let host = format!("Host: {addr}\r\n");
    let (status, head, html) = text(addr, "GET /overlay?corner=top-left&scale=2", &host).await;
    assert_eq!(status, 200);
    for header in [
        "content-type: text/html",
        "content-security-policy: default-src 'none'; script-src 'self';",
        "frame-ancestors 'none'",
        "x-frame-options: deny",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    let files = html.split('"').filter(|word| word.starts_with("/assets/"));
    let own = format!("{host}Origin: http://{addr}\r\n");
    for file in files {
        let (status, head, _) = text(addr, &format!("GET {file}"), &own).await;
        assert_eq!(status, 200, "{file}");
        let kinds = ["content-type: text/", "content-type: image/png"];
        assert!(kinds.iter().any(|kind| head.contains(kind)), "{head}");
    }

    let port = addr.port();
    for (line, headers, code) in [
        ("GET /assets/nothing.js", host.clone(), "unknown_route"),
        ("GET /assets/../overlay", host.clone(), "unknown_route"),
        (
            "GET /assets/%2e%2e%2foverlay",
            host.clone(),
            "unknown_route",
        ),
        ("POST /overlay", host.clone(), "method_not_allowed"),
        (
            "GET /overlay",
            "Host: evil.com\r\n".to_owned(),
            "forbidden_host",
        ),
        (
            "GET /overlay",
            format!("{host}Origin: http://localhost:{port}\r\n"),
            "forbidden_origin",
        ),
        (
            "GET /status/stream",
            format!("{host}Origin: http://127.0.0.1:{}\r\n", port - 1),
            "forbidden_origin",
        ),
    ] {
        let (_, _, body) = ask(addr, line, &headers).await;
        assert_eq!(body["error"]["code"], code, "{line} {headers}");
    }
    agent.stop().await;
}

/// Not even with the right token does any method or path do anything but answer.
#[tokio::test]
async fn no_method_and_no_path_of_the_local_http_carries_out_a_command() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let addr = agent.handle.http().unwrap();
    let host = format!("Host: {addr}\r\n");
    let before = text(addr, "GET /api/status", &host).await.2;
    let token = std::fs::read_to_string(agent.handle.hub().token).unwrap();
    let right = format!("{host}Authorization: Bearer {}\r\n", token.trim());
    let served = [
        "/api/status",
        "/status/stream",
        "/overlay",
        "/healthz",
        "/metrics",
    ];
    let paths = [
        "/",
        "/quit",
        "/api/command",
        "/api/status/quit",
        "/api/status?command=quit",
        "/overlay?command=toggle_monitoring",
        "/healthz?token=x",
        "/../../etc/passwd",
        "//quit",
    ];
    let commands = ["quit", "toggle_monitoring", "hide_overlay", "open_settings"];
    let mut asked = 0;
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "get",
    ] {
        for path in served.into_iter().chain(paths) {
            let command = commands[asked % commands.len()];
            let status = knock(addr, &format!("{method} {path}"), &right, command).await;
            let route = path.split('?').next().unwrap();
            let expected = match (served.contains(&route), method) {
                _ if path.contains("token=") => 400,
                (true, "GET" | "HEAD") => 200,
                (true, _) => 405,
                (false, _) => 404,
            };
            assert_eq!(status, expected, "{method} {path}");
            asked += 1;
        }
    }
    assert_eq!(asked, 140);
    // Commands are carried out in order, so this one is the first.
    agent.hub.send(Command::OpenSettings).await.unwrap();
    let seen = agent.shell(|seen| seen.settings > 0).await;
    assert_eq!((seen.settings, seen.quits, seen.overlay.len()), (1, 0, 1));
    assert_eq!(text(addr, "GET /api/status", &host).await.2, before);
    agent.stop().await;
}

/// Sends a request with a command as its body; returns the status of the response.
async fn knock(addr: SocketAddr, line: &str, headers: &str, command: &str) -> u16 {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let body = format!(r#"{{"type":"command","command":"{command}"}}"#);
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\n{headers}Content-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // The stream of statuses has no end.
    let mut lines = BufReader::new(stream).lines();
    let first = soon(lines.next_line()).await.unwrap().expect("no answer");
    first[9..12].parse().unwrap()
}

type Lines = tokio::io::Lines<BufReader<TcpStream>>;

async fn event(lines: &mut Lines, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let line = soon(lines.next_line()).await.unwrap().expect("it ended");
        let status = line.strip_prefix("data: ").map(serde_json::from_str);
        if let Some(status) = status.map(Result::unwrap).filter(&is_it) {
            return status;
        }
    }
}
