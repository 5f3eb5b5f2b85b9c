//! One task writes each status to all readers, while each connection's task writes its own answers.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::Limits;
use proto::status::ServerMessage;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peer::Peer,
    support::{Client, TestHub, soon},
};

const ROUNDS: u32 = 200;

fn busy() -> Limits {
    Limits {
        pace: Duration::ZERO,
        burst: u32::MAX,
        burst_v1: u32::MAX,
        ..Limits::default()
    }
}

fn numbered(n: u32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

/// Sends requests and pings repeatedly; every answer is whole and in order between statuses.
async fn chatter(mut client: Client, last: u64) {
    let (mut asked, mut answered, mut ponged, mut seq) = (0, 0, 0, None);
    while answered < ROUNDS || ponged < ROUNDS || seq < Some(last) {
        if asked < ROUNDS && asked < answered.min(ponged) + 8 {
            let ask = json!({ "type": "command", "command": "ping", "id": asked.to_string() });
            soon(client.socket.feed(Message::text(ask.to_string())))
                .await
                .unwrap();
            let ping = Message::Ping(numbered(asked).into());
            soon(client.socket.send(ping)).await.unwrap();
            asked += 1;
        }
        let came = soon(client.socket.next()).await.unwrap().unwrap();
        if let Message::Pong(which) = &came {
            assert!(*which >= numbered(ponged), "{which:?} before {ponged}");
            ponged = u32::from_be_bytes(which[..].try_into().unwrap()) + 1;
            continue;
        }
        let said: ServerMessage = serde_json::from_str(came.to_text().unwrap()).unwrap();
        if let ServerMessage::Status { data } = said {
            assert!(seq < Some(data.seq), "{} after {seq:?}", data.seq);
            seq = Some(data.seq);
        } else if let ServerMessage::Ack { id, .. } = said {
            assert_eq!(id, Some(answered.to_string()));
            answered += 1;
        } else {
            panic!("{said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statuses_answers_and_pongs_never_stand_within_each_other() {
    let hub = TestHub::with(busy(), 0).await;
    let mut follower = Peer::follower(&hub, &["status"]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::narrow(hub.addr).await);
    }
    let mut publish = async |n: u32| {
        let text = format!("{n} {}", "x".repeat(60_000));
        hub.hub.update(|status| status.text = text.clone());
        // Waits for one reader, so that the others can lag behind it.
        follower.until(|status| status.text == text).await;
    };
    // Nobody else reads, so the buffers fill up in the middle of a frame.
    for n in 0..150 {
        publish(n).await;
    }
    let mut talking = tokio::task::JoinSet::new();
    for client in clients {
        talking.spawn(chatter(client, 300));
    }
    for n in 150..300 {
        publish(n).await;
    }
    while let Some(ended) = soon(talking.join_next()).await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_shown_of_what_was_subscribed_to_before() {
    let hub = TestHub::with(busy(), 0).await;
    let mut peer = Peer::follower(&hub, &["status"]).await;
    let (shown, mut updating) = (hub.hub.clone(), tokio::task::JoinSet::new());
    updating.spawn(async move {
        for n in 0_u64.. {
            shown.update(|status| status.text = n.to_string());
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..1_000 {
        for topics in [&[][..], &["status"]] {
            peer.say(&json!({ "type": "reidentify", "subscriptions": topics }))
                .await;
            let mut said = peer.said().await;
            while said["type"] != "identified" {
                assert!(
                    !topics.contains(&"status"),
                    "nothing was subscribed: {said}"
                );
                said = peer.said().await;
            }
            assert_eq!(said["subscriptions"], json!(topics));
        }
        let first = peer.follow().await;
        assert_eq!(first["cause"], "resubscribed", "{first}");
    }
}
