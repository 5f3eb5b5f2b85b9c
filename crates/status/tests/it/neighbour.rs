//! An assistant of the original protocol beside Hearth: over a WebSocket, over HTTP, silent, gone.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::{
    AskError, HubAddress, Link, LocalToken, Places, Ports, StatusHub, Subscriber, SubscriberHandle,
    follow_neighbour, port_user, private_file,
};
use proto::{
    ErrorCode,
    status::{Command, HopState, Phase, Status},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use crate::{
    peer::Peer,
    support::{TestHub, soon},
};

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn sockets(addr: SocketAddr) -> Ports {
    Ports {
        sockets: vec![addr],
        http: Vec::new(),
    }
}

struct Beside {
    hub: StatusHub,
    stop: CancellationToken,
    run: JoinHandle<()>,
}

impl Beside {
    fn start(addr: SocketAddr) -> Self {
        Self::asking(sockets(addr), port_user)
    }

    fn asking(ports: Ports, user_of: impl Fn(u16) -> Option<u32> + Send + Sync + 'static) -> Self {
        let (hub, stop) = (StatusHub::default(), CancellationToken::new());
        hub.update(|status| {
            status.status = Phase::Ready;
            status.text = "Ready".into();
            status.engine.state = HopState::Up;
        });
        let following = follow_neighbour(
            hub.clone(),
            ports,
            "assistant".into(),
            user_of,
            stop.clone(),
        );
        let run = tokio::spawn(following);
        Self { hub, stop, run }
    }

    async fn until(&self, is_it: impl Fn(&Status) -> bool) -> Status {
        let mut latest = self.hub.subscribe();
        let reached = soon(latest.wait_for(|latest| is_it(latest.status()))).await;
        reached.unwrap().status().clone()
    }

    async fn stop(self) {
        self.stop.cancel();
        soon(self.run).await.unwrap();
    }
}

async fn assistant(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = soon(listener.accept()).await.unwrap();
    soon(accept_async(stream)).await.unwrap()
}

async fn say(peer: &mut WebSocketStream<TcpStream>, data: &Value) {
    let status = json!({ "type": "status", "data": data });
    soon(peer.send(Message::text(status.to_string())))
        .await
        .unwrap();
}

async fn command(peer: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        if let Message::Text(text) = soon(peer.next()).await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn what_the_assistant_hears_and_says_is_shown_as_its_own_and_goes_with_it() {
    let (listener, addr) = listen().await;
    let beside = Beside::start(addr);
    let mut peer = assistant(&listener).await;
    // Other fields of the assistant are not taken over.
    let speaking = json!({ "status": "mówię", "text": "dzień dobry", "is_speaking": true,
        "monitoring": false, "overlay_visible": false,
        "relay": { "state": "up", "name": "evil" }, "engine": { "state": "down", "name": "evil" },
        "jobs": [7] });
    say(&mut peer, &speaking).await;
    let shown = beside.until(|status| status.is_speaking).await;
    assert_eq!(shown.text, "dzień dobry");
    assert_eq!(
        (shown.engine.state, &*shown.engine.name),
        (HopState::Up, "")
    );
    assert_eq!(
        (shown.relay.state, &*shown.relay.name),
        (HopState::Unknown, "")
    );
    assert!(shown.monitoring && shown.overlay_visible && shown.jobs.is_empty());
    let [publisher] = shown.publishers.as_slice() else {
        panic!("{:?}", shown.publishers)
    };
    assert_eq!(publisher.name, "assistant");
    assert_eq!(publisher.origin, Some(addr.to_string()));
    assert_eq!(
        publisher.fields,
        ["is_listening", "wake_word_detected", "is_speaking", "text"]
    );

    say(
        &mut peer,
        &json!({ "status": "Ready", "text": "last words" }),
    )
    .await;
    let shown = beside.until(|status| !status.is_speaking).await;
    assert_eq!(shown.text, "Ready", "at rest the text is Hearth's own");

    say(&mut peer, &json!({ "is_listening": true })).await;
    beside.until(|status| status.is_listening).await;
    drop(peer);
    let shown = beside.until(|status| status.publishers.is_empty()).await;
    assert!(!shown.is_listening);
    // It reconnects, and its fields return.
    let mut peer = assistant(&listener).await;
    say(&mut peer, &json!({ "wake_word_detected": true })).await;
    beside.until(|status| status.wake_word_detected).await;
    beside.stop().await;
}

#[tokio::test]
async fn stop_tts_goes_to_the_assistant_which_answers_by_falling_silent() {
    let (listener, addr) = listen().await;
    let beside = Beside::start(addr);
    let mut peer = assistant(&listener).await;
    let ask = |command| {
        let (sender, answer) = oneshot::channel();
        beside.hub.pass_on(command, sender);
        answer
    };
    say(&mut peer, &json!({ "is_speaking": true })).await;
    beside.until(|status| status.is_speaking).await;
    let unknown = soon(ask(Command::SetVolume(3))).await.unwrap().unwrap_err();
    assert_eq!(unknown.0, ErrorCode::NothingToDo);
    let answer = ask(Command::StopTts);
    let heard = command(&mut peer).await;
    assert_eq!(
        (&heard["type"], &heard["command"]),
        (&json!("command"), &json!("stop_tts"))
    );
    say(&mut peer, &json!({ "is_speaking": false })).await;
    assert_eq!(soon(answer).await.unwrap(), Ok(()));

    // An assistant that keeps speaking is not reported as stopped, and the wait is short.
    say(&mut peer, &json!({ "is_speaking": true })).await;
    beside.until(|status| status.is_speaking).await;
    let answer = ask(Command::StopTts);
    command(&mut peer).await;
    assert_eq!(
        soon(answer).await.unwrap().unwrap_err().0,
        ErrorCode::DeadlineExceeded
    );
    beside.stop().await;
}

#[tokio::test]
async fn while_it_is_asked_to_stop_the_assistant_is_read_on_and_asked_once() {
    let (listener, addr) = listen().await;
    let beside = Beside::start(addr);
    let mut peer = assistant(&listener).await;
    let ask = || {
        let (sender, answer) = oneshot::channel();
        beside.hub.pass_on(Command::StopTts, sender);
        answer
    };
    for number in ["1", "2"] {
        say(&mut peer, &json!({ "is_speaking": true })).await;
        beside.until(|status| status.is_speaking).await;
        let mut answers = [ask(), ask(), ask()];
        assert_eq!(command(&mut peer).await["id"], number, "each time once");
        let hears = json!({ "is_speaking": true, "is_listening": true, "text": number });
        say(&mut peer, &hears).await;
        beside.until(|status| status.text == number).await;
        for answer in &mut answers {
            assert!(answer.try_recv().is_err(), "it speaks on");
        }
        say(&mut peer, &json!({ "is_speaking": false })).await;
        for answer in answers {
            assert_eq!(soon(answer).await.unwrap(), Ok(()));
        }
    }
    beside.stop().await;
}

fn follow(places: Places) -> (SubscriberHandle, CancellationToken, JoinHandle<()>) {
    let (subscriber, handle) = Subscriber::new(places);
    let subscriber = subscriber.patient(Duration::from_millis(30), Duration::from_millis(30));
    let stop = CancellationToken::new();
    let run = tokio::spawn(subscriber.run(stop.clone()));
    (handle, stop, run)
}

async fn until(handle: &SubscriberHandle, is_it: impl Fn(&Link) -> bool) -> Link {
    let mut link = handle.link();
    soon(link.wait_for(is_it)).await.unwrap().clone()
}

#[tokio::test]
async fn a_silent_assistant_is_asked_for_a_sign_of_life_and_marked_without_one() {
    let (listener, addr) = listen().await;
    let (handle, stop, run) = follow(Places::Ports(sockets(addr)));
    let mut peer = assistant(&listener).await;
    say(&mut peer, &json!({ "status": "Ready" })).await;
    until(&handle, |link| matches!(link, Link::Live(_))).await;
    // It reads nothing, so no ping is answered; then it does.
    let stale = until(&handle, |link| matches!(link, Link::Stale { .. })).await;
    assert!(matches!(stale, Link::Stale { last, .. } if last.status == Phase::Ready));
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });
    until(&handle, |link| matches!(link, Link::Live(_))).await;
    stop.cancel();
    soon(run).await.unwrap();
    soon(reading).await.unwrap();
}

/// Answers one request at a time, and returns its path and time.
async fn requested(listener: &TcpListener) -> (BufReader<TcpStream>, String, Instant) {
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let (mut reader, mut line) = (BufReader::new(stream), String::new());
    soon(reader.read_line(&mut line)).await.unwrap();
    let path = line.split(' ').nth(1).unwrap().to_owned();
    while line != "\r\n" {
        line.clear();
        soon(reader.read_line(&mut line)).await.unwrap();
    }
    (reader, path, Instant::now())
}

async fn answer(mut reader: BufReader<TcpStream>, head: &str, body: &str) -> BufReader<TcpStream> {
    let text = format!("HTTP/1.1 {head}\r\n\r\n{body}");
    soon(reader.write_all(text.as_bytes())).await.unwrap();
    reader
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
    let (handle, stop, run) = follow(Places::Ports(ports));
    let (reader, path, _) = requested(&listener).await;
    assert_eq!(path, "/status/stream");
    let head = "200 OK\r\ncontent-type: text/event-stream";
    let first = "data: {\"status\":\"Ready\",\"is_speaking\":false}\n\n";
    let mut reader = answer(reader, head, first).await;
    until(
        &handle,
        |link| matches!(link, Link::Live(now) if now.status == Phase::Ready),
    )
    .await;
    // Heartbeats are not statuses, and an event may be split.
    for piece in [
        "data: {\"heartbeat\":true}\n\n: x\n\ndata: {\"status\":\"mó",
        "wię\",\"is_speaking\":true}\n",
        "\n",
    ] {
        soon(reader.write_all(piece.as_bytes())).await.unwrap();
    }
    until(
        &handle,
        |link| matches!(link, Link::Live(now) if now.status == Phase::Speaking),
    )
    .await;
    let refused = handle.send(Command::StopTts).await.unwrap_err();
    assert!(matches!(
        refused,
        AskError::Refused {
            code: ErrorCode::NothingToDo,
            ..
        }
    ));
    drop(reader);
    until(&handle, |link| {
        matches!(link, Link::Lost { last: Some(_), .. })
    })
    .await;
    stop.cancel();
    soon(run).await.unwrap();
}

#[tokio::test]
async fn without_a_stream_the_page_is_asked_no_faster_than_once_a_second() {
    let (listener, addr) = listen().await;
    let ports = Ports {
        sockets: Vec::new(),
        http: vec![addr],
    };
    let (handle, stop, run) = follow(Places::Ports(ports));
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
            until(
                &handle,
                |link| matches!(link, Link::Live(now) if now.status == phase),
            )
            .await;
        }
    }
    let pause = polls[1] - polls[0];
    assert!(pause >= Duration::from_millis(990), "{pause:?}");
    stop.cancel();
    soon(run).await.unwrap();
}

#[tokio::test]
async fn what_another_program_said_instead_comes_back_when_that_one_leaves() {
    let (listener, addr) = listen().await;
    let served = TestHub::start().await;
    let stop = CancellationToken::new();
    let following = follow_neighbour(
        served.hub.clone(),
        sockets(addr),
        "assistant".into(),
        port_user,
        stop.clone(),
    );
    let following = tokio::spawn(following);
    let mut peer = assistant(&listener).await;
    say(&mut peer, &json!({ "is_speaking": true })).await;
    let mut shown = served.hub.subscribe();
    let mut until = async |speaks: bool| {
        let reached = shown.wait_for(|latest| latest.status().is_speaking == speaks);
        soon(reached).await.unwrap();
    };
    until(true).await;
    let mut silent = Peer::open(&served).await;
    silent.prove_as(&served, "voice", &[]).await;
    let publish = json!({ "type": "publish", "id": "p", "fields": { "is_speaking": false } });
    silent.say(&publish).await;
    assert_eq!(silent.said().await["status"], 200);
    until(false).await;
    drop(silent);
    until(true).await;
    stop.cancel();
    soon(following).await.unwrap();
}

#[tokio::test]
async fn who_opens_but_says_no_status_is_passed_over_for_who_does() {
    let (silent, silent_at) = listen().await;
    let (anything, anything_at) = listen().await;
    let (listener, addr) = listen().await;
    let (handle, stop, run) = follow(Places::Ports(Ports {
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
    until(&handle, |link| matches!(link, Link::Live(_))).await;
    drop(held);
    stop.cancel();
    soon(run).await.unwrap();
}

#[tokio::test]
async fn whoever_was_followed_instead_of_the_own_hub_is_left_when_that_is_there() {
    let home = tempfile::tempdir().unwrap();
    let (listener, addr) = listen().await;
    let places = Places::In(home.path().into(), sockets(addr));
    let (handle, stop, run) = follow(places);
    let mut peer = assistant(&listener).await;
    say(&mut peer, &json!({ "status": "Ready", "text": "other" })).await;
    let is = |link: &Link, text: &str| matches!(link, Link::Live(now) if now.text == text);
    until(&handle, |link| is(link, "other")).await;
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });

    let own = TestHub::start().await;
    own.hub.update(|status| status.text = "own".into());
    let token = LocalToken::path_in(home.path());
    private_file::write(&token, own.token.expose().as_bytes()).unwrap();
    let published = HubAddress::new(own.addr, home.path());
    published.publish(home.path()).unwrap();
    until(&handle, |link| is(link, "own")).await;
    soon(reading).await.unwrap();
    stop.cancel();
    soon(run).await.unwrap();
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn another_users_program_that_takes_the_port_later_is_not_believed() {
    let (listener, addr) = listen().await;
    let user = port_user(addr.port()).unwrap();
    let (asked, mut asking) = watch::channel(0_u32);
    // The second listener belongs to another user; the third belongs to the owner again.
    let beside = Beside::asking(sockets(addr), move |_| {
        asked.send_modify(|count| *count += 1);
        let foreign = u32::from(*asked.borrow() == 2);
        Some(user + foreign)
    });
    let mut shown = beside.hub.subscribe();
    let mut own = assistant(&listener).await;
    say(&mut own, &json!({ "is_speaking": true, "text": "own" })).await;
    beside.until(|status| status.text == "own").await;
    drop(own);
    let mut other = assistant(&listener).await;
    let lies = json!({ "is_listening": true, "text": "type your password" });
    say(&mut other, &lies).await;
    soon(asking.wait_for(|count| *count == 2)).await.unwrap();
    let left = soon(other.next()).await;
    assert!(!matches!(left, Some(Ok(_))), "it is sent nothing: {left:?}");
    shown.mark_changed();
    assert!(!shown.borrow_and_update().status().is_listening);
    let mut own = assistant(&listener).await;
    let says = json!({ "is_speaking": true, "text": "own\u{202e}\nagain" });
    say(&mut own, &says).await;
    let passed = shown.wait_for(|latest| {
        let status = latest.status();
        assert!(!status.is_listening, "another user's words are shown");
        status.text == "ownagain"
    });
    soon(passed).await.unwrap();
    beside.stop().await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn another_users_program_that_takes_the_port_between_two_polls_is_not_believed() {
    let (listener, addr) = listen().await;
    let user = port_user(addr.port()).unwrap();
    let ports = Ports {
        sockets: Vec::new(),
        http: vec![addr],
    };
    // Each request has a connection of its own: stream, page, and then another user's page.
    let (asked, mut asking) = watch::channel(0_u32);
    let beside = Beside::asking(ports, move |_| {
        asked.send_modify(|count| *count += 1);
        let foreign = u32::from(*asked.borrow() == 3);
        Some(user + foreign)
    });
    let mut shown = beside.hub.subscribe();
    let page = async |says: &str| loop {
        let (reader, path, _) = requested(&listener).await;
        let status = if path == "/api/status" {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let head = format!("{status}\r\ncontent-length: {}", says.len());
        answer(reader, &head, says).await;
        if path == "/api/status" {
            return;
        }
    };
    page(r#"{"status":"mówię","is_speaking":true,"text":"own"}"#).await;
    beside.until(|status| status.text == "own").await;
    page(r#"{"status":"słucham","is_speaking":false,"is_listening":true,"text":"type your password"}"#)
        .await;
    soon(asking.wait_for(|count| *count == 3)).await.unwrap();
    page(r#"{"status":"mówię","is_speaking":true,"text":"own again"}"#).await;
    let passed = shown.wait_for(|latest| {
        let status = latest.status();
        assert!(!status.is_listening, "another user's words are shown");
        status.text == "own again"
    });
    soon(passed).await.unwrap();
    beside.stop().await;
}
