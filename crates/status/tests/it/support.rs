//! A running hub on a free port, and clients that keep what a user would see.

use std::{future::Future, net::SocketAddr, path::Path, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::{
    Approvals, HubAddress, Limits, LocalToken, Request, StatusHub, StatusServer, World,
    bind_loopback, private_file,
};
use proto::{
    Timestamp,
    status::{ServerMessage, Status},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use tokio_util::sync::CancellationToken;

/// Timeout of every wait; nothing here takes that long, but a failing test must end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it took too long")
}

pub(crate) struct TestHub {
    pub(crate) hub: StatusHub,
    pub(crate) addr: SocketAddr,
    pub(crate) token: LocalToken,
    pub(crate) commands: mpsc::Receiver<Request>,
    pub(crate) connected: watch::Receiver<usize>,
    pub(crate) stop: CancellationToken,
    served: JoinHandle<()>,
}

impl TestHub {
    /// The time of its clock.
    pub(crate) const NOW: i64 = 1_790_000_000_000;

    pub(crate) async fn start() -> Self {
        Self::with(Limits::default(), 0).await
    }

    pub(crate) async fn with(limits: Limits, port: u16) -> Self {
        Self::asking(limits, port, None).await
    }

    /// A hub with an owner who can be asked.
    pub(crate) async fn asking(limits: Limits, port: u16, owner: Option<Approvals>) -> Self {
        let bound = bind_loopback(&[port]).await.unwrap();
        let hub = StatusHub::default();
        let token = LocalToken::new([9; 32]);
        let (sender, commands) = mpsc::channel(16);
        let world = World {
            clock: Box::new(|| Timestamp(Self::NOW)),
            ..World::default()
        };
        let server = StatusServer::new(hub.clone(), token.clone(), sender)
            .within(world)
            .limit(limits);
        let server = match owner {
            Some(owner) => server.ask_owner(owner),
            None => server,
        };
        let connected = server.connected();
        let stop = CancellationToken::new();
        let serving = server.serve(bound.listener, stop.clone());
        let served = tokio::spawn(async { serving.await.unwrap() });
        Self {
            hub,
            addr: bound.addr,
            token,
            commands,
            connected,
            stop,
            served,
        }
    }

    pub(crate) async fn reader(&self) -> Client {
        Client::open(self.addr, None).await
    }

    pub(crate) async fn commander(&self) -> Client {
        Client::open(self.addr, Some(self.token.expose())).await
    }

    /// Publishes the hub in this folder with its token, as the programs of its owner find it.
    pub(crate) fn published(&self, home: &Path) -> HubAddress {
        let file = LocalToken::path_in(home);
        private_file::write(&file, self.token.expose().as_bytes()).unwrap();
        HubAddress::new(self.addr, home)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon(self.served).await.unwrap();
    }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) last: Option<Status>,
    pub(crate) statuses: usize,
}

impl Client {
    pub(crate) async fn open(addr: SocketAddr, token: Option<&str>) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap(), addr, token).await
    }

    pub(crate) async fn narrow(addr: SocketAddr) -> Self {
        Self::over(narrow(addr).await, addr, None).await
    }

    pub(crate) async fn over(stream: TcpStream, addr: SocketAddr, token: Option<&str>) -> Self {
        let mut request = format!("ws://{addr}/").into_client_request().unwrap();
        if let Some(token) = token {
            request
                .headers_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let (socket, _) = soon(client_async(request, stream)).await.unwrap();
        Self {
            socket,
            last: None,
            statuses: 0,
        }
    }

    pub(crate) async fn say(&mut self, text: impl Into<String>) {
        soon(self.socket.send(Message::text(text.into())))
            .await
            .unwrap();
    }

    /// The next message; `None` once the hub closed.
    pub(crate) async fn next(&mut self) -> Option<ServerMessage> {
        loop {
            match soon(self.socket.next()).await?.ok()? {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).unwrap();
                    if let ServerMessage::Status { data } = &message {
                        self.last = Some(data.clone());
                        self.statuses += 1;
                    }
                    return Some(message);
                }
                Message::Close(_) => return None,
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// The next message that is not a status.
    pub(crate) async fn answer(&mut self) -> ServerMessage {
        loop {
            let message = self.next().await.expect("the hub closed");
            if !matches!(message, ServerMessage::Status { .. }) {
                return message;
            }
        }
    }

    pub(crate) async fn until(&mut self, is_it: impl Fn(&Status) -> bool) -> Status {
        loop {
            if let Some(last) = self.last.as_ref().filter(|last| is_it(last)) {
                return last.clone();
            }
            let came = self.next().await;
            assert!(came.is_some(), "the hub closed; last seen: {:?}", self.last);
        }
    }

    pub(crate) async fn is_open(&mut self) -> bool {
        self.say(r#"{"type":"ping"}"#).await;
        self.answer().await == ServerMessage::Pong
    }
}

/// A connection with a small receive buffer, so that not reading blocks the hub soon.
pub(crate) async fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(addr).await.unwrap()
}

/// Sends bytes and reads until the peer closes.
pub(crate) async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}
