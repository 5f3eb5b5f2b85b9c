//! A program without the token asks, and the owner decides, over real sockets.

use std::time::Duration;

use hearth_status::{Approvals, AskError, Consent, HubAddress, Limits, World, request};
use proto::{
    ErrorCode,
    status::{
        Command, CommandArgs,
        pair::{Pairs, Waiting},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    peer::Peer,
    support::{TestHub, soon},
};

struct Asked {
    hub: TestHub,
    owner: Approvals,
    home: TempDir,
}

impl Asked {
    async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let home = tempfile::tempdir().unwrap();
        let owner = Approvals::open(home.path(), World::default());
        let hub = TestHub::asking(limits, 0, Some(owner.clone())).await;
        Self { hub, owner, home }
    }

    /// The pending approval that the owner sees.
    async fn waiting(&self) -> Waiting {
        let mut pairs = self.owner.pairs();
        let is_asked = |pairs: &std::sync::Arc<Pairs>| !pairs.waiting.is_empty();
        let pairs = soon(pairs.wait_for(is_asked)).await.unwrap().clone();
        pairs.waiting[0].clone()
    }

    /// Receives the next command as the agent and answers it.
    async fn carry_out(&mut self) -> Command {
        let request = soon(self.hub.commands.recv()).await.unwrap();
        request.answer.send(Ok(())).unwrap();
        request.command
    }
}

/// A client without the token that subscribes to nothing, so that only answers arrive.
async fn stranger(hub: &TestHub, name: &str) -> Peer {
    let mut peer = Peer::open(hub).await;
    peer.say(&json!({ "type": "identify", "version": 1, "name": name, "subscriptions": [] }))
        .await;
    assert_eq!(peer.said().await["rights"], json!(["read"]));
    peer
}

async fn pause(peer: &mut Peer) -> Value {
    peer.request("set_monitoring", &json!({ "on": false }))
        .await
}

#[tokio::test]
async fn the_owner_sees_who_asks_and_once_is_once() {
    let mut asked = Asked::start().await;
    let mut peer = stranger(&asked.hub, "my dock").await;
    let first = pause(&mut peer).await;
    assert_eq!(
        (&first["status"], &first["code"]),
        (&json!(401), &json!("approval_required"))
    );
    let seen = asked.waiting().await;
    assert_eq!(first["approval"], seen.id);
    assert_eq!(
        (&*seen.who.name, &*seen.command),
        ("my dock", "set_monitoring")
    );
    if cfg!(target_os = "linux") {
        assert_eq!(seen.who.process, Some(std::process::id()));
        assert!(seen.who.file.is_some());
    }
    assert!(
        asked.hub.commands.try_recv().is_err(),
        "not before the owner's word"
    );

    asked.owner.approve(&seen.id, Consent::Once).await.unwrap();
    assert_eq!(asked.carry_out().await, Command::SetMonitoring(false));
    let done = peer.said().await;
    assert_eq!(
        (&done["status"], &done["approval"]),
        (&json!(200), &json!(seen.id))
    );
    assert_eq!(
        pause(&mut peer).await["code"],
        "approval_required",
        "once is once"
    );
}

#[tokio::test]
async fn a_no_is_told_and_the_program_cannot_ask_again_at_once() {
    let mut asked = Asked::start().await;
    let mut peer = stranger(&asked.hub, "dock").await;
    pause(&mut peer).await;
    let another = pause(&mut peer).await;
    assert_eq!(another["code"], "rate_limited", "one at a time");
    asked.owner.deny(&asked.waiting().await.id).unwrap();
    let refused = peer.said().await;
    assert_eq!(
        (&refused["status"], &refused["code"]),
        (&json!(403), &json!("approval_denied"))
    );
    // On Linux it is recognized as the same program over another connection.
    let mut again = stranger(&asked.hub, "dock").await;
    assert_eq!(pause(&mut again).await["code"], "approval_denied");
    assert!(asked.hub.commands.try_recv().is_err());
    assert!(asked.owner.pairs().borrow().waiting.is_empty());
}

#[tokio::test]
async fn an_unanswered_question_ends_as_a_no_and_who_leaves_is_forgotten() {
    let limits = Limits {
        approval: Duration::from_millis(50),
        ..Limits::default()
    };
    let asked = Asked::with(limits).await;
    let mut peer = stranger(&asked.hub, "dock").await;
    pause(&mut peer).await;
    assert_eq!(peer.said().await["code"], "approval_denied");
    assert!(asked.owner.pairs().borrow().waiting.is_empty());
    assert_eq!(
        pause(&mut peer).await["code"],
        "approval_required",
        "nobody said no"
    );
    peer.said().await;

    let asked = Asked::start().await;
    let mut peer = stranger(&asked.hub, "dock").await;
    pause(&mut peer).await;
    drop(peer);
    let mut pairs = asked.owner.pairs();
    soon(pairs.wait_for(|pairs| pairs.waiting.is_empty()))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_status_goes_on_while_the_owner_thinks() {
    let asked = Asked::start().await;
    let mut peer = Peer::follower(&asked.hub, &["status"]).await;
    pause(&mut peer).await;
    asked
        .hub
        .hub
        .update(|status| status.text = "meanwhile".into());
    peer.until(|status| status.text == "meanwhile").await;
    assert_eq!(peer.request("ping", &json!({})).await["status"], 200);
}

#[tokio::test]
async fn always_is_a_token_of_its_own_that_proves_itself_and_can_be_taken_away() {
    let mut asked = Asked::start().await;
    let mut peer = stranger(&asked.hub, "dock").await;
    pause(&mut peer).await;
    let id = asked.waiting().await.id;
    asked.owner.approve(&id, Consent::Always).await.unwrap();
    let granted = peer.said().await;
    assert_eq!(
        (&granted["type"], &granted["approval"]),
        (&json!("granted"), &json!(id))
    );
    let token = granted["token"].as_str().unwrap().to_owned();
    assert_ne!(token, asked.hub.token.expose());
    asked.carry_out().await;
    assert_eq!(peer.said().await["status"], 200);

    // The connection needs no second approval, and neither does one that proves the token later.
    peer.say(&json!({ "type": "request", "id": "x", "request": "quit" }))
        .await;
    assert_eq!(asked.carry_out().await, Command::Quit);
    assert_eq!(peer.said().await["status"], 200);
    let mut guest = Peer::open(&asked.hub).await;
    let identified = guest.prove_with(&token, "dock", &[]).await;
    assert_eq!(
        identified["rights"],
        json!(["read", "command"]),
        "not publish"
    );
    guest
        .say(&json!({ "type": "request", "id": "x", "request": "quit" }))
        .await;
    asked.carry_out().await;
    assert_eq!(guest.said().await["status"], 200);
    // So it is in the legacy mode, except that a client of it cannot decide for the owner.
    let mut legacy = crate::support::Client::open(asked.hub.addr, Some(&token)).await;
    legacy.say(r#"{"type":"command","command":"quit"}"#).await;
    asked.carry_out().await;
    for (word, args) in [
        ("pairs", json!({})),
        ("approve", json!({ "approval": "1", "always": true })),
        ("deny", json!({ "approval": "1" })),
        ("revoke", json!({ "grant": "1" })),
    ] {
        assert_eq!(
            guest.request(word, &args).await["code"],
            "unauthorized",
            "{word}"
        );
    }

    let grant = asked.owner.pairs().borrow().allowed[0].id.clone();
    asked.owner.revoke(&grant).await.unwrap();
    assert_eq!(
        guest.request("quit", &json!({})).await["code"],
        "approval_required"
    );
    assert!(asked.hub.commands.try_recv().is_err());
    let mut late = Peer::open(&asked.hub).await;
    late.say_proof(&token).await;
    assert_eq!(late.closed().await, 4009);
}

#[tokio::test]
async fn a_client_of_the_legacy_mode_is_asked_about_and_answered_in_its_own_words() {
    let mut asked = Asked::start().await;
    let mut client = asked.hub.reader().await;
    client
        .say(r#"{"type":"command","command":"stop_tts","id":"a","name":"founding overlay"}"#)
        .await;
    let answer = serde_json::to_value(client.answer().await).unwrap();
    assert_eq!(answer["code"], "approval_required");
    let seen = asked.waiting().await;
    assert_eq!(seen.who.name, "founding overlay");
    assert_eq!(answer["approval"], seen.id);
    asked
        .owner
        .approve(&seen.id, Consent::Always)
        .await
        .unwrap();
    let granted = serde_json::to_value(client.answer().await).unwrap();
    assert_eq!(granted["type"], "granted");
    assert_eq!(granted["token"].as_str().unwrap().len(), 64);
    asked.carry_out().await;
    let ack = serde_json::to_value(client.answer().await).unwrap();
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!("a")));
}

#[tokio::test]
async fn the_owners_own_program_lists_answers_and_revokes_over_the_hub() {
    let mut asked = Asked::start().await;
    let token = asked.home.path().join("hub.token");
    hearth_status::private_file::write(&token, asked.hub.token.expose().as_bytes()).unwrap();
    let at = HubAddress {
        addr: asked.hub.addr,
        token,
    };
    let mut peer = stranger(&asked.hub, "dock").await;
    pause(&mut peer).await;
    let id = asked.waiting().await.id;
    let approval = CommandArgs {
        approval: Some(id),
        always: Some(true),
        ..CommandArgs::default()
    };
    request(&at, "approve", approval.clone()).await.unwrap();
    assert_eq!(peer.said().await["type"], "granted");
    asked.carry_out().await;

    let pairs = request(&at, "pairs", CommandArgs::default()).await.unwrap();
    let pairs: Pairs = serde_json::from_value(pairs).unwrap();
    assert_eq!(
        (pairs.waiting.len(), &*pairs.allowed[0].who.name),
        (0, "dock")
    );
    let text = serde_json::to_string(&pairs).unwrap();
    assert!(!text.contains("token"), "{text}");
    let grant = Some(pairs.allowed[0].id.clone());
    request(
        &at,
        "revoke",
        CommandArgs {
            grant,
            ..CommandArgs::default()
        },
    )
    .await
    .unwrap();
    let refused = request(&at, "approve", approval).await.unwrap_err();
    assert!(matches!(
        refused,
        AskError::Refused {
            code: ErrorCode::NothingToDo,
            ..
        }
    ));
    let refused = request(&at, "deny", CommandArgs::default())
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        AskError::Refused {
            code: ErrorCode::BadRequest,
            ..
        }
    ));
}
