//! `hearth.status.v1` on real sockets, in the words that go over the wire.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::{Limits, LocalToken, Snapshot};
use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::{
    prelude::*,
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use proto::{
    JobId, ModelName, Op, Timestamp,
    status::{Command, LiveJob, Phase, Status},
};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::support::{PATIENCE, TestHub, narrow, soon};

/// One client, which keeps the status as an overlay would.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    hello: Value,
    port: u16,
    data: Map<String, Value>,
    seq: u64,
}

/// What came: a message, or the code the hub closed with.
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

    /// Proves to know this token, and looks whether the hub does.
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

    fn proof(&self, token: &LocalToken, side: &str, nonce: &str) -> String {
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
        let bytes = mac.finalize().into_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Identifies with a proof and looks at the hub's.
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

    /// The next snapshot or delta, applied.
    pub(crate) async fn follow(&mut self) -> Value {
        let message = self.said().await;
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
        message
    }

    /// What an overlay would show now.
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

fn job(tokens: u64) -> LiveJob {
    LiveJob {
        id: JobId([1; 16]),
        who: "laptop".into(),
        model: ModelName::new("m:1b").unwrap(),
        op: Op::Chat,
        started_at: Timestamp(5),
        tokens,
        tokens_per_second: 1.5,
    }
}

#[tokio::test]
async fn the_hub_says_hello_first_and_each_hello_has_its_own_challenge() {
    let hub = TestHub::start().await;
    let (one, two) = (Peer::open(&hub).await, Peer::open(&hub).await);
    assert_eq!(one.hello["versions"], json!([1]));
    assert_eq!(one.hello["identify_within_ms"], 3000);
    let nonce = one.hello["nonce"].as_str().unwrap();
    assert!(nonce.len() == 64 && nonce.bytes().all(|digit| digit.is_ascii_hexdigit()));
    assert_ne!(one.hello["nonce"], two.hello["nonce"]);
}

#[tokio::test]
async fn without_a_proof_one_may_read_and_nothing_else() {
    let mut hub = TestHub::start().await;
    let mut peer = Peer::open(&hub).await;
    peer.say(&json!({ "type": "identify", "version": 1, "nonce": "ab".repeat(32) }))
        .await;
    let identified = peer.said().await;
    assert_eq!(identified["rights"], json!(["read"]));
    assert_eq!(identified["subscriptions"], json!(["status"]));
    assert!(
        identified.get("proof").is_none(),
        "whoever proves nothing is proven nothing"
    );
    peer.follow().await;
    let refused = peer.request("quit", &json!({})).await;
    assert_eq!(
        (&refused["status"], &refused["code"]),
        (&json!(401), &json!("unauthorized"))
    );
    let pong = peer.request("ping", &json!({})).await;
    assert_eq!(pong["status"], 200);
    assert!(hub.commands.try_recv().is_err(), "the agent heard nothing");
}

#[tokio::test]
async fn both_sides_prove_themselves_and_the_token_is_never_sent() {
    let mut hub = TestHub::start().await;
    let mut peer = Peer::commander(&hub).await;
    peer.say(
        &json!({ "type": "request", "id": "a", "request": "set_monitoring",
        "args": { "on": false } }),
    )
    .await;
    let request = soon(hub.commands.recv()).await.unwrap();
    assert_eq!(request.command, Command::SetMonitoring(false));
    request.answer.send(Ok(())).unwrap();
    let expected = json!({ "type": "response", "id": "a", "request": "set_monitoring",
        "status": 200 });
    assert_eq!(peer.said().await, expected);
}

#[tokio::test]
async fn a_proof_is_worth_nothing_on_another_connection() {
    let hub = TestHub::start().await;
    let nonce = "ab".repeat(32);
    let (first, mut second) = (Peer::open(&hub).await, Peer::open(&hub).await);
    let proof = first.proof(&hub.token, "client", &nonce);
    let replay = json!({ "type": "identify", "version": 1, "nonce": nonce, "proof": proof });
    second.say(&replay).await;
    assert_eq!(second.closed().await, 4009);

    // Nor is the hub's own proof, sent back to it.
    let mut third = Peer::open(&hub).await;
    let mirrored = third.proof(&hub.token, "server", &nonce);
    third
        .say(&json!({ "type": "identify", "version": 1, "nonce": nonce, "proof": mirrored }))
        .await;
    assert_eq!(third.closed().await, 4009);
}

#[tokio::test]
async fn a_proof_made_for_another_port_is_wrong() {
    let hub = TestHub::start().await;
    let mut peer = Peer::open(&hub).await;
    let nonce = "ab".repeat(32);
    let port = std::mem::replace(&mut peer.port, 6001);
    assert_ne!(port, 6001);
    let proof = peer.proof(&hub.token, "client", &nonce);
    peer.say(&json!({ "type": "identify", "version": 1, "nonce": nonce, "proof": proof }))
        .await;
    assert_eq!(peer.closed().await, 4009);
}

#[tokio::test]
async fn wrong_proofs_are_throttled_and_the_right_one_never_is() {
    let hub = TestHub::start().await;
    let wrong = json!({ "type": "identify", "version": 1, "nonce": "ab".repeat(32),
        "proof": "00".repeat(32), "novelty": true });
    let mut codes = Vec::new();
    for _ in 0..20 {
        let mut peer = Peer::open(&hub).await;
        peer.say(&wrong).await;
        codes.push(peer.closed().await);
    }
    assert_eq!(codes[0], 4009);
    assert!(codes.contains(&4029), "{codes:?}");
    Peer::commander(&hub).await;
}

#[tokio::test]
async fn whatever_else_comes_first_is_closed_with_the_code_that_says_why() {
    let hub = TestHub::start().await;
    let nonce = "ab".repeat(32);
    let proof = "cd".repeat(32);
    let text = |value: Value| Message::text(value.to_string());
    for (first, code) in [
        (
            text(json!({ "type": "request", "id": "1", "request": "quit" })),
            4007,
        ),
        (text(json!({ "type": "command", "command": "quit" })), 4007),
        (
            text(json!({ "type": "reidentify", "subscriptions": [] })),
            4007,
        ),
        (text(json!({ "type": "identify" })), 4007),
        (text(json!({ "type": "identify", "version": "1" })), 4007),
        (text(json!({ "type": "identify", "version": -1 })), 4007),
        (
            text(json!({ "type": "identify", "version": 1, "proof": proof })),
            4007,
        ),
        (
            text(json!({ "type": "identify", "version": 1, "nonce": 7, "proof": proof })),
            4007,
        ),
        (
            text(
                json!({ "type": "identify", "version": 1, "nonce": nonce, "proof": "AB".repeat(32) }),
            ),
            4007,
        ),
        (
            text(json!({ "type": "identify", "version": 1, "nonce": nonce, "proof": "" })),
            4007,
        ),
        (
            text(json!({ "type": "identify", "version": 1, "name": "x".repeat(65) })),
            4007,
        ),
        (
            text(json!({ "type": "identify", "version": 1, "name": "a\u{1b}b" })),
            4007,
        ),
        (
            text(json!({ "type": "identify", "version": 1, "subscriptions": "status" })),
            4007,
        ),
        (
            text(json!({ "type": "identify", "version": 1, "subscriptions": vec!["x"; 33] })),
            4007,
        ),
        (text(json!({ "type": "identify", "version": 2 })), 4010),
        (
            text(json!({ "type": "identify", "version": 0, "shape": "another" })),
            4010,
        ),
        (text(json!([])), 4007),
        (text(json!(null)), 4007),
        (Message::text(""), 4007),
        (Message::text("{"), 4007),
        (Message::text("[".repeat(60_000)), 4007),
        (Message::binary(vec![1, 2, 3]), 4007),
        (Message::text("x".repeat(65 * 1024)), 1009),
    ] {
        let mut peer = Peer::open(&hub).await;
        let what = first.to_string().chars().take(120).collect::<String>();
        let _ = soon(peer.socket.send(first)).await;
        assert_eq!(peer.closed().await, code, "{what}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn whoever_does_not_identify_in_time_is_closed_and_pings_do_not_help() {
    let limits = Limits {
        identify: Duration::from_millis(200),
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut peer = Peer::open(&hub).await;
    assert_eq!(peer.hello["identify_within_ms"], 200);
    peer.send(Message::Ping("a".into())).await;
    assert_eq!(peer.closed().await, 4008);
    // A client of the legacy mode has no such deadline.
    let mut bare = hub.reader().await;
    assert!(bare.is_open().await);
}

#[tokio::test]
async fn other_subprotocols_are_not_answered_and_speak_the_legacy_mode() {
    let hub = TestHub::start().await;
    let stream = TcpStream::connect(hub.addr).await.unwrap();
    let mut request = format!("ws://{}/", hub.addr).into_client_request().unwrap();
    let other = "hearth.status.v2, xhearth.status.v1".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", other);
    let error = soon(client_async(request, stream)).await.unwrap_err();
    assert!(
        matches!(error, Error::Protocol(_)),
        "none was chosen: {error}"
    );
}

#[tokio::test]
async fn a_snapshot_comes_first_and_then_only_what_changed() {
    let hub = TestHub::start().await;
    let mut peer = Peer::follower(&hub, &["status"]).await;
    assert!(
        peer.data.get("seq").is_none(),
        "it stands beside the fields"
    );
    hub.hub.update(|status| status.status = Phase::Ready);
    let delta = peer.follow().await;
    let expected = json!({ "type": "delta", "from": 0, "seq": 1, "data": { "status": "ready" } });
    assert_eq!(delta, expected);
    hub.hub.update(|status| status.text = "x".into());
    assert_eq!(peer.follow().await["from"], 1);
    assert_eq!(peer.status(), *hub.hub.latest().status());
}

#[tokio::test]
async fn figures_of_each_token_are_for_whoever_asked_for_them() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.jobs = vec![job(1)]);
    let mut calm = Peer::follower(&hub, &["status"]).await;
    let mut eager = Peer::follower(&hub, &["status", "progress"]).await;
    assert_eq!(calm.data["jobs"][0]["who"], "laptop");
    assert!(calm.data["jobs"][0].get("tokens").is_none());
    assert_eq!(eager.data["jobs"][0]["tokens"], 1);

    hub.hub.update(|status| status.jobs = vec![job(2)]);
    eager.until(|status| status.jobs[0].tokens == 2).await;
    hub.hub.update(|status| status.jobs.clear());
    let delta = calm.follow().await;
    assert_eq!(
        delta["data"],
        json!({ "jobs": [] }),
        "the token between was not told"
    );
    assert_eq!((&delta["from"], &delta["seq"]), (&json!(1), &json!(3)));
}

#[tokio::test]
async fn subscriptions_can_be_changed_and_those_not_known_are_left_out() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.jobs = vec![job(1)]);
    let mut peer = Peer::follower(&hub, &["status"]).await;
    peer.say(&json!({ "type": "reidentify", "subscriptions": ["progress", "status", "weather"] }))
        .await;
    let identified = peer.said().await;
    assert_eq!(identified["subscriptions"], json!(["status", "progress"]));
    assert_eq!(peer.follow().await["cause"], "resubscribed");
    assert_eq!(peer.status(), *hub.hub.latest().status());

    peer.say(&json!({ "type": "reidentify", "subscriptions": [] }))
        .await;
    assert_eq!(peer.said().await["subscriptions"], json!([]));
    hub.hub.update(|status| status.text = "unheard".into());
    assert_eq!(peer.request("ping", &json!({})).await["result"]["seq"], 2);
}

#[tokio::test]
async fn a_ping_is_answered_with_the_time_and_the_number_of_the_status() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.text = "x".into());
    let mut peer = Peer::commander(&hub).await;
    let pong = peer.request("ping", &json!({})).await;
    let expected = json!({ "time": TestHub::NOW, "seq": 1 });
    assert_eq!(pong["result"], expected);
}

#[tokio::test]
async fn each_request_has_one_answer_and_each_fault_its_code() {
    let hub = TestHub::start().await;
    let mut peer = Peer::commander(&hub).await;
    let unknown = peer.request("dance", &json!({})).await;
    assert_eq!(
        (&unknown["status"], &unknown["code"]),
        (&json!(400), &json!("unknown_command"))
    );
    for args in [json!({}), json!({ "on": "yes" }), json!([]), json!(7)] {
        let refused = peer.request("set_monitoring", &args).await;
        assert_eq!(refused["code"], "bad_request", "{args}");
    }
    for (message, code) in [
        (
            json!({ "type": "request", "request": "quit" }),
            "bad_request",
        ),
        (
            json!({ "type": "request", "id": 7, "request": "quit" }),
            "bad_request",
        ),
        (
            json!({ "type": "request", "id": "", "request": "quit" }),
            "bad_request",
        ),
        (
            json!({ "type": "request", "id": "x".repeat(129), "request": "quit" }),
            "bad_request",
        ),
        (json!({ "type": "request", "id": "1" }), "bad_request"),
        (json!({ "type": "identify", "version": 1 }), "bad_request"),
        (
            json!({ "type": "reidentify", "subscriptions": vec!["x"; 33] }),
            "bad_request",
        ),
        (
            json!({ "type": "command", "command": "quit" }),
            "bad_request",
        ),
        (json!([]), "bad_request"),
    ] {
        peer.say(&message).await;
        let refused = peer.said().await;
        assert_eq!(
            (&refused["type"], &refused["code"]),
            (&json!("error"), &json!(code)),
            "{message}"
        );
        assert_eq!(refused["status"], 400);
    }
    peer.send(Message::text("{")).await;
    assert_eq!(peer.said().await["code"], "malformed_json");
    peer.send(Message::binary(vec![0])).await;
    assert_eq!(peer.said().await["code"], "bad_request");
}

#[tokio::test]
async fn nothing_a_known_client_can_say_closes_its_socket() {
    let limits = Limits {
        burst_v1: 10_000,
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut peer = Peer::open(&hub).await;
    peer.say(&json!({ "type": "identify", "version": 1, "subscriptions": [] }))
        .await;
    peer.said().await;
    let word = prop_oneof![
        Just("request"),
        Just("identify"),
        Just("reidentify"),
        Just("ping"),
        Just("quit"),
        Just("response"),
        Just("\\u0000"),
    ];
    let built = (word.clone(), word, any::<Option<u32>>()).prop_map(|(kind, request, id)| {
        let id = id.map_or("[]".to_owned(), |id| format!(r#""{id}""#));
        format!(r#"{{"type":"{kind}","request":"{request}","id":{id},"subscriptions":["progress"],"version":1,"args":{{"on":{id}}}}}"#)
    });
    let message = prop_oneof![built, any::<String>(), "[\\[\\]{}\",:0-9a-z]{0,200}"];
    let mut runner = TestRunner::deterministic();
    for _ in 0..500 {
        let text = message.new_tree(&mut runner).unwrap().current();
        peer.send(Message::text(text.clone())).await;
        peer.said().await;
    }
    assert_eq!(peer.request("ping", &json!({})).await["status"], 200);
}

#[tokio::test]
async fn who_talks_too_fast_is_read_at_twenty_a_second_and_loses_nothing() {
    let limits = Limits {
        burst_v1: 10,
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut peer = Peer::commander(&hub).await;
    let began = Instant::now();
    for n in 0..20 {
        let ping = json!({ "type": "request", "id": n.to_string(), "request": "ping" });
        peer.say(&ping).await;
    }
    for n in 0..20 {
        assert_eq!(peer.said().await["id"], n.to_string());
    }
    assert!(
        began.elapsed() >= Duration::from_millis(450),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_reader_that_lagged_is_sent_a_snapshot_that_says_so_and_then_deltas_again() {
    let limits = Limits {
        pace: Duration::from_millis(1),
        behind: Duration::from_millis(100),
        stall: PATIENCE,
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut slow = Peer::over(narrow(hub.addr).await).await;
    slow.say(&json!({ "type": "identify", "version": 1 })).await;
    slow.said().await;
    slow.follow().await;
    let mut quick = Peer::follower(&hub, &["status"]).await;
    // 12 MB fill every buffer between the hub and the slow one; the other follows each change.
    let (mut n, mut full_at) = (0, Instant::now());
    while n < 200 || full_at.elapsed() < Duration::from_millis(200) {
        n += 1;
        if n == 200 {
            full_at = Instant::now();
        }
        let text = format!("{n} {}", "x".repeat(60_000));
        hub.hub.update(|status| status.text = text.clone());
        quick.until(|status| status.text == text).await;
    }
    let mut kinds = Vec::new();
    hub.hub.update(|status| status.text = "end".into());
    while slow.status().text != "end" {
        let message = slow.follow().await;
        kinds.push((message["type"].clone(), message["cause"].clone()));
    }
    let behind = (json!("snapshot"), json!("behind"));
    assert!(kinds.contains(&behind), "{kinds:?}");
    assert!(kinds.len() < n, "what came in between was left out");
    hub.hub.update(|status| status.text = "after".into());
    assert_eq!(slow.follow().await["type"], "delta");
    assert_eq!(slow.status(), *hub.hub.latest().status());
}

#[tokio::test]
async fn a_stopping_hub_shows_its_last_status_and_says_goodbye() {
    let hub = TestHub::start().await;
    let mut peer = Peer::follower(&hub, &["status"]).await;
    hub.hub.update(|status| status.status = Phase::Stopping);
    hub.stop().await;
    peer.until(|status| status.status == Phase::Stopping).await;
    assert_eq!(peer.closed().await, 1001);
}

/// One step of the agent, of which some change nothing.
#[derive(Debug, Clone)]
enum Step {
    Phase(bool),
    Text(u8),
    Jobs(u8, u64),
    Monitoring(bool),
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<bool>().prop_map(Step::Phase),
        (0..3_u8).prop_map(Step::Text),
        (0..3_u8, 0..3_u64).prop_map(|(jobs, tokens)| Step::Jobs(jobs, tokens)),
        any::<bool>().prop_map(Step::Monitoring),
        Just(Step::Read),
    ];
    prop::collection::vec(step, 1..40)
}

/// What changes and changes back between two messages is not told, nor is its number.
fn without_seq(status: &Status) -> Status {
    Status {
        seq: 0,
        ..status.clone()
    }
}

fn shows(latest: &Snapshot) -> impl Fn(&Status) -> bool {
    let truth = without_seq(latest.status());
    move |status| without_seq(status) == truth
}

#[tokio::test]
async fn deltas_applied_to_the_snapshot_are_the_hubs_own_status_at_any_pace() {
    let mut runner = TestRunner::deterministic();
    for round in 0..24 {
        let limits = Limits {
            pace: Duration::from_millis([0, 1, 5][round % 3]),
            ..Limits::default()
        };
        let hub = TestHub::with(limits, 0).await;
        let mut eager = Peer::follower(&hub, &["status", "progress"]).await;
        let mut calm = Peer::follower(&hub, &["status"]).await;
        for step in steps().new_tree(&mut runner).unwrap().current() {
            hub.hub.update(|status| match step {
                Step::Phase(up) => status.status = if up { Phase::Ready } else { Phase::Error },
                Step::Text(n) => status.text = n.to_string(),
                Step::Jobs(jobs, tokens) => {
                    status.jobs = (0..jobs).map(|_| job(tokens)).collect();
                }
                Step::Monitoring(on) => status.monitoring = on,
                Step::Read => {}
            });
            if matches!(step, Step::Read) {
                eager.until(shows(&hub.hub.latest())).await;
            }
        }
        let latest = hub.hub.latest();
        eager.until(shows(&latest)).await;
        let mut truth = latest.status().clone();
        for job in &mut truth.jobs {
            (job.tokens, job.tokens_per_second) = (0, 0.0);
        }
        truth.seq = 0;
        calm.until(|status| without_seq(status) == truth).await;
        hub.stop().await;
    }
}
