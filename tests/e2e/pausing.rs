//! Pausing works at once and is kept across restarts.

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_tests::process::PATIENCE;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, http},
};

use hearth_tests::test_bed::{TestBed, read_json};

/// A client of the hub, independent of Hearth's own.
pub(crate) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn open(
        bed: &TestBed,
        token: Option<&str>,
        origin: Option<&str>,
    ) -> Result<Self, u16> {
        let address = hearth_tests::process::finish(bed.hearth(&["status", "--address"])).await;
        let mut request = address.stdout.trim().into_client_request().unwrap();
        let headers = request.headers_mut();
        if let Some(token) = token {
            let bearer = http::HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            headers.insert(http::header::AUTHORIZATION, bearer);
        }
        if let Some(origin) = origin {
            headers.insert(http::header::ORIGIN, origin.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn next(&mut self) -> Value {
        let message = timeout(PATIENCE, self.0.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    /// The next message of this type.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }
}

/// The token, as a script finds it: in a private file of this user.
fn local_token(bed: &TestBed) -> String {
    let mut folders = vec![bed.home.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains("token") {
                use std::os::unix::fs::PermissionsExt as _;
                assert_eq!(
                    entry.metadata().unwrap().permissions().mode() & 0o777,
                    0o600
                );
                return std::fs::read_to_string(entry.path())
                    .unwrap()
                    .trim()
                    .to_owned();
            }
        }
    }
    panic!("there is no token file");
}

pub(crate) const TOGGLE: &str = r#"{"type":"command","command":"toggle_monitoring"}"#;

#[tokio::test]
async fn pausing_stops_leasing_at_once_is_shown_and_survives_a_restart() {
    let (mut bed, ollama) = TestBed::scripted().await;
    let token = local_token(&bed);
    let mut hub = Client::open(&bed, Some(&token), None).await.unwrap();
    let first = hub.next().await;
    assert_eq!(first["data"]["monitoring"], true);
    for field in [
        "status",
        "text",
        "is_listening",
        "is_speaking",
        "wake_word_detected",
    ] {
        assert!(
            !first["data"][field].is_null(),
            "{field} is missing: {first}"
        );
    }
    assert!(first["data"]["overlay_visible"].is_boolean());

    hub.send(TOGGLE).await;
    let answer = hub.next_of("ack").await;
    assert_eq!(answer["command"], "toggle_monitoring");
    bed.until("paused").await;
    assert_eq!(bed.status().await["monitoring"], false);
    let job = bed.submit("x").await.unwrap();

    bed.kill_agent().await;
    bed.start_agent().await;
    bed.until("paused").await;
    // Only an agent with a connection could take the job.
    let linked = async { while bed.status().await["relay"]["state"] != "up" {} };
    let linked = tokio::time::timeout(PATIENCE, linked).await;
    linked.expect("the agent has no link");
    let view = read_json(bed.get(&format!("/api/jobs/{job}"))).await;
    assert_eq!(view["state"], "queued", "nothing was leased while paused");
    assert!(ollama.requests_for("/api/chat").is_empty());

    let resumed = hearth_tests::process::finish(bed.hearth(&["resume"])).await;
    assert!(resumed.status.success(), "{}", resumed.stderr);
    let answered = bed.answer(job).await;
    assert_eq!(answered.ends[0]["state"], "completed");
}

#[tokio::test]
async fn the_hub_answers_everything_and_closes_on_nothing() {
    let (bed, _ollama) = TestBed::scripted().await;
    let token = local_token(&bed);
    let mut hub = Client::open(&bed, Some(&token), None).await.unwrap();
    for (sent, kind, code) in [
        (
            r#"{"type":"command","command":"dance"}"#,
            "error",
            json!("unknown_command"),
        ),
        ("not json", "error", json!("malformed_json")),
        (
            r#"{"type":"command","command":"stop_tts"}"#,
            "error",
            json!("nothing_to_do"),
        ),
        (r#"{"type":"ping"}"#, "pong", Value::Null),
        (
            r#"{"type":"command","command":"hide_overlay"}"#,
            "ack",
            Value::Null,
        ),
        (
            r#"{"type":"command","command":"show_overlay"}"#,
            "ack",
            Value::Null,
        ),
    ] {
        hub.send(sent).await;
        let answer = hub.next_of(kind).await;
        assert_eq!(answer["code"], code, "{sent} -> {answer}");
    }
}

#[tokio::test]
async fn a_client_without_the_token_may_look_but_not_touch_and_a_web_page_may_do_neither() {
    let (bed, _ollama) = TestBed::scripted().await;
    let mut reader = Client::open(&bed, None, None).await.unwrap();
    assert_eq!(reader.next().await["type"], "status");
    reader.send(TOGGLE).await;
    let refused = reader.next_of("error").await;
    assert_eq!(refused["code"], "approval_required", "{refused}");
    assert_eq!(bed.status().await["monitoring"], true, "nothing happened");

    let token = local_token(&bed);
    for origin in ["https://evil.example", "null", "http://127.0.0.1:8000"] {
        let page = Client::open(&bed, Some(&token), Some(origin)).await;
        assert_eq!(page.err(), Some(403), "{origin}");
    }
}
