//! A scripted relay over real sockets: WebSocket and HTTP.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::{
    JobId, LeaseToken, ModelName, Op,
    worker::{DRAIN_HEADER, Frame, FrameKind, LeaseHead, RelayMessage, SUBPROTOCOL, WorkerMessage},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// How the relay answers an upgrade.
#[derive(Debug, Clone)]
pub(crate) enum Upgrade {
    Accept,
    Refuse(u16, &'static str, Option<u32>),
    /// Accepts, and closes the connection before the first message.
    Break,
}

#[derive(Debug)]
struct Shared {
    upgrade: Mutex<Upgrade>,
    links: mpsc::Sender<Link>,
    upgrades: mpsc::Sender<HeaderMap>,
    posts: mpsc::Sender<Post>,
}

/// One HTTP request of the worker, waiting for its response.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) body: Bytes,
    answer: oneshot::Sender<Response>,
}

impl Post {
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Answers a poll at once, as a relay does while it shuts down.
    pub(crate) fn drain(self) {
        let mark = [(DRAIN_HEADER, "1")];
        drop(
            self.answer
                .send((StatusCode::NO_CONTENT, mark).into_response()),
        );
    }

    pub(crate) fn answer(self, status: u16, body: impl Into<String>) {
        let status = StatusCode::from_u16(status).unwrap();
        // Nobody waits for the response to an abandoned poll.
        drop(self.answer.send((status, body.into()).into_response()));
    }
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    links: mpsc::Receiver<Link>,
    pub(crate) upgrades: mpsc::Receiver<HeaderMap>,
    posts: mpsc::Receiver<Post>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to_links, links) = mpsc::channel(100);
        let (to_upgrades, upgrades) = mpsc::channel(100);
        let (to_posts, posts) = mpsc::channel(100);
        let shared = Arc::new(Shared {
            upgrade: Mutex::new(Upgrade::Accept),
            links: to_links,
            upgrades: to_upgrades,
            posts: to_posts,
        });
        let app = Router::new()
            .fallback(serve)
            .with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            shared,
            links,
            upgrades,
            posts,
            _tasks: tasks,
        }
    }

    pub(crate) fn set_upgrade(&self, upgrade: Upgrade) {
        *self.shared.upgrade.lock().unwrap() = upgrade;
    }

    /// Returns the next WebSocket, before its first message.
    pub(crate) async fn link(&mut self) -> Link {
        timeout(BOUND, self.links.recv()).await.unwrap().unwrap()
    }

    /// Returns the next WebSocket after its greeting.
    pub(crate) async fn greeted(&mut self) -> (Link, Hello) {
        let mut link = self.link().await;
        let hello = link.hello().await;
        link.welcome().await;
        (link, hello)
    }

    /// Returns the next HTTP request.
    pub(crate) async fn post(&mut self) -> Post {
        timeout(BOUND, self.posts.recv()).await.unwrap().unwrap()
    }

    /// Returns the next connection of either kind.
    pub(crate) async fn link_or_post(&mut self) -> Result<Link, Post> {
        let first = async {
            tokio::select! {
                Some(link) = self.links.recv() => Ok(link),
                Some(post) = self.posts.recv() => Err(post),
            }
        };
        timeout(BOUND, first).await.unwrap()
    }

    /// Returns the next request whose path ends with `end`; polls before it are held for ever.
    pub(crate) async fn post_to(&mut self, end: &str, held: &mut Vec<Post>) -> Post {
        loop {
            let post = self.post().await;
            if post.path.contains(end) {
                return post;
            }
            held.push(post);
        }
    }

    pub(crate) async fn upgrade(&mut self) -> HeaderMap {
        timeout(BOUND, self.upgrades.recv()).await.unwrap().unwrap()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if request.method() == Method::GET {
        assert_eq!(request.uri().path(), "/api/worker/v1");
        shared
            .upgrades
            .send(request.headers().clone())
            .await
            .unwrap();
        let upgrade = shared.upgrade.lock().unwrap().clone();
        if let Upgrade::Refuse(status, body, retry_after) = upgrade {
            let mut answer = (StatusCode::from_u16(status).unwrap(), body).into_response();
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert("retry-after", seconds.into());
            }
            return answer;
        }
        let key = request.headers()["sec-websocket-key"].as_bytes();
        let answer = [
            ("connection", "Upgrade".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("sec-websocket-accept", derive_accept_key(key)),
            ("sec-websocket-protocol", SUBPROTOCOL.to_owned()),
        ];
        let breaks = matches!(upgrade, Upgrade::Break);
        let upgraded = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let io = TokioIo::new(upgraded.await.unwrap());
            if !breaks {
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                shared.links.send(Link { socket }).await.unwrap();
            }
        });
        return (StatusCode::SWITCHING_PROTOCOLS, answer).into_response();
    }
    let path = request.uri().to_string();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX)
        .await
        .unwrap();
    let (answer, answered) = oneshot::channel();
    let post = Post { path, body, answer };
    if shared.posts.send(post).await.is_err() {
        return StatusCode::GONE.into_response();
    }
    // If the test dropped the sender, the connection is held.
    match answered.await {
        Ok(answer) => answer,
        Err(_) => std::future::pending().await,
    }
}

#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) report: proto::WorkerReport,
    pub(crate) held: Vec<LeaseToken>,
}

/// The relay's side of one WebSocket.
#[derive(Debug)]
pub(crate) struct Link {
    socket: WebSocketStream<TokioIo<Upgraded>>,
}

/// A message of the worker, other than a ping.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(WorkerMessage),
    Line(LeaseToken, u64, String),
    Closed(Option<u16>),
}

impl Link {
    pub(crate) async fn hear(&mut self) -> Heard {
        let mut parts: Vec<u8> = Vec::new();
        loop {
            let message = timeout(BOUND, self.socket.next())
                .await
                .expect("the worker is silent");
            match message {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Message(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Binary(bytes))) => {
                    let frame = Frame::decode(&bytes).unwrap();
                    assert_eq!(frame.kind, FrameKind::Line);
                    parts.extend(&frame.payload.0);
                    if !frame.more {
                        let line = String::from_utf8(parts).unwrap();
                        return Heard::Line(frame.token, frame.n, line);
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Err(_)) | None => return Heard::Closed(None),
            }
        }
    }

    /// Returns the next message that is not about the engine or the capacity.
    pub(crate) async fn hear_of_job(&mut self) -> Heard {
        loop {
            match self.hear().await {
                Heard::Message(
                    WorkerMessage::Report { .. }
                    | WorkerMessage::Capacity { .. }
                    | WorkerMessage::Extend { .. },
                ) => {}
                heard => return heard,
            }
        }
    }

    pub(crate) async fn line(&mut self) -> (u64, String) {
        match self.hear_of_job().await {
            Heard::Line(_, n, line) => (n, line),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn capacity(&mut self) -> u32 {
        loop {
            if let Heard::Message(WorkerMessage::Capacity { slots }) = self.hear().await {
                return slots;
            }
        }
    }

    pub(crate) async fn until_capacity(&mut self, wanted: u32) {
        while self.capacity().await != wanted {}
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.hear().await {
            Heard::Message(WorkerMessage::Hello { report, held, .. }) => Hello { report, held },
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn say(&mut self, message: &RelayMessage) {
        let text = serde_json::to_string(message).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn welcome(&mut self) {
        self.say(&RelayMessage::Welcome {
            version: "1".into(),
            lease_ms: 60_000,
            heartbeat_ms: 15_000,
        })
        .await;
    }

    pub(crate) async fn lease(&mut self, token: LeaseToken, body: &str) {
        self.say(&RelayMessage::Lease(head(token, body.len())))
            .await;
        self.body(token, body).await;
    }

    pub(crate) async fn lease_for(&mut self, op: Op, token: LeaseToken, body: &str) {
        let fields: serde_json::Value = serde_json::from_str(body).unwrap();
        let model = fields["model"].as_str().or(fields["source"].as_str());
        let head = LeaseHead {
            op,
            model: ModelName::new(model.unwrap()).unwrap(),
            ..head(token, body.len())
        };
        self.say(&RelayMessage::Lease(head)).await;
        self.body(token, body).await;
    }

    pub(crate) async fn body(&mut self, token: LeaseToken, body: impl AsRef<[u8]>) {
        for frame in Frame::body(token, &Bytes::copy_from_slice(body.as_ref())) {
            let message = Message::Binary(frame.encode());
            self.socket.send(message).await.unwrap();
        }
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "test".into(),
        };
        self.socket.send(Message::Close(Some(frame))).await.unwrap();
    }
}

pub(crate) fn head(token: LeaseToken, body_len: usize) -> LeaseHead {
    LeaseHead {
        token,
        op: Op::Chat,
        model: ModelName::new("tiny").unwrap(),
        who: "laptop".into(),
        deadline: None,
        remaining_ms: None,
        body_len,
    }
}

pub(crate) const fn token(job: u8, attempt: u32) -> LeaseToken {
    LeaseToken {
        job: JobId([job; 16]),
        attempt,
    }
}
