//! Other programs that publish fields of the status.

use std::time::Duration;

use hearth_status::Limits;
use proto::{ErrorCode, status::Command};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{
    peer::Peer,
    support::{TestHub, soon},
};

async fn publish(peer: &mut Peer, fields: &Value, takeover: bool) -> Value {
    let message = json!({ "type": "publish", "id": "p", "fields": fields, "takeover": takeover });
    peer.say(&message).await;
    let response = peer.said().await;
    assert_eq!(
        (&response["type"], &response["id"]),
        (&json!("response"), &json!("p"))
    );
    response
}

async fn named(hub: &TestHub, name: &str) -> Peer {
    let mut peer = Peer::open(hub).await;
    peer.prove_as(hub, name, &[]).await;
    peer
}

#[tokio::test]
async fn what_a_publisher_says_is_shown_with_its_name_and_cleared_when_it_leaves() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.text = "Ready".into());
    let mut reader = hub.reader().await;
    let mut voice = named(&hub, "voice").await;
    let fields = json!({ "is_speaking": true, "text": "Good morning" });
    assert_eq!(publish(&mut voice, &fields, false).await["status"], 200);
    let shown = reader.until(|status| status.is_speaking).await;
    assert_eq!(shown.text, "Good morning");
    assert_eq!(shown.publishers[0].name, "voice");
    assert_eq!(shown.publishers[0].fields, ["is_speaking", "text"]);

    // The agent keeps publishing its own text, which shows again only once the field is released.
    hub.hub.update(|status| status.text = "Working".into());
    publish(&mut voice, &json!({ "text": null }), false).await;
    let shown = reader.until(|status| status.text == "Working").await;
    assert!(shown.is_speaking);

    drop(voice);
    let shown = reader.until(|status| status.publishers.is_empty()).await;
    assert!(!shown.is_speaking);
}

#[tokio::test]
async fn only_who_proved_the_token_and_has_a_name_may_publish() {
    let hub = TestHub::start().await;
    let mut bare = Peer::follower(&hub, &["status"]).await;
    let refused = publish(&mut bare, &json!({ "is_speaking": true }), true).await;
    assert_eq!(refused["code"], "unauthorized");
    let mut nameless = Peer::open(&hub).await;
    let identified = nameless.prove_as(&hub, "", &[]).await;
    assert_eq!(identified["rights"], json!(["read", "command"]));
    let refused = publish(&mut nameless, &json!({ "is_speaking": true }), false).await;
    assert_eq!(refused["code"], "unauthorized");
    assert!(hub.hub.latest().status().publishers.is_empty());

    let mut voice = named(&hub, "voice").await;
    for fields in [
        json!({ "is_speaking": "yes" }),
        json!({ "monitoring": false }),
        json!({ "relay": {} }),
        json!({ "text": "x".repeat(1025) }),
        json!(7),
    ] {
        let refused = publish(&mut voice, &fields, false).await;
        assert_eq!(refused["code"], "bad_request", "{fields}");
    }
    assert_eq!(hub.hub.latest().status().seq, 0);
}

#[tokio::test]
async fn of_two_who_want_one_field_the_second_is_told_and_a_takeover_tells_the_first() {
    let hub = TestHub::start().await;
    let (mut first, mut second) = (named(&hub, "one").await, named(&hub, "two").await);
    publish(
        &mut first,
        &json!({ "is_speaking": false, "text": "a" }),
        false,
    )
    .await;
    let refused = publish(&mut second, &json!({ "is_speaking": true }), false).await;
    assert_eq!(
        (&refused["status"], &refused["code"]),
        (&json!(409), &json!("field_taken"))
    );
    assert!(
        refused["message"].as_str().unwrap().contains("one"),
        "{refused}"
    );
    assert!(!hub.hub.latest().status().is_speaking);
    // A field without a holder can be taken, and releasing one that is not held is no error.
    let free = json!({ "is_listening": true, "text": null });
    assert_eq!(publish(&mut second, &free, false).await["status"], 200);
    assert_eq!(hub.hub.latest().status().text, "a");

    assert_eq!(
        publish(&mut second, &json!({ "is_speaking": true }), true).await["status"],
        200
    );
    let taken = json!({ "type": "taken", "fields": ["is_speaking"], "by": "two" });
    assert_eq!(first.said().await, taken);
    let latest = hub.hub.latest();
    assert!(latest.status().is_speaking);
    assert_eq!(latest.status().publishers[0].fields, ["text"]);
}

#[tokio::test]
async fn commands_of_the_voice_go_to_whoever_speaks_and_its_answer_comes_back() {
    let hub = TestHub::start().await;
    let mut voice = named(&hub, "voice").await;
    publish(&mut voice, &json!({ "is_speaking": true }), false).await;
    let (sender, answer) = oneshot::channel();
    hub.hub.pass_on(Command::SetVolume(30), sender);
    let request = voice.said().await;
    assert_eq!(request["request"], "set_volume");
    assert_eq!(request["args"], json!({ "volume": 30 }));
    voice
        .say(&json!({ "type": "response", "id": request["id"], "status": 200 }))
        .await;
    assert_eq!(soon(answer).await.unwrap(), Ok(()));

    let (sender, answer) = oneshot::channel();
    hub.hub.pass_on(Command::StopTts, sender);
    let request = voice.said().await;
    let response =
        json!({ "type": "response", "id": request["id"], "status": 409, "message": "done" });
    voice.say(&response).await;
    let refused = soon(answer).await.unwrap().unwrap_err();
    assert_eq!(refused, (ErrorCode::NothingToDo, "done".into()));
    // The command was answered; a second answer is an error.
    voice.say(&response).await;
    assert_eq!(voice.said().await["code"], "bad_request");
}

#[tokio::test]
async fn who_is_silent_may_be_made_quieter_before_it_speaks_and_has_nothing_to_stop() {
    let hub = TestHub::start().await;
    let (sender, answer) = oneshot::channel();
    hub.hub.pass_on(Command::SetVolume(30), sender);
    let refused = soon(answer).await.unwrap().unwrap_err();
    assert_eq!(refused.0, ErrorCode::NothingToDo, "nobody could speak");

    let mut voice = named(&hub, "voice").await;
    publish(&mut voice, &json!({ "is_speaking": false }), false).await;
    let (sender, answer) = oneshot::channel();
    hub.hub.pass_on(Command::StopTts, sender);
    let refused = soon(answer).await.unwrap().unwrap_err();
    assert_eq!(refused.0, ErrorCode::NothingToDo);
    let (sender, answer) = oneshot::channel();
    hub.hub.pass_on(Command::SetVolume(30), sender);
    // It is the first that the program hears: it was not asked to stop.
    let request = voice.said().await;
    assert_eq!(request["request"], "set_volume");
    voice
        .say(&json!({ "type": "response", "id": request["id"], "status": 200 }))
        .await;
    assert_eq!(soon(answer).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_publisher_that_does_not_answer_or_leaves_is_not_waited_for() {
    let limits = Limits {
        publisher: Duration::from_millis(100),
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut voice = named(&hub, "voice").await;
    publish(&mut voice, &json!({ "is_speaking": true }), false).await;
    let (sender, answer) = oneshot::channel();
    hub.hub.pass_on(Command::StopTts, sender);
    voice.said().await;
    let refused = soon(answer).await.unwrap().unwrap_err();
    assert_eq!(refused.0, ErrorCode::DeadlineExceeded);

    let (sender, answer) = oneshot::channel();
    hub.hub.pass_on(Command::StopTts, sender);
    voice.said().await;
    drop(voice);
    let refused = soon(answer).await.unwrap().unwrap_err();
    assert!(matches!(
        refused.0,
        ErrorCode::NothingToDo | ErrorCode::DeadlineExceeded
    ));

    let (sender, answer) = oneshot::channel();
    let mut silent = named(&hub, "silent").await;
    publish(&mut silent, &json!({ "is_speaking": false }), true).await;
    hub.hub.pass_on(Command::StopTts, sender);
    let refused = soon(answer).await.unwrap().unwrap_err();
    assert_eq!(refused.0, ErrorCode::NothingToDo, "nobody is speaking");
}

#[tokio::test]
async fn who_speaks_can_stop_itself_over_its_one_connection() {
    let mut hub = TestHub::start().await;
    let mut voice = named(&hub, "voice").await;
    publish(&mut voice, &json!({ "is_speaking": true }), false).await;
    let ask = |id: &str, request: &str| json!({ "type": "request", "id": id, "request": request });
    voice.say(&ask("stop", "stop_tts")).await;
    // Its own requests wait meanwhile.
    voice.say(&ask("ping", "ping")).await;
    let asked = soon(hub.commands.recv()).await.unwrap();
    hub.hub.pass_on(asked.command, asked.answer);
    let errand = voice.said().await;
    assert_eq!(
        (&errand["type"], &errand["request"]),
        (&json!("request"), &json!("stop_tts"))
    );
    voice
        .say(&json!({ "type": "response", "id": errand["id"], "status": 200 }))
        .await;
    for id in ["stop", "ping"] {
        let response = voice.said().await;
        assert_eq!(
            (&response["id"], &response["status"]),
            (&json!(id), &json!(200)),
            "{response}"
        );
    }
}

#[tokio::test]
async fn who_owes_an_answer_is_not_listened_to_without_end() {
    let limits = Limits {
        burst_v1: u32::MAX,
        publisher: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut hub = TestHub::with(limits, 0).await;
    let mut voice = named(&hub, "voice").await;
    publish(&mut voice, &json!({ "is_speaking": true }), false).await;
    let ask = |id: u32, request: &str| json!({ "type": "request", "id": id.to_string(), "request": request });
    voice.say(&ask(0, "stop_tts")).await;
    for n in 1..=40 {
        voice.say(&ask(n, "ping")).await;
    }
    let asked = soon(hub.commands.recv()).await.unwrap();
    hub.hub.pass_on(asked.command, asked.answer);
    let errand = voice.said().await;
    // The answer is not read in time behind so many messages, but nothing is lost.
    voice
        .say(&json!({ "type": "response", "id": errand["id"], "status": 200 }))
        .await;
    let late = voice.said().await;
    assert_eq!(
        (&late["id"], &late["code"]),
        (&json!("0"), &json!("deadline_exceeded"))
    );
    for n in 1..=40 {
        assert_eq!(voice.said().await["id"], n.to_string());
    }
    assert_eq!(voice.said().await["code"], "bad_request");
}
