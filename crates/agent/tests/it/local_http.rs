//! The local HTTP server, byte for byte.

use std::net::SocketAddr;

use serde_json::Value;
use tests::scripted_ollama::ScriptedOllama;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Running, settings, soon, with_engine};

async fn ask(addr: SocketAddr, line: &str, headers: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    (
        status,
        head.to_ascii_lowercase(),
        serde_json::from_str(body).unwrap_or_default(),
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

    for (line, headers, status, code) in [
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
    assert_eq!(ask(addr, "GET /api/status", &own).await.0, 200);
    agent.stop().await;
}
