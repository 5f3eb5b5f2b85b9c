//! Which requests get a socket, and how the others are refused, byte for byte.

use crate::support::{TestHub, raw, soon};
use proto::{ErrorBody, ErrorCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Status and error code of the answer; the code is `None` for an open socket.
async fn knock(hub: &TestHub, line: &str, headers: &str) -> (u16, Option<ErrorCode>) {
    let mut stream = TcpStream::connect(hub.addr).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\n{UPGRADE}{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 1024];
        let n = soon(stream.read(&mut part)).await.unwrap();
        bytes.extend(&part[..n]);
        if n == 0 || bytes.starts_with(b"HTTP/1.1 101 ") {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let status = text[9..12].parse().unwrap();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (
        status,
        serde_json::from_str::<ErrorBody>(body)
            .ok()
            .map(|body| body.error.code),
    )
}

#[tokio::test]
async fn the_matrix_of_hosts_origins_and_tokens_has_no_wrong_opening() {
    use ErrorCode::{ForbiddenHost, ForbiddenOrigin, Unauthorized};
    let port = |hub: &TestHub| hub.addr.port();
    let hosts = [
        ("127.0.0.1:PORT", true),
        ("localhost:PORT", true),
        ("[::1]:PORT", true),
        ("LOCALHOST:PORT", true),
        ("127.0.0.1", false),
        ("0.0.0.0:PORT", false),
        ("evil.com:PORT", false),
        ("localhost.:PORT", false),
        ("127.1:PORT", false),
        ("user@localhost:PORT", false),
        ("127.0.0.1:1", false),
    ];
    let origins = [
        (None, true),
        (Some("tauri://localhost"), true),
        (Some("http://tauri.localhost"), true),
        (Some("https://tauri.localhost"), true),
        (Some("null"), false),
        (Some("https://evil.com"), false),
        (Some("http://127.0.0.1:PORT"), false),
        (Some("http://localhost:5173"), false),
    ];
    let tokens = [(None, true), (Some("right"), true), (Some("wrong"), false)];
    let mut knocks = 0;
    for (token, token_ok) in tokens {
        // A new hub each time, because wrong tokens are throttled, which another test checks.
        for (host, host_ok) in hosts {
            let hub = TestHub::start().await;
            for (origin, origin_ok) in origins {
                let port = port(&hub).to_string();
                let mut headers = format!("Host: {host}\r\n");
                if let Some(origin) = origin {
                    headers += &format!("Origin: {origin}\r\n");
                }
                if let Some(token) = token {
                    let token = if token == "right" {
                        hub.token.expose()
                    } else {
                        token
                    };
                    headers += &format!("Authorization: Bearer {token}\r\n");
                }
                let (status, code) = knock(&hub, "GET /", &headers.replace("PORT", &port)).await;
                let expected = match (host_ok, origin_ok, token_ok) {
                    (false, _, _) => (403, Some(ForbiddenHost)),
                    (_, false, _) => (403, Some(ForbiddenOrigin)),
                    (_, _, false) => (401, Some(Unauthorized)),
                    (true, true, true) => (101, None),
                };
                assert_eq!((status, code), expected, "{host} {origin:?} {token:?}");
                knocks += 1;
            }
            hub.stop().await;
        }
    }
    assert_eq!(knocks, 264);
}

/// With everything else valid, only one method opens a socket, and no other has any effect.
#[tokio::test]
async fn no_method_and_no_path_does_anything_but_open_a_socket() {
    let mut hub = TestHub::start().await;
    let right = format!(
        "Host: {}\r\nAuthorization: Bearer {}\r\n",
        hub.addr,
        hub.token.expose()
    );
    let mut knocks = 0;
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "get",
    ] {
        for path in [
            "/",
            "/ws",
            "/api/status",
            "/quit",
            "/?command=quit",
            "/?token=x",
            "/../../etc/passwd",
            "*",
        ] {
            let (status, code) = knock(&hub, &format!("{method} {path}"), &right).await;
            let expected = match (method, path) {
                (_, "/?token=x") => (400, Some(ErrorCode::TokenInUrl)),
                ("GET", _) => (101, None),
                // A HEAD response has no body for the reason.
                ("HEAD", _) => (426, None),
                (..) => (426, Some(ErrorCode::BadRequest)),
            };
            let is_told = (status, code) == expected || (method == "HEAD" && status == expected.0);
            assert!(is_told, "{method} {path}: {status} {code:?}");
            knocks += 1;
        }
    }
    assert_eq!(knocks, 80);
    assert!(hub.commands.try_recv().is_err());
}

/// Every spelling of a wrong token goes through the one throttle.
#[tokio::test]
async fn no_disguise_gets_a_guess_around_the_throttle() {
    let hub = TestHub::start().await;
    let mut answers = [0_usize; 2];
    for n in 0..1_000_usize {
        let dress = match n % 5 {
            0 => format!("Authorization: Bearer {n:064x}\r\n"),
            1 => format!("authorization: bearer {n}\r\nX-Novelty: {n}\r\n"),
            2 => format!("Authorization: Basic {n}\r\n"),
            3 => format!("Authorization: Bearer {n}\r\nAuthorization: Bearer {n}\r\n"),
            _ => format!(
                "Authorization: Bearer {n}\r\nX-Forwarded-For: ::ffff:10.0.0.{}\r\n",
                n % 250
            ),
        };
        let host = format!("Host: {}\r\n", hub.addr);
        match knock(&hub, "GET /", &(host + &dress)).await {
            (401, Some(ErrorCode::Unauthorized)) => answers[0] += 1,
            (429, Some(ErrorCode::RateLimited)) => answers[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    // Ten at once, and one more for each second of the test; far fewer than a thousand.
    assert!(answers[0] < 100, "{answers:?}");
    let right = format!(
        "Host: {}\r\nAuthorization: Bearer {}\r\n",
        hub.addr,
        hub.token.expose()
    );
    assert_eq!(
        knock(&hub, "GET /", &right).await.0,
        101,
        "the owner is not locked out"
    );
}

#[tokio::test]
async fn no_compression_is_agreed_on() {
    let hub = TestHub::start().await;
    let mut stream = TcpStream::connect(hub.addr).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\n{UPGRADE}Host: {}\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        hub.addr
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

#[tokio::test]
async fn a_doubled_host_or_origin_is_refused() {
    let hub = TestHub::start().await;
    let host = format!("Host: {}\r\n", hub.addr);
    let twice = format!("{host}{host}");
    assert_eq!(knock(&hub, "GET /", &twice).await.0, 403);
    let origin = "Origin: tauri://localhost\r\n";
    let (status, code) = knock(&hub, "GET /", &format!("{host}{origin}{origin}")).await;
    assert_eq!((status, code), (403, Some(ErrorCode::ForbiddenOrigin)));
    let (status, code) = knock(&hub, "GET http://evil.com/", &host).await;
    assert_eq!((status, code), (403, Some(ErrorCode::ForbiddenHost)));
}

#[tokio::test]
async fn a_token_in_the_url_is_refused_whatever_else_is_right() {
    let hub = TestHub::start().await;
    let headers = format!("Host: {}\r\n", hub.addr);
    let line = format!("GET /?token={}", hub.token.expose());
    let (status, code) = knock(&hub, &line, &headers).await;
    assert_eq!((status, code), (400, Some(ErrorCode::TokenInUrl)));
}

#[tokio::test]
async fn a_plain_request_is_told_what_this_is() {
    let hub = TestHub::start().await;
    for method in ["GET", "POST", "OPTIONS"] {
        let request = format!(
            "{method} /api/status HTTP/1.1\r\nHost: {}\r\n\r\n",
            hub.addr
        );
        let said = raw(hub.addr, &request).await;
        assert!(said.starts_with("HTTP/1.1 426 "), "{said}");
        assert!(
            said.to_ascii_lowercase().contains("upgrade: websocket"),
            "{said}"
        );
        assert!(said.contains("hearth status"), "{said}");
        assert!(
            !said.to_ascii_lowercase().contains("access-control"),
            "{said}"
        );
    }
    let page = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.com\r\n\r\n",
        hub.addr
    );
    assert!(raw(hub.addr, &page).await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn wrong_tokens_are_throttled_and_bare_readers_are_not() {
    let hub = TestHub::start().await;
    let host = format!("Host: {}\r\n", hub.addr);
    let wrong = format!("{host}Authorization: Bearer nope\r\n");
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(knock(&hub, "GET /", &wrong).await);
    }
    assert_eq!(codes[0], (401, Some(ErrorCode::Unauthorized)));
    assert!(
        codes.contains(&(429, Some(ErrorCode::RateLimited))),
        "{codes:?}"
    );
    assert_eq!(knock(&hub, "GET /", &host).await.0, 101);
}
