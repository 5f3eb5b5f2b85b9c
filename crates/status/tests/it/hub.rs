//! The hub on real sockets.

use std::time::{Duration, Instant};

use crate::support::{Client, TestHub, soon};
use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::Limits;
use proptest::{
    prelude::*,
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use proto::{
    ErrorCode,
    status::{Command, Phase, ServerMessage},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, protocol::frame::coding::CloseCode},
};

fn code(message: &ServerMessage) -> ErrorCode {
    let ServerMessage::Error { code, .. } = message else {
        panic!("not an error: {message:?}")
    };
    *code
}

#[tokio::test]
async fn a_status_comes_at_once_and_on_every_change_with_the_seven_fields() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.status = Phase::Connecting);
    let mut reader = hub.reader().await;
    let first = soon(reader.socket.next())
        .await
        .unwrap()
        .unwrap()
        .into_text()
        .unwrap();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["type"], "status");
    let data = &first["data"];
    assert_eq!(data["status"], "connecting");
    assert!(data["text"].is_string());
    for flag in [
        "is_listening",
        "is_speaking",
        "wake_word_detected",
        "overlay_visible",
        "monitoring",
    ] {
        assert!(data[flag].is_boolean(), "{flag}");
    }
    hub.hub.update(|status| status.status = Phase::Ready);
    assert_eq!(
        reader
            .until(|status| status.status == Phase::Ready)
            .await
            .seq,
        2
    );
}

#[tokio::test]
async fn a_command_without_the_token_is_refused_and_the_socket_stays_open() {
    let mut hub = TestHub::start().await;
    let mut reader = hub.reader().await;
    reader
        .say(r#"{"type":"command","command":"toggle_monitoring","id":"1"}"#)
        .await;
    let answer = reader.answer().await;
    assert_eq!(code(&answer), ErrorCode::Unauthorized);
    assert!(matches!(answer, ServerMessage::Error { id: Some(id), .. } if id == "1"));
    assert!(reader.is_open().await);
    assert!(hub.commands.try_recv().is_err(), "the agent heard nothing");
}

#[tokio::test]
async fn a_command_with_the_token_reaches_the_agent_and_its_answer_comes_back() {
    let mut hub = TestHub::start().await;
    let mut client = hub.commander().await;
    client
        .say(r#"{"type":"command","command":"toggle_monitoring","id":"a"}"#)
        .await;
    let request = soon(hub.commands.recv()).await.unwrap();
    assert_eq!(request.command, Command::ToggleMonitoring);
    request.answer.send(Ok(())).unwrap();
    let ack = ServerMessage::Ack {
        command: "toggle_monitoring".into(),
        id: Some("a".into()),
        result: None,
    };
    assert_eq!(client.answer().await, ack);

    client
        .say(r#"{"type":"command","command":"stop_tts"}"#)
        .await;
    let request = soon(hub.commands.recv()).await.unwrap();
    request
        .answer
        .send(Err((ErrorCode::NothingToDo, "nobody speaks".into())))
        .unwrap();
    assert_eq!(code(&client.answer().await), ErrorCode::NothingToDo);
    assert!(client.is_open().await);
}

#[tokio::test]
async fn statuses_go_on_while_the_agent_thinks_about_a_command() {
    let mut hub = TestHub::start().await;
    let mut client = hub.commander().await;
    client.say(r#"{"type":"command","command":"quit"}"#).await;
    let request = soon(hub.commands.recv()).await.unwrap();
    hub.hub.update(|status| status.text = "still here".into());
    client.until(|status| status.text == "still here").await;
    drop(request);
    assert_eq!(code(&client.answer().await), ErrorCode::Draining);
}

#[tokio::test]
async fn a_command_that_the_agent_never_answers_is_answered_all_the_same() {
    let limits = Limits {
        answer: Duration::from_millis(50),
        ..Limits::default()
    };
    let mut hub = TestHub::with(limits, 0).await;
    let mut client = hub.commander().await;
    client
        .say(r#"{"type":"command","command":"show_overlay","id":"1"}"#)
        .await;
    let kept = soon(hub.commands.recv()).await.unwrap();
    let answer = client.answer().await;
    assert_eq!(code(&answer), ErrorCode::Internal);
    assert!(matches!(answer, ServerMessage::Error { id: Some(id), .. } if id == "1"));
    assert!(client.is_open().await);
    assert!(kept.answer.send(Ok(())).is_err(), "nobody waits any more");
}

#[tokio::test]
async fn nothing_that_can_be_said_closes_the_socket() {
    let limits = Limits {
        burst: 10_000,
        ..Limits::default()
    };
    let mut hub = TestHub::with(limits, 0).await;
    let answering = async {
        while let Some(request) = hub.commands.recv().await {
            let _ = request.answer.send(Ok(()));
        }
    };
    let mut client = Client::open(hub.addr, Some(hub.token.expose())).await;
    let talking = async {
        let word = prop_oneof![
            Just("command"),
            Just("ping"),
            Just("toggle_monitoring"),
            Just("status"),
            Just("quit"),
            Just("\\u0000"),
        ];
        let built = (word.clone(), word, any::<u32>()).prop_map(|(kind, command, id)| {
            format!(r#"{{"type":"{kind}","command":"{command}","id":"{id}","args":{{"on":{id}}}}}"#)
        });
        let message = prop_oneof![built, any::<String>(), "[\\[\\]{}\",:0-9a-z]{0,200}"];
        let mut runner = TestRunner::deterministic();
        for _ in 0..500 {
            let text = message.new_tree(&mut runner).unwrap().current();
            client.say(text).await;
            client.answer().await;
        }
        soon(client.socket.send(Message::binary(vec![1, 2, 3])))
            .await
            .unwrap();
        assert_eq!(code(&client.answer().await), ErrorCode::BadRequest);
        assert!(client.is_open().await);
    };
    tokio::select! {
        () = answering => panic!("the hub closed"),
        () = talking => {}
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_closed_and_slows_nobody() {
    let limits = Limits {
        pace: Duration::from_millis(1),
        stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let mut hub = TestHub::with(limits, 0).await;
    let stalled = Client::narrow(hub.addr).await;
    let mut reader = hub.reader().await;
    soon(hub.connected.wait_for(|count| *count == 2))
        .await
        .unwrap();

    let mut n = 0;
    while *hub.connected.borrow_and_update() == 2 {
        n += 1;
        assert!(n < 100_000, "the stalled reader was never closed");
        let text = format!("{n} {}", "x".repeat(30_000));
        hub.hub.update(|status| status.text = text.clone());
        // The other reader receives this status, although one reads nothing.
        reader.until(|status| status.text == text).await;
    }
    assert!(reader.is_open().await);
    drop(stalled);
}

#[tokio::test]
async fn a_thousand_overlays_see_every_status_and_a_stalled_one_costs_none_of_them() {
    let limits = Limits {
        stall: Duration::from_millis(300),
        pace: Duration::from_millis(1),
        ..Limits::default()
    };
    let mut hub = TestHub::with(limits, 0).await;
    let stalled = Client::narrow(hub.addr).await;
    let mut overlays = Vec::new();
    for _ in 0..1_000 {
        overlays.push(hub.reader().await);
    }
    let all = hub.connected.wait_for(|count| *count == 1_001);
    soon(all).await.unwrap();
    let mut n = 0;
    while *hub.connected.borrow_and_update() > 1_000 {
        n += 1;
        assert!(n < 10_000, "the stalled one was never closed");
        let text = format!("{n} {}", "x".repeat(8_000));
        hub.hub.update(|status| status.text = text.clone());
        // Each of the thousand receives this status, although one reads nothing.
        for overlay in &mut overlays {
            overlay.until(|status| status.text == text).await;
        }
    }
    drop(stalled);
}

#[tokio::test]
async fn a_storm_of_changes_is_sent_as_twenty_a_second_and_ends_with_the_latest() {
    let hub = TestHub::start().await;
    let mut reader = hub.reader().await;
    reader.next().await.unwrap();
    let began = Instant::now();
    let publishing = async {
        for n in 0..5_000 {
            hub.hub.update(|status| status.text = n.to_string());
            // Lets the hub and the reader run in between: without pacing, hundreds would be sent.
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(publishing, reader.until(|status| status.text == "4999"));
    let most = began.elapsed().as_millis() / 50 + 3;
    assert!(
        reader.statuses as u128 <= most,
        "{} statuses, at most {most}",
        reader.statuses
    );
}

#[tokio::test]
async fn one_socket_too_many_is_told_so_and_the_seat_is_free_again_after() {
    let limits = Limits {
        sockets: 1,
        ..Limits::default()
    };
    let mut hub = TestHub::with(limits, 0).await;
    let first = hub.reader().await;
    let stream = TcpStream::connect(hub.addr).await.unwrap();
    let refused = client_async(format!("ws://{}/", hub.addr), stream);
    let Err(Error::Http(refused)) = soon(refused).await else {
        panic!("it was let in")
    };
    assert_eq!(refused.status(), 503);
    drop(first);
    soon(hub.connected.wait_for(|count| *count == 0))
        .await
        .unwrap();
    // The slot is released shortly after the count drops; a refusal in between is allowed.
    let mut again = loop {
        let stream = TcpStream::connect(hub.addr).await.unwrap();
        let request = format!("ws://{}/", hub.addr);
        if let Ok((socket, _)) = soon(client_async(request, stream)).await {
            break Client {
                socket,
                last: None,
                statuses: 0,
            };
        }
    };
    assert!(again.is_open().await);
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_is_hung_up_on() {
    let limits = Limits {
        handshake: Duration::from_millis(50),
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut silent = TcpStream::connect(hub.addr).await.unwrap();
    let read = soon(silent.read(&mut [0; 16])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_message_over_the_limit_ends_only_its_own_socket() {
    let hub = TestHub::start().await;
    let (mut loud, mut quiet) = (hub.commander().await, hub.reader().await);
    let _ = soon(loud.socket.send(Message::text("x".repeat(65 * 1024)))).await;
    while loud.next().await.is_some() {}
    assert!(quiet.is_open().await);
}

#[tokio::test]
async fn a_stopping_hub_says_goodbye() {
    let hub = TestHub::start().await;
    let mut reader = hub.reader().await;
    reader.next().await.unwrap();
    hub.stop().await;
    let Some(Ok(Message::Close(Some(frame)))) = soon(reader.socket.next()).await else {
        panic!("no close frame")
    };
    assert_eq!(frame.code, CloseCode::Away);
}

#[tokio::test]
async fn the_command_ping_needs_no_token_and_tells_the_time_and_the_number() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.text = "x".into());
    let mut reader = hub.reader().await;
    reader
        .say(r#"{"type":"command","command":"ping","id":"7"}"#)
        .await;
    let ack = ServerMessage::Ack {
        command: "ping".into(),
        id: Some("7".into()),
        result: Some(serde_json::json!({ "time": TestHub::NOW, "seq": 1 })),
    };
    assert_eq!(reader.answer().await, ack);
}

/// Clients of the legacy mode rely on exactly these bytes.
#[tokio::test]
async fn the_legacy_mode_says_the_same_bytes_as_ever() {
    let mut hub = TestHub::start().await;
    let mut client = hub.commander().await;
    let mut said = Vec::new();
    for text in [
        "",
        r#"{"type":"ping"}"#,
        r#"{"type":"command","command":"show_overlay","id":"1"}"#,
        r#"{"type":"command","command":"stop_tts"}"#,
    ] {
        if !text.is_empty() {
            client.say(text).await;
        }
        if text.contains("overlay") {
            soon(hub.commands.recv())
                .await
                .unwrap()
                .answer
                .send(Ok(()))
                .unwrap();
        } else if text.contains("tts") {
            let refused = (ErrorCode::NothingToDo, "nobody is speaking".to_owned());
            soon(hub.commands.recv())
                .await
                .unwrap()
                .answer
                .send(Err(refused))
                .unwrap();
        }
        let message = soon(client.socket.next()).await.unwrap().unwrap();
        said.push(message.into_text().unwrap().to_string());
    }
    assert_eq!(
        said,
        [
            r#"{"type":"status","data":{"status":"starting","text":"","is_listening":false,"is_speaking":false,"wake_word_detected":false,"overlay_visible":true,"monitoring":true,"jobs":[],"relay":{"state":"unknown","name":""},"engine":{"state":"unknown","name":""},"carrier":null,"seq":0}}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"ack","command":"show_overlay","id":"1"}"#,
            r#"{"type":"error","code":"nothing_to_do","message":"nobody is speaking","command":"stop_tts"}"#,
        ]
    );
}
