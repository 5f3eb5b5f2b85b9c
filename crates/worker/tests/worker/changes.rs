//! The engine's models are changed only if the owner permits it, whatever the relay sends.

use ::engine::EngineError;
use proto::{
    End, ErrorCode, ModelName, Op,
    worker::{
        DetailsRequest, LeaseHead, PollAnswer, PolledLease, RelayMessage, Retry, WorkerMessage,
    },
};

use super::{
    Scene, bounded,
    jobs::{end, nack},
    relay::{Heard, Link, Upgrade, head, token},
    scene_with,
};

const PULL: &str = r#"{"model":"new:1b"}"#;
const SUCCESS: &str = r#"{"status":"success"}"#;
const CHANGES: [(Op, &str); 4] = [
    (Op::Pull, PULL),
    (Op::Copy, r#"{"source":"tiny","destination":"other"}"#),
    (Op::Delete, r#"{"model":"tiny"}"#),
    (Op::Create, r#"{"model":"new","from":"tiny"}"#),
];

async fn ready(is_allowed: bool) -> (Scene, Link) {
    let mut scene = scene_with(|settings| settings.allow_model_changes = is_allowed).await;
    let (mut link, hello) = scene.relay.greeted().await;
    assert_eq!(hello.report.model_changes, is_allowed);
    link.until_capacity(2).await;
    (scene, link)
}

#[tokio::test]
async fn a_change_that_the_owner_does_not_allow_is_refused_for_good_and_never_reaches_the_engine() {
    let (mut scene, mut link) = ready(false).await;
    for ((op, body), n) in CHANGES.into_iter().zip(1..) {
        link.lease_for(op, token(n, 1), body).await;
        let refused = nack(&mut link).await;
        assert_eq!(refused, (Retry::Never, ErrorCode::Forbidden), "{op}");
    }
    assert!(scene.asked.try_recv().is_err(), "the engine was asked");
}

#[tokio::test]
async fn a_model_made_of_files_is_refused_even_where_changes_are_allowed() {
    let (mut scene, mut link) = ready(true).await;
    for (body, n) in [
        r#"{"model":"new","files":{"a.gguf":"sha256:00"}}"#,
        r#"{"model":"new","from":"tiny","ADAPTERS":{"a":"sha256:00"}}"#,
        r#"{"model":"new","modelfile":"FROM /home/owner/secret"}"#,
        r#"{"model":"new","path":"/home/owner/secret"}"#,
    ]
    .into_iter()
    .zip(1..)
    {
        link.lease_for(Op::Create, token(n, 1), body).await;
        let refused = nack(&mut link).await;
        assert_eq!(refused, (Retry::Never, ErrorCode::Forbidden), "{body}");
    }
    assert!(scene.asked.try_recv().is_err(), "the engine was asked");
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_refused_since_the_engine_might_read_it() {
    let (mut scene, mut link) = ready(true).await;
    let create = b"{\"model\":\"tiny\",\"modelfile\":\"FROM /home/owner/secret\",\"x\":\"\xff\"}";
    let chat = b"{\"model\":\"other\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}";
    for (n, op, body, code) in [
        (1, Op::Create, &create[..], ErrorCode::Forbidden),
        (2, Op::Chat, &chat[..], ErrorCode::BadRequest),
    ] {
        let head = LeaseHead {
            op,
            ..head(token(n, 1), body.len())
        };
        link.say(&RelayMessage::Lease(head)).await;
        link.body(token(n, 1), body).await;
        assert_eq!(nack(&mut link).await, (Retry::Never, code), "{op}");
    }
    assert!(scene.asked.try_recv().is_err(), "the engine was asked");
}

#[tokio::test]
async fn an_allowed_change_takes_no_slot_and_goes_to_the_engine_as_it_came() {
    let (mut scene, mut link) = ready(true).await;
    for n in 1..=2 {
        link.lease(token(n, 1), super::BODY).await;
    }
    let _running = [scene.asked().await, scene.asked().await];
    for ((op, body), n) in CHANGES.into_iter().zip(3..) {
        link.lease_for(op, token(n, 1), body).await;
        let asked = scene.asked().await;
        assert_eq!((asked.op, asked.body.0.as_ref()), (op, body.as_bytes()));
        asked.say(SUCCESS).await;
        drop(asked);
        assert_eq!(link.line().await, (1, SUCCESS.into()));
        assert_eq!(end(&mut link).await, (1, End::Completed));
    }
}

#[tokio::test]
async fn the_models_are_told_before_the_line_that_says_they_changed() {
    let (mut scene, mut link) = ready(true).await;
    link.lease_for(Op::Pull, token(1, 1), PULL).await;
    let asked = scene.asked().await;
    asked.say(r#"{"status":"pulling manifest"}"#).await;
    assert_eq!(link.line().await.0, 1);
    scene.engine.set_models(&[("new:1b", false)]);
    asked.say(SUCCESS).await;
    let told = loop {
        match link.hear().await {
            Heard::Message(WorkerMessage::Report { report }) => break report,
            Heard::Message(WorkerMessage::Capacity { .. }) => {}
            other => panic!("before the models: {other:?}"),
        }
    };
    assert_eq!(told.models[0].name.as_str(), "new:1b");
    assert!(told.model_changes, "the owner's word still holds");
    assert_eq!(link.line().await, (2, SUCCESS.into()));
}

#[tokio::test]
async fn over_polls_the_models_are_told_before_it_too() {
    let mut scene = scene_with(|settings| settings.allow_model_changes = true).await;
    let no_upgrade = Upgrade::Refuse(426, "no upgrade here", None);
    scene.relay.set_upgrade(no_upgrade);
    let poll = scene.relay.post().await;
    let lease = PolledLease {
        head: LeaseHead {
            op: Op::Pull,
            model: ModelName::new("new:1b").unwrap(),
            ..head(token(1, 1), PULL.len())
        },
        body: PULL.into(),
    };
    let answer = PollAnswer {
        leases: vec![lease],
        ..PollAnswer::default()
    };
    poll.answer(200, serde_json::to_string(&answer).unwrap());
    let asked = scene.asked().await;
    scene.engine.set_models(&[("new:1b", false)]);
    asked.say(SUCCESS).await;
    let mut held = Vec::new();
    let first = loop {
        let post = scene.relay.post().await;
        if post.path.ends_with("/poll") {
            held.push(post);
        } else {
            break post;
        }
    };
    let told: DetailsRequest = first.json();
    assert_eq!(told.report.unwrap().models[0].name.as_str(), "new:1b");
    first.answer(200, r#"{"report_wanted":false}"#);
    let lines = scene.relay.post_to("/lines", &mut held).await;
    assert_eq!(lines.body, format!("{SUCCESS}\n"));
}

#[tokio::test]
async fn a_change_that_fails_is_told_at_once_and_stops_no_leasing() {
    let (mut scene, mut link) = ready(true).await;
    for n in 1..=5 {
        link.lease_for(Op::Pull, token(n, 1), PULL).await;
        let asked = scene.asked().await;
        asked
            .fail(EngineError::Failed("no such model".into()))
            .await;
        let (0, End::Failed { error }) = end(&mut link).await else {
            panic!("a change is not tried again")
        };
        assert_eq!(error.message, "no such model");
    }
    link.lease(token(6, 1), super::BODY).await;
    bounded(scene.asked()).await;
}
