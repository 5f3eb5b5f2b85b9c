//! `hearth.status.v1` on real sockets: its handshake and its requests.

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use hearth_status::Limits;
use proptest::{
    prelude::*,
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use proto::status::Command;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::{
    peer::Peer,
    support::{TestHub, soon},
};

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

    // Neither is the hub's own proof, sent back to it.
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
