//! A program without the token asks, and the owner decides in the tray.

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_agent::{Consent, TrayAct, TrayItem};
use proto::status::Phase;
use serde_json::{Value, json};
use tests::scripted_ollama::ScriptedOllama;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::support::{Running, Seen, settings, soon, with_engine};

fn question(seen: &Seen) -> Option<TrayAct> {
    let items = &seen.trays.last()?.items;
    items.iter().find_map(|item| match item {
        TrayItem::Action {
            act:
                act @ TrayAct::Approve {
                    consent: Consent::Once,
                    ..
                },
            ..
        } => Some(*act),
        TrayItem::Action { .. }
        | TrayItem::Line(_)
        | TrayItem::Separator
        | TrayItem::Check { .. } => None,
    })
}

#[tokio::test]
async fn a_program_that_asks_stands_in_the_tray_and_a_click_lets_it() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let (mut socket, _) = soon(connect_async(format!("ws://{}/", agent.handle.hub().addr)))
        .await
        .unwrap();
    let pause = json!({ "type": "command", "command": "set_monitoring", "id": "a",
        "args": { "on": false }, "name": "my dock" });
    soon(socket.send(Message::text(pause.to_string())))
        .await
        .unwrap();
    let seen = agent.shell(|seen| question(seen).is_some()).await;
    assert!(seen.trays.last().unwrap().tooltip.contains("my dock"));
    assert!(
        agent.until(|_| true).await.monitoring,
        "not before the owner's word"
    );

    agent.handle.act(question(&seen).unwrap());
    agent.until(|status| status.status == Phase::Paused).await;
    agent.shell(|seen| question(seen).is_none()).await;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let message = soon(socket.next()).await.unwrap().unwrap();
        let value: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if value["type"] != "status" {
            answers.push(value);
        }
    }
    assert_eq!(answers[0]["code"], "approval_required");
    assert_eq!(
        answers[1],
        json!({ "type": "ack", "command": "set_monitoring", "id": "a" })
    );
    agent.stop().await;
}
