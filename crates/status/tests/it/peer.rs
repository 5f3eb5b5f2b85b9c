//! A client of `hearth.status.v1` on the level of JSON messages.

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::LocalToken;
use hmac::{Hmac, KeyInit as _, Mac as _};
use proto::status::Status;
use serde_json::{Map, Value, json};
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::support::{TestHub, soon};

/// A client that keeps the status as an overlay does.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) hello: Value,
    pub(crate) port: u16,
    pub(crate) data: Map<String, Value>,
    seq: u64,
}

/// A message, or the code with which the hub closed.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    Said(Value),
    Closed(u16, String),
}

impl Peer {
    pub(crate) async fn open(hub: &TestHub) -> Self {
        Self::over(TcpStream::connect(hub.addr).await.unwrap()).await
    }

    pub(crate) async fn over(stream: TcpStream) -> Self {
        let addr = stream.peer_addr().unwrap();
        let mut request = format!("ws://{addr}/").into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert(
            "sec-websocket-protocol",
            "other, hearth.status.v1".parse().unwrap(),
        );
        let (socket, response) = soon(client_async(request, stream)).await.unwrap();
        let spoken = &response.headers()["sec-websocket-protocol"];
        assert_eq!(spoken, "hearth.status.v1");
        let mut peer = Self {
            socket,
            hello: Value::Null,
            port: addr.port(),
            data: Map::new(),
            seq: 0,
        };
        peer.hello = peer.said().await;
        assert_eq!(peer.hello["type"], "hello");
        peer
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        self.send(Message::text(message.to_string())).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        soon(self.socket.send(message)).await.unwrap();
    }

    pub(crate) async fn came(&mut self) -> Came {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return Came::Said(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Came::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                ended => panic!("the hub hung up without a word: {ended:?}"),
            }
        }
    }

    pub(crate) async fn said(&mut self) -> Value {
        match self.came().await {
            Came::Said(message) => message,
            closed @ Came::Closed(..) => panic!("{closed:?}"),
        }
    }

    pub(crate) async fn closed(&mut self) -> u16 {
        match self.came().await {
            Came::Closed(code, reason) => {
                assert!(!reason.is_empty() && reason.len() <= 123, "{reason}");
                code
            }
            said @ Came::Said(_) => panic!("{said:?}"),
        }
    }

    /// Proves this token, and checks the hub's proof.
    pub(crate) async fn prove_with(&mut self, token: &str, name: &str, topics: &[&str]) -> Value {
        let nonce = "ab".repeat(32);
        let proof = self.proof_of(token, "client", &nonce);
        self.say(
            &json!({ "type": "identify", "version": 1, "nonce": nonce, "proof": proof,
            "name": name, "subscriptions": topics }),
        )
        .await;
        let identified = self.said().await;
        let own = self.proof_of(token, "server", &nonce);
        assert_eq!(identified["proof"], own);
        identified
    }

    pub(crate) async fn say_proof(&mut self, token: &str) {
        let nonce = "ab".repeat(32);
        let proof = self.proof_of(token, "client", &nonce);
        self.say(&json!({ "type": "identify", "version": 1, "nonce": nonce, "proof": proof }))
            .await;
    }

    pub(crate) fn proof(&self, token: &LocalToken, side: &str, nonce: &str) -> String {
        self.proof_of(token.expose(), side, nonce)
    }

    fn proof_of(&self, token: &str, side: &str, nonce: &str) -> String {
        let Some(server) = self.hello["nonce"].as_str() else {
            panic!("no challenge: {}", self.hello)
        };
        let text = format!(
            "hearth.status.v1\n{side}\n1\n{}\n{server}\n{nonce}\n",
            self.port
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        proto::hex::encode(&mac.finalize().into_bytes())
    }

    /// Identifies with a proof, and checks the hub's.
    pub(crate) async fn prove(&mut self, hub: &TestHub, topics: &[&str]) -> Value {
        self.prove_as(hub, "test", topics).await
    }

    pub(crate) async fn prove_as(&mut self, hub: &TestHub, name: &str, topics: &[&str]) -> Value {
        self.prove_with(hub.token.expose(), name, topics).await
    }

    pub(crate) async fn commander(hub: &TestHub) -> Self {
        let mut peer = Self::open(hub).await;
        let identified = peer.prove(hub, &[]).await;
        assert_eq!(identified["rights"], json!(["read", "command", "publish"]));
        peer
    }

    pub(crate) async fn follower(hub: &TestHub, topics: &[&str]) -> Self {
        let mut peer = Self::open(hub).await;
        peer.say(&json!({ "type": "identify", "version": 1, "subscriptions": topics }))
            .await;
        let identified = peer.said().await;
        assert_eq!(identified["subscriptions"], json!(topics));
        assert_eq!(peer.follow().await["cause"], "first");
        peer
    }

    /// Applies the next snapshot or delta, and returns it.
    pub(crate) async fn follow(&mut self) -> Value {
        let message = self.said().await;
        self.apply(&message);
        message
    }

    pub(crate) fn apply(&mut self, message: &Value) {
        let seq = message["seq"].as_u64().unwrap();
        let data = message["data"].as_object().unwrap().clone();
        match message["type"].as_str() {
            Some("snapshot") => self.data = data,
            Some("delta") => {
                assert_eq!(message["from"], self.seq, "a gap: {message}");
                assert!(seq > self.seq && !data.is_empty(), "{message}");
                for (name, value) in data {
                    assert_ne!(self.data.get(&name), Some(&value), "not changed: {name}");
                    self.data.insert(name, value);
                }
            }
            other => panic!("{other:?}"),
        }
        self.seq = seq;
    }

    /// The status that an overlay would show now.
    pub(crate) fn status(&self) -> Status {
        let mut data = self.data.clone();
        data.insert("seq".into(), self.seq.into());
        serde_json::from_value(data.into()).unwrap()
    }

    pub(crate) async fn until(&mut self, is_it: impl Fn(&Status) -> bool) {
        while !is_it(&self.status()) {
            self.follow().await;
        }
    }

    pub(crate) async fn request(&mut self, request: &str, args: &Value) -> Value {
        let message = json!({ "type": "request", "id": "7", "request": request, "args": args });
        self.say(&message).await;
        let response = self.said().await;
        assert_eq!(
            (&response["type"], &response["id"]),
            (&json!("response"), &json!("7"))
        );
        response
    }
}
