//! Fields that other programs publish: where they are shown, and where not.

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_agent::{TrayAct, TrayItem};
use proto::status::Command;
use serde_json::{Value, json};
use status::HubAddress;
use tests::scripted_ollama::ScriptedOllama;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::support::{Log, Running, Seen, settings, soon, with_engine};

/// A program with the token and a name.
pub(crate) struct Publisher(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Publisher {
    pub(crate) async fn join(hub: &HubAddress) -> Self {
        let mut request = format!("ws://{}/", hub.addr).into_client_request().unwrap();
        let token = std::fs::read_to_string(&hub.token).unwrap();
        let headers = request.headers_mut();
        let bearer = format!("Bearer {}", token.trim());
        headers.insert("authorization", bearer.parse().unwrap());
        headers.insert(
            "sec-websocket-protocol",
            "hearth.status.v1".parse().unwrap(),
        );
        let (socket, _) = soon(connect_async(request)).await.unwrap();
        let mut publisher = Self(socket);
        publisher.said("hello").await;
        let who = json!({ "type": "identify", "version": 1, "name": "voice", "subscriptions": [] });
        publisher.say(&who).await;
        publisher.said("identified").await;
        publisher
    }

    pub(crate) async fn publish(&mut self, fields: Value) {
        self.say(&json!({ "type": "publish", "id": "p", "fields": fields }))
            .await;
        assert_eq!(self.said("response").await["status"], 200);
    }

    /// Carries out the next command, and acknowledges it.
    pub(crate) async fn obeys(&mut self) -> Value {
        let request = self.said("request").await;
        let id = &request["id"];
        self.say(&json!({ "type": "response", "id": id, "status": 200 }))
            .await;
        request
    }

    async fn say(&mut self, message: &Value) {
        soon(self.0.send(Message::text(message.to_string())))
            .await
            .unwrap();
    }

    async fn said(&mut self, kind: &str) -> Value {
        loop {
            let message = soon(self.0.next()).await.unwrap().unwrap();
            if let Message::Text(text) = message {
                let value: Value = serde_json::from_str(&text).unwrap();
                if value["type"] == kind {
                    return value;
                }
            }
        }
    }
}

fn tooltip(seen: &Seen) -> &str {
    &seen.trays.last().unwrap().tooltip
}

#[tokio::test]
async fn what_a_publisher_says_stands_in_the_tray_and_goes_with_it() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let before = agent.shell(|seen| !seen.trays.is_empty()).await;
    let mut voice = Publisher::join(&agent.handle.hub()).await;
    voice.publish(json!({ "text": "Backup runs" })).await;
    agent
        .shell(|seen| tooltip(seen) == "Hearth: Backup runs")
        .await;
    voice.publish(json!({ "text": null })).await;
    agent.shell(|seen| tooltip(seen) == tooltip(&before)).await;
    voice.publish(json!({ "text": "Backup runs on" })).await;
    agent
        .shell(|seen| tooltip(seen) == "Hearth: Backup runs on")
        .await;
    drop(voice);
    agent.shell(|seen| tooltip(seen) == tooltip(&before)).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_without_a_desktop_logs_its_own_state_and_nobodys_words() {
    let log = Log::of_all();
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let agent = Running::headless(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let mut voice = Publisher::join(&agent.handle.hub()).await;
    let says = json!({ "is_speaking": true, "text": "Your results: nightingale" });
    voice.publish(says).await;
    agent.until(|status| status.is_speaking).await;
    voice.publish(json!({ "text": "Second nightingale" })).await;
    agent
        .until(|status| status.text == "Second nightingale")
        .await;
    agent.stop().await;
    let text = log.text();
    assert!(
        text.contains(r#"phase="relay_offline""#),
        "it says what it does"
    );
    let told: Vec<&str> = text.lines().filter(|l| l.contains("nightingale")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[tokio::test]
async fn who_speaks_is_asked_to_stop_or_to_be_quieter_and_its_answer_is_the_answer() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let mut voice = Publisher::join(&agent.handle.hub()).await;
    voice.publish(json!({ "is_speaking": true })).await;
    agent.until(|status| status.is_speaking).await;
    let louder = agent.hub.send(Command::SetVolume(30));
    let (asked, answered) = tokio::join!(voice.obeys(), louder);
    assert_eq!(asked["request"], "set_volume");
    assert_eq!(asked["args"]["volume"], 30);
    assert_eq!(answered, Ok(()));

    let stop = agent.hub.send(Command::StopTts);
    let (asked, answered) = tokio::join!(voice.obeys(), stop);
    assert_eq!(asked["request"], "stop_tts");
    assert_eq!(answered, Ok(()));

    // A click in the tray has the same effect; the item is in the menu while a program speaks.
    let stop = TrayAct::Command(Command::StopTts);
    let offers = |seen: &Seen| {
        let items = seen.trays.last().into_iter().flat_map(|tray| &tray.items);
        let mut acts = items.filter_map(|item| match item {
            TrayItem::Action { act, .. } => Some(*act),
            TrayItem::Line(_) | TrayItem::Separator | TrayItem::Check { .. } => None,
        });
        acts.any(|act| act == stop)
    };
    agent.shell(offers).await;
    agent.handle.act(stop);
    assert_eq!(voice.obeys().await["request"], "stop_tts");
    voice.publish(json!({ "is_speaking": false })).await;
    agent.shell(|seen| !offers(seen)).await;
    agent.stop().await;
}
