//! An assistant of the original protocol beside Hearth, whose status is shown with the hub's own.

use std::net::SocketAddr;

use futures_util::StreamExt as _;
use hearth_status::{Ports, StatusHub, follow_neighbour, port_user};
use proto::{
    ErrorCode,
    status::{Command, HopState, Phase, Status},
};
use serde_json::json;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    assistant::{answer, assistant, command, listen, requested, say, sockets},
    peer::Peer,
    support::{TestHub, soon},
};

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
