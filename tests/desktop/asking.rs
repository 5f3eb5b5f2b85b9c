//! A program without the token sends a command while the owner sees neither tray nor window.

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_tests::process::{PATIENCE, Process};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{
    app::{App, Look},
    notices::{Asked, Notices, click},
    session::DesktopSession,
    tray::{Tray, Watcher},
};

struct Dock(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Dock {
    async fn open(app: &App) -> Self {
        let dialled = connect_async(format!("ws://{}/", app.hub_addr()));
        Self(timeout(PATIENCE, dialled).await.unwrap().unwrap().0)
    }

    async fn asks(&mut self, command: &str) {
        let command = json!({ "type": "command", "command": command, "name": "a <b>dock</b>" });
        self.0
            .send(Message::text(command.to_string()))
            .await
            .unwrap();
        assert_eq!(self.hears("error").await["code"], "approval_required");
    }

    async fn hears(&mut self, kind: &str) -> Value {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await.unwrap().unwrap();
            let Message::Text(text) = message.unwrap() else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["type"] == kind {
                return message;
            }
        }
    }
}

/// Starts a separate process, because each process may have one pending approval. It opens a
/// WebSocket, sends one masked frame, and reads.
fn another_program_asks(app: &App) -> Process {
    const ASKS: &str = r#"{"type":"command","command":"show_overlay","name":"b"}"#;
    const SCRIPT: &str = r#"exec 3<>/dev/tcp/${1%:*}/${1#*:}
printf 'GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n' "$1" >&3
printf "\\201\\$(printf %o $((128 + ${#2})))\\000\\000\\000\\000%s" "$2" >&3
exec cat <&3 >/dev/null"#;
    let mut command = tokio::process::Command::new("bash");
    let at = app.hub_addr().to_string();
    command
        .args(["-c", SCRIPT, "program", &at, ASKS])
        .kill_on_drop(true);
    Process::start("another program", command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_asks_is_a_notice_which_is_answered_there_or_goes_when_it_was_elsewhere() {
    let session = DesktopSession::new().await;
    let watcher = Watcher::new(&session).await;
    let mut notices = Notices::new(&session).await;
    let app = App::start(&session, Look::Light).await;
    let tray = Tray::of(&watcher).await;
    let hub = app.hub();
    hub.until(|status| status.monitoring).await;

    let mut dock = Dock::open(&app).await;
    dock.asks("toggle_monitoring").await;
    let Asked::Notify {
        id,
        title,
        body,
        actions,
    } = notices.asked().await
    else {
        panic!("a notice comes first")
    };
    assert_eq!(title, "a <b>dock</b>", "a title is never markup");
    assert!(
        body.starts_with("wants to send a command (toggle_monitoring)\n"),
        "{body}"
    );
    let labels: Vec<_> = actions.iter().skip(1).step_by(2).collect();
    assert_eq!(labels, ["Hearth", "Allow once", "Always allow", "Deny"]);
    // Signals from other programs than the notification server do not count, nor do clicks
    // elsewhere.
    let (once, no) = (&actions[2], &actions[6]);
    let stranger = zbus::connection::Builder::address(session.bus()).unwrap();
    click(&stranger.build().await.unwrap(), id, no).await;
    notices.click(id + 1, no).await;
    tray.until_item("Allow once").await;
    hub.until(|status| status.monitoring).await;

    notices.click(id, once).await;
    hub.until(|status| !status.monitoring).await;
    assert_eq!(dock.hears("ack").await["command"], "toggle_monitoring");
    assert_eq!(notices.asked().await, Asked::Close(id));

    dock.asks("toggle_monitoring").await;
    let Asked::Notify { id, .. } = notices.asked().await else {
        panic!("a notice for the second question")
    };
    tray.until_item("Deny").await;
    tray.click("Deny").await;
    assert_eq!(notices.asked().await, Asked::Close(id));
    assert_eq!(dock.hears("error").await["code"], "approval_denied");
    app.quit_over(&tray).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_notice_outlives_the_app() {
    let session = DesktopSession::new().await;
    let mut notices = Notices::new(&session).await;
    let app = App::start(&session, Look::Light).await;
    let mut dock = Dock::open(&app).await;
    dock.asks("toggle_monitoring").await;
    let Asked::Notify { id, .. } = notices.asked().await else {
        panic!("a notice comes first")
    };
    app.quit().await;
    assert_eq!(notices.asked().await, Asked::Close(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_the_desktop_refuses_leaves_the_others_alive() {
    let session = DesktopSession::new().await;
    let mut notices = Notices::new(&session).await;
    let app = App::start(&session, Look::Light).await;
    let mut first = Dock::open(&app).await;
    first.asks("toggle_monitoring").await;
    let Asked::Notify { id, actions, .. } = notices.asked().await else {
        panic!("a notice comes first")
    };
    notices.refuse_one();
    let _second = another_program_asks(&app);
    let refused = notices.asked().await;
    assert!(matches!(refused, Asked::Refused { .. }), "{refused:?}");
    // The first notification still works, and the refused one is retried.
    notices.click(id, &actions[6]).await;
    assert_eq!(first.hears("error").await["code"], "approval_denied");
    let then = [notices.asked().await, notices.asked().await];
    assert!(then.contains(&Asked::Close(id)), "{then:?}");
    let is_second = |asked: &Asked| matches!(asked, Asked::Notify { title, .. } if title == "b");
    assert!(then.iter().any(is_second), "{then:?}");
    app.quit().await;
}
