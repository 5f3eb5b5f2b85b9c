//! A scripted WebSocket worker.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use proto::{
    End, EngineKind, ErrorCode, JobId, LeaseToken, ModelEntry, ModelName, WorkerId, WorkerReport,
    worker::{Frame, LeaseHead, RelayMessage, Retry, SUBPROTOCOL, WorkerMessage},
};
use queue::Scope;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, handshake::client::Response},
};

use crate::{in_time, server::Server};

/// A WebSocket worker that is controlled by the test.
pub(crate) struct Scripted {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

/// A leased job as received.
pub(crate) struct Job {
    pub(crate) head: LeaseHead,
    pub(crate) body: String,
}

impl Job {
    pub(crate) fn token(&self) -> LeaseToken {
        self.head.token
    }
}

pub(crate) fn report(models: &[&str]) -> WorkerReport {
    let entry = |name: &&str| ModelEntry {
        name: ModelName::new(*name).unwrap(),
        loaded: false,
        tag: serde_json::value::RawValue::from_string(format!(
            r#"{{"name":"{name}","model":"{name}", "size":1}}"#
        ))
        .unwrap(),
    };
    WorkerReport {
        model_changes: false,
        engine: EngineKind::Ollama,
        engine_version: "0.12.3".into(),
        engine_up: true,
        models: models.iter().map(entry).collect(),
    }
}

impl Scripted {
    /// Connects with one slot and the model `m`.
    pub(crate) async fn ready(server: &Server) -> Self {
        Self::serving(server, "default", &["m"], 1).await
    }

    pub(crate) async fn serving(
        server: &Server,
        account: &str,
        models: &[&str],
        slots: u32,
    ) -> Self {
        Self::named(server, "scripted", account, models, slots).await
    }

    pub(crate) async fn named(
        server: &Server,
        name: &str,
        account: &str,
        models: &[&str],
        slots: u32,
    ) -> Self {
        let key = server.key(account, &[Scope::Work]).await;
        let mut worker = Self::hello_as(name, server, &key, models, vec![]).await;
        assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
        worker.say(&WorkerMessage::Capacity { slots }).await;
        worker
    }

    pub(crate) async fn hello(
        server: &Server,
        key: &str,
        models: &[&str],
        held: Vec<LeaseToken>,
    ) -> Self {
        Self::hello_as("scripted", server, key, models, held).await
    }

    async fn hello_as(
        name: &str,
        server: &Server,
        key: &str,
        models: &[&str],
        held: Vec<LeaseToken>,
    ) -> Self {
        let (socket, _) = Self::dial(server, key, SUBPROTOCOL).await.unwrap();
        let mut worker = Self { socket };
        worker
            .say(&WorkerMessage::Hello {
                worker: WorkerId::new(name).unwrap(),
                version: "0".into(),
                report: report(models),
                held,
            })
            .await;
        worker
    }

    pub(crate) async fn dial(
        server: &Server,
        key: &str,
        subprotocol: &str,
    ) -> Result<(WebSocketStream<TcpStream>, Response), Error> {
        let mut request = format!("ws://{}/api/worker/v1", server.address)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        headers.insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        let tcp = TcpStream::connect(server.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        in_time(client_async(request, tcp)).await
    }

    pub(crate) async fn say(&mut self, message: &WorkerMessage) {
        let text = serde_json::to_string(message).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn frame(&mut self) -> Message {
        loop {
            let message = in_time(self.socket.next()).await.unwrap().unwrap();
            if !message.is_ping() && !message.is_pong() {
                return message;
            }
        }
    }

    /// Returns the next control message other than `stored`.
    pub(crate) async fn next(&mut self) -> RelayMessage {
        loop {
            let message = self.frame().await.into_text().unwrap();
            let message = serde_json::from_str(&message).unwrap();
            if !matches!(message, RelayMessage::Stored { .. }) {
                return message;
            }
        }
    }

    pub(crate) async fn lease(&mut self) -> Job {
        let RelayMessage::Lease(head) = self.next().await else {
            panic!("a lease was expected");
        };
        let mut body = BytesMut::new();
        loop {
            let part = Frame::decode(&self.frame().await.into_data()).unwrap();
            assert_eq!((part.token, part.n), (head.token, body.len() as u64));
            body.extend_from_slice(&part.payload.0);
            if !part.more {
                break;
            }
        }
        assert_eq!(body.len(), head.body_len);
        let body = String::from_utf8(body.to_vec()).unwrap();
        Job { head, body }
    }

    pub(crate) async fn line(&mut self, token: LeaseToken, n: u64, line: &str) {
        for frame in Frame::line(token, n, &Bytes::from(line.to_owned())) {
            self.socket
                .send(Message::Binary(frame.encode()))
                .await
                .unwrap();
        }
    }

    pub(crate) async fn end(&mut self, token: LeaseToken, lines: u64, end: End) {
        self.say(&WorkerMessage::End { token, lines, end }).await;
        assert_eq!(
            self.next().await,
            RelayMessage::Closed { token, code: None }
        );
    }

    /// Answers a leased job with these texts as a chat.
    pub(crate) async fn answer(&mut self, job: &Job, texts: &[&str]) {
        for (n, text) in (1..).zip(texts) {
            self.line(job.token(), n, &chat(text)).await;
        }
        let last = texts.len() as u64 + 1;
        self.line(job.token(), last, CHAT_DONE).await;
        self.end(job.token(), last, End::Completed).await;
    }

    /// Returns once the relay has read everything that was sent.
    pub(crate) async fn is_answered(&mut self) {
        let token = LeaseToken {
            job: JobId([9; 16]),
            attempt: 1,
        };
        let tokens = vec![token];
        self.say(&WorkerMessage::Extend { tokens }).await;
        let code = Some(ErrorCode::StaleLease);
        assert_eq!(self.next().await, RelayMessage::Closed { token, code });
    }

    /// Returns once the relay has acted on everything that was sent: between the two answers the
    /// leasing half of the connection has run.
    pub(crate) async fn is_heard(&mut self) {
        self.is_answered().await;
        self.is_answered().await;
    }

    /// Disconnects, and returns once the relay has closed the connection.
    pub(crate) async fn goes(mut self) {
        self.socket.close(None).await.unwrap();
        while in_time(self.socket.next())
            .await
            .is_some_and(|frame| frame.is_ok())
        {}
    }

    /// Gives a leased job back, to be leased again at once.
    pub(crate) async fn gives_back(&mut self, job: &Job) {
        let token = job.token();
        self.say(&WorkerMessage::Nack {
            token,
            retry: Retry::Now,
            code: ErrorCode::EngineUnavailable,
            message: "busy".into(),
            engine_status: None,
        })
        .await;
        assert_eq!(
            self.next().await,
            RelayMessage::Closed { token, code: None }
        );
    }

    /// Waits for the relay's close frame and returns its code.
    pub(crate) async fn close_code(&mut self) -> u16 {
        self.closed().await.0
    }

    /// Waits for the relay's close frame and returns its code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.frame().await {
                let frame = frame.unwrap();
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
        }
    }
}

/// Returns one line of a chat.
pub(crate) fn chat(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        r#"{{"model":"m","created_at":"2026-11-22T04:07:23.8Z","message":{{"role":"assistant","content":{text}}},"done":false}}"#
    )
}

/// The last line of a chat.
pub(crate) const CHAT_DONE: &str = r#"{"model":"m","created_at":"2026-11-22T04:07:24Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}"#;
