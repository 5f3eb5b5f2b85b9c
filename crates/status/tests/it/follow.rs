//! The subscriber against the hub, and against misbehaving servers.

use std::{net::SocketAddr, path::Path, time::Duration};

use crate::support::{TestHub, soon};
use futures_util::{SinkExt as _, StreamExt as _};
use hearth_status::{
    AskError, HubAddress, Limits, Link, LocalToken, Places, Ports, Subscriber, SubscriberHandle,
    private_file,
};
use proto::{
    ErrorCode,
    status::{Command, Phase},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request as Asked, Response},
        http::HeaderValue,
    },
};
use tokio_util::sync::CancellationToken;

const STATUS: &str = r#"{"type":"status","data":{"status":"ready","text":"","is_listening":false,
"is_speaking":false,"wake_word_detected":false,"overlay_visible":true,"monitoring":true,"novelty":1}}"#;

pub(crate) struct Following {
    pub(crate) handle: SubscriberHandle,
    stop: CancellationToken,
    run: JoinHandle<()>,
}

impl Following {
    pub(crate) fn start(places: Places) -> Self {
        Self::of(Subscriber::new(places))
    }

    /// With a patience of 30 ms.
    pub(crate) fn impatient(places: Places) -> Self {
        let (subscriber, handle) = Subscriber::new(places);
        let patience = Duration::from_millis(30);
        Self::of((subscriber.patient(patience, patience), handle))
    }

    fn of((subscriber, handle): (Subscriber, SubscriberHandle)) -> Self {
        let stop = CancellationToken::new();
        let run = tokio::spawn(subscriber.run(stop.clone()));
        Self { handle, stop, run }
    }

    pub(crate) async fn until(&self, is_it: impl Fn(&Link) -> bool) -> Link {
        let mut link = self.handle.link();
        soon(async { link.wait_for(|link| is_it(link)).await.unwrap().clone() }).await
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon(self.run).await.unwrap();
    }
}

pub(crate) fn is_live(link: &Link) -> bool {
    matches!(link, Link::Live(_))
}

fn at(addr: SocketAddr, folder: &Path) -> Places {
    Places::At(HubAddress::new(addr, folder))
}

fn put_token(hub: &TestHub, folder: &Path) {
    private_file::write(&LocalToken::path_in(folder), hub.token.expose().as_bytes()).unwrap();
}

#[tokio::test]
async fn it_follows_the_status_says_when_it_is_lost_and_comes_back_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let hub = TestHub::start().await;
    let addr = hub.addr;
    let following = Following::start(at(addr, home.path()));
    following.until(is_live).await;
    hub.hub.update(|status| status.status = Phase::Working);
    following
        .until(|link| matches!(link, Link::Live(s) if s.status == Phase::Working))
        .await;

    hub.stop().await;
    let lost = following.until(|link| !is_live(link)).await;
    let Link::Lost {
        last: Some(last), ..
    } = lost
    else {
        panic!("nothing remembered")
    };
    assert_eq!(last.status, Phase::Working);
    assert_eq!(
        following.handle.send(Command::ShowOverlay).await,
        Err(AskError::Offline)
    );

    let hub = TestHub::with(Limits::default(), addr.port()).await;
    following.until(is_live).await;
    hub.stop().await;
    following.stop().await;
}

#[tokio::test]
async fn its_commands_are_answered_when_it_can_read_the_token() {
    let home = tempfile::tempdir().unwrap();
    let mut hub = TestHub::start().await;
    put_token(&hub, home.path());
    HubAddress::new(hub.addr, home.path())
        .publish(home.path())
        .unwrap();
    let following = Following::start(Places::In(home.path().into(), Ports::default()));
    let answering = async {
        let request = hub.commands.recv().await.unwrap();
        assert_eq!(request.command, Command::SetMonitoring(false));
        request.answer.send(Ok(())).unwrap();
        let request = hub.commands.recv().await.unwrap();
        request
            .answer
            .send(Err((ErrorCode::NothingToDo, "no".into())))
            .unwrap();
    };
    let asking = async {
        assert_eq!(
            following.handle.send(Command::SetMonitoring(false)).await,
            Ok(())
        );
        let refused = following.handle.send(Command::StopTts).await;
        let expected = AskError::Refused {
            code: ErrorCode::NothingToDo,
            message: "no".into(),
        };
        assert_eq!(refused, Err(expected));
    };
    soon(async { tokio::join!(answering, asking) }).await;
    following.stop().await;
}

#[tokio::test]
async fn without_the_token_it_reads_and_its_commands_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let hub = TestHub::start().await;
    let following = Following::start(at(hub.addr, home.path()));
    following.until(is_live).await;
    let refused = following.handle.send(Command::Quit).await.unwrap_err();
    assert!(
        matches!(
            refused,
            AskError::Refused {
                code: ErrorCode::Unauthorized,
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(is_live(&following.until(is_live).await));
    following.stop().await;
}

#[tokio::test]
async fn it_survives_a_peer_that_closes_after_each_command_and_speaks_of_unknown_things() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let following = Following::start(at(listener.local_addr().unwrap(), home.path()));
    let mut commands = Vec::new();
    for _ in 0..2 {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut peer = soon(accept_async(stream)).await.unwrap();
        for text in [
            "{",
            "7",
            r#"{"type":"dance"}"#,
            r#"{"type":"status","data":{}}"#,
            STATUS,
        ] {
            peer.send(Message::text(text)).await.unwrap();
        }
        following.until(is_live).await;
        let (asked, heard) =
            tokio::join!(following.handle.send(Command::ToggleMonitoring), async {
                let heard = soon(peer.next())
                    .await
                    .unwrap()
                    .unwrap()
                    .into_text()
                    .unwrap();
                drop(peer);
                heard
            });
        assert_eq!(asked, Err(AskError::Unanswered));
        following.until(|link| !is_live(link)).await;
        commands.push(heard);
    }
    assert!(
        commands
            .iter()
            .all(|text| text.contains(r#""command":"toggle_monitoring""#))
    );
    following.stop().await;
}

#[tokio::test]
async fn a_foreign_assistant_is_read_in_its_own_words_and_may_close_after_a_command() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let following = Following::start(at(listener.local_addr().unwrap(), home.path()));
    for (says, phase) in [
        (
            r#"{"type":"status","data":{"status":"Ready","text":"last spoken text","is_listening":false,"is_speaking":false,"wake_word_detected":false,"overlay_visible":false,"monitoring":true}}"#,
            Phase::Ready,
        ),
        (
            r#"{"type":"status","data":{"status":"mówię","text":"tak","is_speaking":true},"timestamp":"2025-07-19T10:00:00"}"#,
            Phase::Speaking,
        ),
    ] {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut peer = soon(accept_async(stream)).await.unwrap();
        peer.send(Message::text(says)).await.unwrap();
        following
            .until(|link| matches!(link, Link::Live(status) if status.status == phase))
            .await;
        let (asked, ()) = tokio::join!(following.handle.send(Command::StopTts), async {
            soon(peer.next()).await.unwrap().unwrap();
            drop(peer);
        });
        assert_eq!(asked, Err(AskError::Unanswered));
        following.until(|link| !is_live(link)).await;
    }
    following.stop().await;
}

#[tokio::test]
async fn a_published_hub_that_moved_is_found_at_its_new_port() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let hub = TestHub::start().await;
    HubAddress::new(hub.addr, folder).publish(folder).unwrap();
    let following = Following::start(Places::In(folder.into(), Ports::default()));
    following.until(is_live).await;
    hub.stop().await;
    following.until(|link| !is_live(link)).await;

    let moved = TestHub::start().await;
    HubAddress::new(moved.addr, folder).publish(folder).unwrap();
    following.until(is_live).await;
    following.stop().await;
}

/// A program that took the port, with or without `hearth.status.v1`.
#[expect(clippy::result_large_err, reason = "the library's own callback")]
async fn impostor(listener: &TcpListener, is_v1: bool) -> WebSocketStream<TcpStream> {
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let answer = |_: &Asked, mut response: Response| {
        if is_v1 {
            let spoken = HeaderValue::from_static("hearth.status.v1");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", spoken);
        }
        Ok(response)
    };
    soon(accept_hdr_async(stream, answer)).await.unwrap()
}

#[tokio::test]
async fn a_hub_that_cannot_prove_itself_is_not_believed_and_does_not_learn_the_token() {
    let home = tempfile::tempdir().unwrap();
    let token = LocalToken::new([9; 32]);
    let path = LocalToken::path_in(home.path());
    private_file::write(&path, token.expose().as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let following = Following::start(at(listener.local_addr().unwrap(), home.path()));
    let nonce = "01".repeat(32);
    let proof = "02".repeat(32);
    for answer in [
        format!(
            r#"{{"type":"identified","version":1,"rights":[],"subscriptions":[],"proof":"{proof}"}}"#
        ),
        r#"{"type":"identified","version":1,"rights":["command"],"subscriptions":[]}"#.to_owned(),
        STATUS.to_owned(),
    ] {
        let mut peer = impostor(&listener, true).await;
        let hello = format!(
            r#"{{"type":"hello","versions":[1],"nonce":"{nonce}","server":"x","identify_within_ms":9}}"#
        );
        peer.send(Message::text(hello)).await.unwrap();
        let identify = soon(peer.next())
            .await
            .unwrap()
            .unwrap()
            .into_text()
            .unwrap();
        assert!(identify.contains(r#""proof":"#) && !identify.contains(token.expose()));
        for text in [&*answer, STATUS] {
            let _ = peer.send(Message::text(text)).await;
        }
        // It closes; no status from it counts.
        while let Some(Ok(_)) = soon(peer.next()).await {}
        assert!(!is_live(&following.handle.link().borrow()));
    }
    // A server with only the legacy mode is not believed either: there is a token, so it is not our
    // hub.
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let mut peer = soon(accept_async(stream)).await.unwrap();
    let _ = peer.send(Message::text(STATUS)).await;
    while let Some(Ok(_)) = soon(peer.next()).await {}
    assert!(!is_live(&following.handle.link().borrow()));
    following.stop().await;
}

#[tokio::test]
async fn with_the_token_it_sees_the_same_status_as_without() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = TestHub::start().await;
    put_token(&hub, home.path());
    let proven = Following::start(at(hub.addr, home.path()));
    let bare = Following::start(at(hub.addr, other.path()));
    for n in 0..5 {
        hub.hub.update(|status| {
            status.text = n.to_string();
            status.status = Phase::Working;
        });
        let truth = hub.hub.latest().status().clone();
        for following in [&proven, &bare] {
            following
                .until(|link| matches!(link, Link::Live(status) if **status == truth))
                .await;
        }
    }
    proven.stop().await;
    bare.stop().await;
}
