//! Which clients get a connection slot while others hold all that they can.

use std::time::Duration;

use futures_util::StreamExt as _;
use hearth_status::{Limits, request};
use proto::status::{Phase, ServerMessage};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};

use crate::{
    peer::Peer,
    support::{Client, TestHub, raw, soon},
};

const SOCKETS: usize = 8;
const KEPT: usize = 2;

fn small() -> Limits {
    Limits {
        sockets: SOCKETS,
        kept: KEPT,
        arriving: 4,
        // No deadline frees a slot here.
        handshake: Duration::from_secs(3_600),
        identify: Duration::from_secs(3_600),
        ..Limits::default()
    }
}

fn upgrade(hub: &TestHub, more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n",
        hub.addr
    )
}

async fn filled() -> (TestHub, Vec<Client>) {
    let hub = TestHub::with(small(), 0).await;
    let mut readers = Vec::new();
    for _ in 0..SOCKETS {
        readers.push(hub.reader().await);
    }
    (hub, readers)
}

#[tokio::test]
async fn whoever_proves_the_token_gets_in_though_strangers_hold_every_other_place() {
    let (hub, mut readers) = filled().await;
    let refused = raw(hub.addr, &upgrade(&hub, "")).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(
        refused.contains("\"busy\"") && refused.contains("retry-after: 5"),
        "{refused}"
    );

    let mut bare = Peer::open(&hub).await;
    bare.say(&json!({ "type": "identify", "version": 1 })).await;
    assert_eq!(bare.closed().await, 1013);
    let mut wrong = Peer::open(&hub).await;
    wrong.say_proof(&"0".repeat(64)).await;
    assert_eq!(wrong.closed().await, 4009);

    // One as an overlay, one as a script with the token.
    let mut own = Peer::open(&hub).await;
    own.prove_with(hub.token.expose(), "overlay", &["status"])
        .await;
    let mut script = hub.commander().await;
    script.until(|_| true).await;
    own.follow().await;
    // The clients without a token keep their slots.
    hub.hub.update(|status| status.status = Phase::Ready);
    for reader in &mut readers {
        reader.until(|status| status.status == Phase::Ready).await;
    }
    own.until(|status| status.status == Phase::Ready).await;

    // Clients with the token are bounded too.
    let token = format!("Authorization: Bearer {}\r\n", hub.token.expose());
    let refused = raw(hub.addr, &upgrade(&hub, &token)).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    drop((own, readers.pop()));
    let mut connected = hub.connected.clone();
    soon(connected.wait_for(|count| *count == SOCKETS))
        .await
        .unwrap();
    let mut again = Peer::open(&hub).await;
    again.prove_with(hub.token.expose(), "again", &[]).await;
    hub.stop().await;
}

#[tokio::test]
async fn whoever_holds_connections_and_says_nothing_keeps_nobody_out() {
    let (hub, readers) = filled().await;
    let home = tempfile::tempdir().unwrap();
    let token = hub.published(home.path());
    let mut silent = Vec::new();
    for n in 0..60 {
        let mut stream = TcpStream::connect(hub.addr).await.unwrap();
        if n % 3 == 0 {
            // A connection in its handshake holds no slot.
            let asks = upgrade(&hub, "Sec-WebSocket-Protocol: hearth.status.v1\r\n");
            tokio::io::AsyncWriteExt::write_all(&mut stream, asks.as_bytes())
                .await
                .unwrap();
        }
        silent.push(stream);
    }
    let own = soon(request(
        &token,
        "ping",
        proto::status::CommandArgs::default(),
    ))
    .await;
    assert_eq!(own.unwrap()["seq"], 0);
    let mut ended = JoinSet::new();
    for mut stream in silent {
        ended.spawn(async move { stream.read_to_end(&mut Vec::new()).await });
    }
    // All but the last few were closed, and none that was served.
    for _ in 0..55 {
        let _ = soon(ended.join_next()).await.unwrap().unwrap();
    }
    for mut reader in readers {
        assert!(reader.is_open().await);
    }
    hub.stop().await;
}

#[tokio::test]
async fn refused_clients_that_do_not_close_are_cut_off_when_they_are_too_many() {
    let limits = Limits {
        farewell: Duration::from_secs(3_600),
        ..small()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut refused = Vec::new();
    for _ in 0..10 {
        let mut peer = Peer::open(&hub).await;
        peer.say(&json!({})).await;
        assert_eq!(peer.closed().await, 4007);
        refused.push(peer);
    }
    let mut connected = hub.connected.clone();
    soon(connected.wait_for(|count| *count <= limits.arriving))
        .await
        .unwrap();
    drop(refused);
    hub.stop().await;
}

/// A reader in the legacy mode frees its slot when it disconnects.
#[tokio::test]
async fn a_place_is_free_again_once_its_reader_left() {
    let (mut hub, mut readers) = filled().await;
    readers.pop();
    soon(hub.connected.wait_for(|count| *count == SOCKETS - 1))
        .await
        .unwrap();
    let mut next = hub.reader().await;
    let first = soon(next.socket.next()).await.unwrap().unwrap();
    let first: ServerMessage = serde_json::from_str(first.to_text().unwrap()).unwrap();
    assert!(matches!(first, ServerMessage::Status { .. }));
    hub.stop().await;
}
