//! Limits of heads and bodies, and requests in another protocol.

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{client::Client, doors::SCOPES, in_time, server::Server};

#[tokio::test]
async fn too_large_a_body_is_refused_before_it_is_read() {
    let server = Server::start().await;
    let key = server.key("default", &SCOPES).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let announced = proto::limits::BODY_MAX + 1;
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {announced}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = first_bytes(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("x-hearth-error: too_large"), "{answer}");

    // A body without a length is cut off at the limit.
    let client = Client::new(server.base(), Some(key));
    let large = Bytes::from(vec![b' '; proto::limits::CONTROL_BODY_MAX + 1]);
    let path = format!("/api/worker/v1/jobs/{}/1/end", "0".repeat(32));
    let reply = client.post(&path, large).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
}

async fn first_bytes(socket: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let read = in_time(socket.read(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn a_chunked_body_is_cut_off_at_the_limit() {
    let server = Server::start().await;
    let key = server.key("default", &SCOPES).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/worker/v1/jobs/{}/1/end HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n",
        "0".repeat(32)
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b' '; proto::limits::CONTROL_BODY_MAX + 1];
    let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
    // The relay may close the connection before everything is sent; its response arrives anyway.
    let _ = socket.write_all(&framed).await;
    let answer = first_bytes(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn heads_that_are_too_large_and_compressed_bodies_are_refused() {
    let server = Server::start().await;
    let client = server.requester().await;
    let many: Vec<(String, &str)> = (0..80).map(|n| (format!("x-{n}"), "y")).collect();
    let many: Vec<_> = many
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let reply = client.send_with(Method::GET, "/healthz", &many, "").await;
    assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let long = "y".repeat(20 * 1024);
    let reply = client
        .send_with(Method::GET, "/healthz", &[("x-long", &long)], "")
        .await;
    assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let reply = client.get(&format!("/healthz?{}", "y".repeat(5000))).await;
    assert_eq!(reply.status, StatusCode::URI_TOO_LONG);
    let gzip = [("content-encoding", "gzip")];
    let reply = client
        .send_with(Method::POST, "/api/chat", &gzip, "x")
        .await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_flood_of_http_2_streams_is_refused_at_its_first_bytes() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1_u32..20_001).step_by(2) {
        // HEADERS with "GET / http", ended at once by RST_STREAM.
        flood.extend(b"\0\0\x03\x01\x05");
        flood.extend(stream.to_be_bytes());
        flood.extend(b"\x82\x84\x86\0\0\x04\x03\0");
        flood.extend(stream.to_be_bytes());
        flood.extend(8_u32.to_be_bytes());
    }
    // The relay closes the connection before it has read everything.
    let _ = socket.write_all(&flood).await;
    let mut answer = Vec::new();
    let _ = in_time(socket.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.len() < 1_024, "{} bytes", answer.len());
    assert!(!answer.contains(" 200 "), "{answer}");
    assert_eq!(server.nobody().get("/healthz").await.status, StatusCode::OK);
}
