//! Ambiguous, endless and slow requests, sent over plain sockets.

use bytes::Bytes;
use http::{Method, StatusCode};
use queue::Scope;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{in_time, server::Server};

/// A smuggled second request; its response is unlike all others.
const SECOND: &str = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
pub(crate) const READY: &str = r#"{"status":"ready"}"#;

/// Sends these bytes and then the end of the stream, and returns everything that is answered.
async fn answered(server: &Server, said: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    // The relay may close the connection before everything is sent.
    let _ = socket.write_all(said).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = in_time(socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests that two servers in a row may split differently, each with a part that one of them
/// would take for a second request.
fn ambiguous() -> Vec<(&'static str, String)> {
    let length = SECOND.len();
    let with = |head: &str, body: &str| {
        format!("POST /api/login/ HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{body}")
    };
    let no_chunk = format!("0\r\n\r\n{SECOND}");
    let all = no_chunk.len();
    let te = "transfer-encoding: chunked";
    let mut table = vec![
        (
            "CL then TE",
            with(&format!("content-length: {all}\r\n{te}"), &no_chunk),
        ),
        (
            "TE then CL",
            with(&format!("{te}\r\ncontent-length: {all}"), &no_chunk),
        ),
        (
            "CL 0 and TE",
            with(&format!("content-length: 0\r\n{te}"), &no_chunk),
        ),
        ("TE alone", with(te, &no_chunk)),
        (
            "two lengths",
            with(
                &format!("content-length: 0\r\ncontent-length: {length}"),
                SECOND,
            ),
        ),
        (
            "two lengths, other order",
            with(
                &format!("content-length: {length}\r\ncontent-length: 0"),
                SECOND,
            ),
        ),
        (
            "a list of lengths",
            with(&format!("content-length: 0, {length}"), SECOND),
        ),
        ("a signed length", with("content-length: +0", SECOND)),
        ("a negative length", with("content-length: -1", SECOND)),
        ("a hexadecimal length", with("content-length: 0x0", SECOND)),
        ("a length with a point", with("content-length: 0.0", SECOND)),
        ("a length of nothing", with("content-length:", SECOND)),
        ("a length of words", with("content-length: ten", SECOND)),
        ("a length with a space", with("content-length: 0 0", SECOND)),
        (
            "a length beyond counting",
            with("content-length: 99999999999999999999", SECOND),
        ),
        (
            "a length with a zero byte",
            with("content-length: 0\0", SECOND),
        ),
        (
            "a folded length",
            with(&format!("content-length: 0\r\n {length}"), SECOND),
        ),
        (
            "a folded header",
            with("x-a: b\r\n\tc: d\r\ncontent-length: 0", SECOND),
        ),
        (
            "a folded first header",
            format!("POST /api/login/ HTTP/1.1\r\n host: x\r\n\r\n{SECOND}"),
        ),
        (
            "a space before the colon",
            with(&format!("content-length : {length}"), SECOND),
        ),
        (
            "a tab before the colon",
            with(
                &format!("transfer-encoding\t: chunked\r\ncontent-length: {all}"),
                &no_chunk,
            ),
        ),
        ("no colon", with("content-length 0", SECOND)),
        ("no name", with(": 0", SECOND)),
        ("a name of bytes", with("content\u{e9}length: 0", SECOND)),
        (
            "a bare carriage return",
            with("x-a: b\rcontent-length: 0", SECOND),
        ),
        ("a zero byte in a value", with("x-a: b\0c", SECOND)),
        (
            "TE that is not last",
            with("transfer-encoding: chunked, identity", &no_chunk),
        ),
        ("TE identity", with("transfer-encoding: identity", SECOND)),
        ("TE gzip", with("transfer-encoding: gzip", SECOND)),
        ("TE unknown", with("transfer-encoding: xchunked", &no_chunk)),
        (
            "TE quoted",
            with("transfer-encoding: \"chunked\"", &no_chunk),
        ),
        (
            "TE twice",
            with(&format!("{te}\r\ntransfer-encoding: identity"), &no_chunk),
        ),
        (
            "TE in HTTP/1.0",
            format!("POST /api/login/ HTTP/1.0\r\nhost: x\r\n{te}\r\n\r\n{no_chunk}"),
        ),
        (
            "TE with a vertical tab",
            with("transfer-encoding: \u{b}chunked", &no_chunk),
        ),
        (
            "a chunk of a bad size",
            with(te, &format!("x\r\n\r\n{no_chunk}")),
        ),
        (
            "a chunk of a signed size",
            with(te, &format!("-1\r\n\r\n{no_chunk}")),
        ),
        ("a chunk of 0x", with(te, &format!("0x0\r\n\r\n{SECOND}"))),
        (
            "a chunk beyond counting",
            with(te, &format!("fffffffffffffffff\r\n{no_chunk}")),
        ),
        (
            "a chunk longer than it says",
            with(te, &format!("1\r\nxy\r\n{no_chunk}")),
        ),
        (
            "a chunk extension with a line feed",
            with(te, &format!("1;a=\nb\r\nx\r\n{no_chunk}")),
        ),
        (
            "an endless chunk extension",
            with(te, &format!("1;{}\r\nx\r\n{no_chunk}", "a".repeat(40_000))),
        ),
        (
            "chunks without carriage returns",
            with(te, &format!("1\nx\n0\n\n{SECOND}")),
        ),
        (
            "a trailer that is a header",
            with(
                te,
                &format!("0\r\ncontent-length: {length}\r\n\r\n{SECOND}"),
            ),
        ),
        (
            "an endless trailer",
            with(
                te,
                &format!("0\r\nx: {}\r\n\r\n{SECOND}", "a".repeat(40_000)),
            ),
        ),
        (
            "a target with a line",
            format!("POST /api/login/\rx HTTP/1.1\r\nhost: x\r\n\r\n{SECOND}"),
        ),
        (
            "a version that is not",
            format!("POST /api/login/ HTTP/1.1x\r\nhost: x\r\n\r\n{SECOND}"),
        ),
        (
            "HTTP/2 by surprise",
            format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SECOND}"),
        ),
        (
            "a body on a GET",
            format!(
                "GET /api/tags HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{SECOND}"
            ),
        ),
        (
            "a chunked GET",
            format!("GET /api/tags HTTP/1.1\r\nhost: x\r\n{te}\r\n\r\n{no_chunk}"),
        ),
    ];
    table.push((
        "the same length twice",
        with(
            &format!("content-length: {length}\r\ncontent-length: {length}"),
            SECOND,
        ),
    ));
    table
}

#[tokio::test]
async fn no_ambiguous_request_is_answered_as_two() {
    let server = Server::start().await;
    let alone = answered(&server, SECOND.as_bytes()).await;
    assert!(
        alone.ends_with(READY),
        "what would show a second answer: {alone}"
    );
    let table = ambiguous();
    assert!(table.len() >= 40);
    for (what, said) in table {
        let answer = answered(&server, said.as_bytes()).await;
        assert!(!answer.contains(READY), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
        let status = answer.get(9..12).unwrap_or("400");
        assert!(status.starts_with('4'), "{what}: {answer}");
    }
    assert!(answered(&server, SECOND.as_bytes()).await.ends_with(READY));
}

#[tokio::test]
async fn chunks_end_their_connection_with_or_without_a_length_beside_them() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Read]).await;
    let ask = |headers: &str| {
        format!(
            "POST /api/show HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{headers}\r\n\r\n\
             b\r\n{{\"model\":1}}\r\n0\r\n\r\n{SECOND}"
        )
    };
    for headers in [
        "transfer-encoding: chunked",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let answer = answered(&server, ask(headers).as_bytes()).await;
        assert!(
            answer.contains("\r\nconnection: close\r\n"),
            "{headers}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{headers}: {answer}"
        );
    }
    let plain = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n{SECOND}");
    let answer = answered(&server, plain.as_bytes()).await;
    assert_eq!(
        answer.matches("HTTP/1.1 200 ").count(),
        2,
        "others go on: {answer}"
    );
}

#[tokio::test]
async fn json_that_is_nested_without_end_is_refused() {
    let server = Server::start().await;
    let all = [Scope::Enqueue, Scope::Read, Scope::Work];
    let client = server.client("default", &all).await;
    let deep = "[".repeat(100_000);
    let keyed = r#"{"a":"#.repeat(100_000);
    let inside = |name: &str| format!(r#"{{"model":"m","{name}":{deep}"#);
    for path in [
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
        "/api/show",
        "/api/jobs",
        "/api/ollama/request",
        "/api/ollama/response",
        "/api/bridge/ffffffff-ffff-4fff-bfff-ffffffffffff/response",
        "/api/bridge/ffffffff-ffff-4fff-bfff-ffffffffffff/provider-status",
        "/api/queries/",
        "/api/logs/",
        "/api/login/",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/batches",
        "/api/worker/v1/poll",
    ] {
        for body in [
            &deep,
            &keyed,
            &inside("messages"),
            &inside("prompt"),
            &inside("body"),
        ] {
            let reply = client.post(path, Bytes::from(body.clone())).await;
            let status = reply.status.as_u16();
            assert!((400..500).contains(&status), "{path}: {status}");
        }
    }
    assert_eq!(client.get("/api/tags").await.status, StatusCode::OK);
}

#[tokio::test]
async fn compressed_requests_are_refused_on_every_route_that_reads_one() {
    let server = Server::start().await;
    let all = [Scope::Enqueue, Scope::Read, Scope::Work];
    let client = server.client("default", &all).await;
    for encoding in ["gzip", "br", "deflate", "zstd", "identity", ""] {
        for path in [
            "/api/chat",
            "/v1/chat/completions",
            "/api/jobs",
            "/api/login/",
            "/api/show",
        ] {
            let headers = [("content-encoding", encoding)];
            let reply = client.send_with(Method::POST, path, &headers, "{}").await;
            assert_eq!(
                reply.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{path} {encoding}"
            );
        }
    }
}

#[tokio::test]
async fn whoever_was_refused_before_his_body_was_read_is_told_that_the_connection_ends() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Enqueue]).await;
    for (target, header, status) in [
        ("/api/chat?key=x", "", "400"),
        ("/api/chat", "x-hearth-deadline-ms: soon\r\n", "400"),
        ("/api/jobs/x", "", "405"),
        ("/nowhere", "", "404"),
    ] {
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{header}content-length: 100000\r\n\r\n"
        );
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut told = [0; 2048];
        let read = in_time(socket.read(&mut told)).await.unwrap();
        let told = String::from_utf8_lossy(&told[..read]);
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
        assert!(told.contains("connection: close"), "{target}: {told}");
    }
    // After a request without a body, or with a body that was read in full, the connection stays
    // open.
    let work = server.key("default", &[Scope::Work]).await;
    let said = format!(
        "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\nPOST /api/chat HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {key}\r\ncontent-length: 2\r\n\r\n{{}}POST /api/queries/claim_next/ HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {work}\r\ncontent-length: 2\r\n\r\n{{}}{SECOND}"
    );
    let told = answered(&server, said.as_bytes()).await;
    assert!(
        told.contains(READY) && !told.contains("connection: close"),
        "{told}"
    );
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_whether_to_send_is_not_invited_to_send_too_much() {
    let server = Server::start().await;
    let said = "POST /api/login/ HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 200000\r\n\r\n";
    let told = answered(&server, said.as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 413 "), "{told}");
}

#[tokio::test]
async fn a_slash_too_many_changes_nothing_for_pages_and_clients() {
    let server = Server::start().await;
    let client = server.requester().await;
    for path in ["//api//tags", "/api/tags/", "/api/ollama//api/tags/"] {
        assert_eq!(client.get(path).await.status, StatusCode::OK, "{path}");
    }
    let asks = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
    ];
    let nobody = server.nobody();
    let allowed = nobody.send_with(Method::OPTIONS, "//api/chat", &asks, "");
    assert_eq!(allowed.await.status, StatusCode::NO_CONTENT);
    let nowhere = client.get("//nowhere//at/all/").await;
    assert_eq!(nowhere.header("x-hearth-error"), "unknown_route");
}
