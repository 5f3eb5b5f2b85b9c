//! A raw HTTP response: its bytes and their chunks.

use hearth_tests::{process::PATIENCE, test_bed::TestBed};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

/// A response, read chunk by chunk.
pub(crate) struct Wire {
    pub(crate) head: String,
    socket: BufReader<TcpStream>,
}

impl Wire {
    pub(crate) async fn post(bed: &TestBed, path: &str, body: &Value) -> Self {
        let body = body.to_string();
        let (host, key) = (bed.address, &bed.requester);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = TcpStream::connect(bed.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let (mut head, mut socket) = (String::new(), BufReader::new(socket));
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                socket.read_line(&mut head).await.unwrap(),
                0,
                "no head: {head}"
            );
        }
        let head = head.to_lowercase();
        Self { head, socket }
    }

    pub(crate) fn has(&self, header: &str) {
        assert!(
            self.head.contains(&format!("\r\n{header}\r\n")),
            "no {header} in {}",
            self.head
        );
    }

    /// The next chunk; `None` after the last. Panics if the connection ends early.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        let read = self.socket.read_line(&mut size);
        timeout(PATIENCE, read).await.unwrap().unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).expect("the body has a proper end");
        let mut chunk = vec![0; size + 2];
        self.socket.read_exact(&mut chunk).await.unwrap();
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).expect("no character is split over two chunks"))
    }

    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.chunk().await {
            chunks.push(chunk);
        }
        chunks
    }
}

/// A request body for a route.
pub(crate) fn question(path: &str, stream: bool) -> Value {
    let mut body = json!({ "model": "tiny", "stream": stream });
    match path {
        "/api/generate" | "/v1/completions" => body["prompt"] = json!("x"),
        "/v1/responses" => body["input"] = json!("x"),
        _ => body["messages"] = json!([{ "role": "user", "content": "x" }]),
    }
    if path == "/v1/messages" {
        body["max_tokens"] = json!(64);
    }
    body
}
