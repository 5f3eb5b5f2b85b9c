//! Status readers that keep every byte they receive.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::support::soon;

/// One reader, with everything that it received.
pub(crate) struct Reader {
    heard: watch::Receiver<String>,
    reading: JoinHandle<()>,
}

impl Reader {
    /// Waits until it has received this text.
    pub(crate) async fn until(&mut self, what: &str) {
        let heard = self.heard.wait_for(|heard| heard.contains(what));
        soon(heard).await.unwrap();
    }

    /// Everything that it received, once the agent has stopped.
    pub(crate) async fn all(self) -> String {
        soon(self.reading).await.unwrap();
        self.heard.borrow().clone()
    }
}

/// Follows the hub until it closes: in the legacy mode, or with these subscriptions.
pub(crate) async fn follow(hub: SocketAddr, topics: Option<&[&str]>) -> Reader {
    let mut request = format!("ws://{hub}/").into_client_request().unwrap();
    if topics.is_some() {
        let wanted = "hearth.status.v1".parse().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", wanted);
    }
    let (mut socket, _) = soon(connect_async(request)).await.unwrap();
    if let Some(topics) = topics {
        let identify = json!({ "type": "identify", "version": 1, "subscriptions": topics });
        soon(socket.send(Message::text(identify.to_string())))
            .await
            .unwrap();
    }
    let (sender, heard) = watch::channel(String::new());
    let reading = tokio::spawn(async move {
        while let Some(Ok(Message::Text(text))) = socket.next().await {
            sender.send_modify(|heard| *heard += &text);
        }
    });
    Reader { heard, reading }
}

/// Follows the events of the local HTTP server until it closes.
pub(crate) async fn events(http: SocketAddr) -> Reader {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let request = format!("GET /status/stream HTTP/1.1\r\nHost: {http}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (sender, heard) = watch::channel(String::new());
    let reading = tokio::spawn(async move {
        let mut part = Vec::new();
        while stream.read_buf(&mut part).await.is_ok_and(|n| n > 0) {
            sender.send_modify(|heard| *heard += &String::from_utf8_lossy(&part));
            part.clear();
        }
    });
    Reader { heard, reading }
}
