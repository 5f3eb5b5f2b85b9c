//! The subscriber at an assistant of the original protocol: over a WebSocket, over HTTP, silent.

use std::time::Duration;

use futures_util::StreamExt as _;
use hearth_status::{AskError, HubAddress, Link, LocalToken, Places, Ports, private_file};
use proto::{
    ErrorCode,
    status::{Command, Phase},
};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::{
    assistant::{answer, assistant, listen, requested, say, sockets},
    follow::{Following, is_live},
    support::{TestHub, soon},
};

#[tokio::test]
async fn a_silent_assistant_is_asked_for_a_sign_of_life_and_marked_without_one() {
    let (listener, addr) = listen().await;
    let following = Following::impatient(Places::Ports(sockets(addr)));
    let mut peer = assistant(&listener).await;
    say(&mut peer, &json!({ "status": "Ready" })).await;
    following.until(is_live).await;
    // It reads nothing, so no ping is answered; then it does.
    let stale = following
        .until(|link| matches!(link, Link::Stale { .. }))
        .await;
    assert!(matches!(stale, Link::Stale { last, .. } if last.status == Phase::Ready));
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });
    following.until(is_live).await;
    following.stop().await;
    soon(reading).await.unwrap();
}

#[tokio::test]
async fn without_a_socket_the_stream_of_events_is_followed() {
    let (closed, nowhere) = listen().await;
    drop(closed);
    let (listener, addr) = listen().await;
    let ports = Ports {
        sockets: vec![nowhere],
        http: vec![addr],
    };
    let following = Following::impatient(Places::Ports(ports));
    let (reader, path, _) = requested(&listener).await;
    assert_eq!(path, "/status/stream");
    let head = "200 OK\r\ncontent-type: text/event-stream";
    let first = "data: {\"status\":\"Ready\",\"is_speaking\":false}\n\n";
    let mut reader = answer(reader, head, first).await;
    following
        .until(|link| matches!(link, Link::Live(now) if now.status == Phase::Ready))
        .await;
    // Heartbeats are not statuses, and an event may be split.
    for piece in [
        "data: {\"heartbeat\":true}\n\n: x\n\ndata: {\"status\":\"mó",
        "wię\",\"is_speaking\":true}\n",
        "\n",
    ] {
        soon(reader.write_all(piece.as_bytes())).await.unwrap();
    }
    following
        .until(|link| matches!(link, Link::Live(now) if now.status == Phase::Speaking))
        .await;
    let refused = following.handle.send(Command::StopTts).await.unwrap_err();
    assert!(matches!(
        refused,
        AskError::Refused {
            code: ErrorCode::NothingToDo,
            ..
        }
    ));
    drop(reader);
    following
        .until(|link| matches!(link, Link::Lost { last: Some(_), .. }))
        .await;
    following.stop().await;
}

#[tokio::test]
async fn without_a_stream_the_page_is_asked_no_faster_than_once_a_second() {
    let (listener, addr) = listen().await;
    let ports = Ports {
        sockets: Vec::new(),
        http: vec![addr],
    };
    let following = Following::impatient(Places::Ports(ports));
    let mut polls = Vec::new();
    for (n, says) in ["-", "Ready", "mówię", "Ready"].into_iter().enumerate() {
        let (reader, path, at) = requested(&listener).await;
        let body = format!("{{\"status\":\"{says}\",\"is_speaking\":false}}");
        let head = if n == 0 { "404 Not Found" } else { "200 OK" };
        let head = format!("{head}\r\ncontent-length: {}", body.len());
        answer(reader, &head, &body).await;
        assert_eq!(
            path,
            if n == 0 {
                "/status/stream"
            } else {
                "/api/status"
            }
        );
        if n >= 1 {
            polls.push(at);
            let phase = if n == 2 {
                Phase::Speaking
            } else {
                Phase::Ready
            };
            following
                .until(|link| matches!(link, Link::Live(now) if now.status == phase))
                .await;
        }
    }
    let pause = polls[1] - polls[0];
    assert!(pause >= Duration::from_millis(990), "{pause:?}");
    following.stop().await;
}

#[tokio::test]
async fn who_opens_but_says_no_status_is_passed_over_for_who_does() {
    let (silent, silent_at) = listen().await;
    let (anything, anything_at) = listen().await;
    let (listener, addr) = listen().await;
    let following = Following::impatient(Places::Ports(Ports {
        sockets: vec![silent_at],
        http: vec![anything_at, addr],
    }));
    let held = assistant(&silent).await;
    // A server that has the same page for every path.
    for asked in ["/status/stream", "/api/status"] {
        let (reader, path, _) = requested(&anything).await;
        assert_eq!(path, asked);
        let body = "<!doctype html>";
        let head = format!("200 OK\r\ncontent-length: {}", body.len());
        answer(reader, &head, body).await;
    }
    let (reader, ..) = requested(&listener).await;
    let head = "200 OK\r\ncontent-type: text/event-stream";
    let says = "data: {\"status\":\"Ready\",\"is_speaking\":false}\n\n";
    let _open = answer(reader, head, says).await;
    following.until(is_live).await;
    drop(held);
    following.stop().await;
}

#[tokio::test]
async fn whoever_was_followed_instead_of_the_own_hub_is_left_when_that_is_there() {
    let home = tempfile::tempdir().unwrap();
    let (listener, addr) = listen().await;
    let places = Places::In(home.path().into(), sockets(addr));
    let following = Following::impatient(places);
    let mut peer = assistant(&listener).await;
    say(&mut peer, &json!({ "status": "Ready", "text": "other" })).await;
    let is = |link: &Link, text: &str| matches!(link, Link::Live(now) if now.text == text);
    following.until(|link| is(link, "other")).await;
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });

    let own = TestHub::start().await;
    own.hub.update(|status| status.text = "own".into());
    let token = LocalToken::path_in(home.path());
    private_file::write(&token, own.token.expose().as_bytes()).unwrap();
    let published = HubAddress::new(own.addr, home.path());
    published.publish(home.path()).unwrap();
    following.until(|link| is(link, "own")).await;
    soon(reading).await.unwrap();
    following.stop().await;
}
