//! An assistant of the original protocol, played by a test: over a WebSocket and over HTTP.

use std::{net::SocketAddr, time::Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::Ports;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use crate::support::soon;

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

pub(crate) fn sockets(addr: SocketAddr) -> Ports {
    Ports {
        sockets: vec![addr],
        http: Vec::new(),
    }
}

pub(crate) async fn assistant(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = soon(listener.accept()).await.unwrap();
    soon(accept_async(stream)).await.unwrap()
}

pub(crate) async fn say(peer: &mut WebSocketStream<TcpStream>, data: &Value) {
    let status = json!({ "type": "status", "data": data });
    soon(peer.send(Message::text(status.to_string())))
        .await
        .unwrap();
}

pub(crate) async fn command(peer: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = soon(peer.next()).await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Returns the next request, its path and its time.
pub(crate) async fn requested(listener: &TcpListener) -> (BufReader<TcpStream>, String, Instant) {
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let (mut reader, mut line) = (BufReader::new(stream), String::new());
    soon(reader.read_line(&mut line)).await.unwrap();
    let path = line.split(' ').nth(1).unwrap().to_owned();
    while line != "\r\n" {
        line.clear();
        soon(reader.read_line(&mut line)).await.unwrap();
    }
    (reader, path, Instant::now())
}

pub(crate) async fn answer(
    mut reader: BufReader<TcpStream>,
    head: &str,
    body: &str,
) -> BufReader<TcpStream> {
    let text = format!("HTTP/1.1 {head}\r\n\r\n{body}");
    soon(reader.write_all(text.as_bytes())).await.unwrap();
    reader
}
