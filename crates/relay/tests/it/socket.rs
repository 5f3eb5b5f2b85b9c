//! The WebSocket carrier: slots, leases, reconnects and revoked keys.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hearth_relay::RelaySettings;
use proto::{
    End, ErrorCode, JobState,
    worker::{RelayMessage, Retry, SUBPROTOCOL, WorkerMessage},
};
use queue::{Keys as _, Owner, Queue as _, Scope};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    client::Client,
    in_time,
    server::Server,
    worker::{CHAT_DONE, Scripted, chat, report},
};

pub(crate) async fn submit(client: &Client, body: &str) -> proto::JobId {
    let body = format!(r#"{{"op":"chat","body":{body}}}"#);
    let job = client.post("/api/jobs", body).await.json().await;
    job["id"].as_str().unwrap().parse().unwrap()
}

pub(crate) const CHAT: &str = r#"{"model":"m"}"#;

#[tokio::test]
async fn a_worker_holds_no_more_than_its_slots() {
    let server = Server::start().await;
    let client = server.requester().await;
    for _ in 0..3 {
        submit(&client, CHAT).await;
    }
    let mut worker = Scripted::serving(&server, "default", &["m"], 2).await;
    let (one, two) = (worker.lease().await, worker.lease().await);
    assert_eq!(server.store.counts().leased, 2);
    worker.say(&WorkerMessage::Capacity { slots: 0 }).await;
    worker.answer(&one, &["a"]).await;
    worker.answer(&two, &["b"]).await;
    assert_eq!(server.store.counts().queued, 1, "paused");
    worker.say(&WorkerMessage::Capacity { slots: 1 }).await;
    worker.lease().await;
}

#[tokio::test]
async fn a_worker_gets_only_what_it_can_run_and_may_have() {
    let server = Server::start().await;
    let client = server.requester().await;
    submit(&client, r#"{"model":"huge"}"#).await;
    let other = server.client("other", &[Scope::Enqueue]).await;
    submit(&other, CHAT).await;
    let mine = submit(&client, CHAT).await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 9).await;
    assert_eq!(worker.lease().await.token().job, mine);
    worker
        .say(&WorkerMessage::Report {
            report: report(&["huge"]),
        })
        .await;
    assert_eq!(worker.lease().await.head.model.as_str(), "huge");
}

#[tokio::test]
async fn a_worker_whose_engine_is_down_gets_nothing_until_it_is_up() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 0).await;
    let mut down = report(&["m"]);
    down.engine_up = false;
    worker.say(&WorkerMessage::Report { report: down }).await;
    worker.say(&WorkerMessage::Capacity { slots: 1 }).await;
    // Messages are processed in order: this answer comes after both.
    worker.is_answered().await;
    submit(&client, CHAT).await;
    assert_eq!(server.store.counts().leased, 0);
    worker
        .say(&WorkerMessage::Report {
            report: report(&["m"]),
        })
        .await;
    worker.lease().await;
}

#[tokio::test]
async fn large_bodies_and_lines_travel_in_parts() {
    let server = Server::start().await;
    let client = server.requester().await;
    let large = "ą".repeat(400_000);
    let body = format!(r#"{{"model":"m","x":"{large}"}}"#);
    let id = submit(&client, &body).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    assert_eq!(job.body, body);
    worker.line(job.token(), 1, &chat(&large)).await;
    worker.line(job.token(), 2, CHAT_DONE).await;
    worker.end(job.token(), 2, End::Completed).await;
    let events = client
        .get(&format!("/api/jobs/{id}/events"))
        .await
        .text()
        .await;
    assert!(events.contains(&chat(&large)));
}

#[tokio::test]
async fn a_worker_is_told_what_is_on_disk() {
    let server = Server::start().await;
    let client = server.requester().await;
    submit(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("a")).await;
    let told = worker.frame().await.into_text().unwrap();
    let told: RelayMessage = serde_json::from_str(&told).unwrap();
    assert_eq!(
        told,
        RelayMessage::Stored {
            token: job.token(),
            n: 1
        }
    );
}

#[tokio::test]
async fn a_worker_that_comes_back_goes_on_with_what_it_holds() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submit(&client, CHAT).await;
    let key = server.key("default", &[Scope::Work]).await;
    let mut worker = Scripted::hello(&server, &key, &["m"], vec![]).await;
    worker.next().await;
    worker.say(&WorkerMessage::Capacity { slots: 1 }).await;
    let token = worker.lease().await.token();
    worker.line(token, 1, &chat("one")).await;
    worker.frame().await;
    drop(worker);

    let gone = proto::LeaseToken {
        attempt: 7,
        ..token
    };
    let mut worker = Scripted::hello(&server, &key, &["m"], vec![token, gone]).await;
    assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
    assert_eq!(
        worker.next().await,
        RelayMessage::Resume { token, stored: 1 }
    );
    let code = Some(ErrorCode::StaleLease);
    assert_eq!(
        worker.next().await,
        RelayMessage::Closed { token: gone, code }
    );
    worker.line(token, 2, CHAT_DONE).await;
    worker.end(token, 2, End::Completed).await;
    let job = server.store.get(Owner::Anyone, id).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Completed, 1));
}

#[tokio::test]
async fn a_connection_whose_worker_came_back_gets_no_more_jobs_unless_it_speaks() {
    let server = Server::start().await;
    let client = server.requester().await;
    let key = server.key("default", &[Scope::Work]).await;
    let mut workers = Vec::new();
    for _ in 0..2 {
        let mut worker = Scripted::hello(&server, &key, &["m"], vec![]).await;
        assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
        worker.say(&WorkerMessage::Capacity { slots: 3 }).await;
        // This answer comes after the capacity was processed.
        worker.is_answered().await;
        workers.push(worker);
    }
    let [old, new] = workers.as_mut_slice() else {
        panic!("two connections")
    };
    for _ in 0..3 {
        submit(&client, CHAT).await;
    }
    for _ in 0..3 {
        new.lease().await;
    }
    // These are two agents of one name: the first connection is alive after all.
    submit(&client, CHAT).await;
    old.is_answered().await;
    old.lease().await;
}

#[tokio::test]
async fn a_lease_of_another_account_cannot_be_taken_over() {
    let server = Server::start().await;
    let client = server.requester().await;
    submit(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let token = worker.lease().await.token();
    let key = server.key("other", &[Scope::Work]).await;
    let mut thief = Scripted::hello(&server, &key, &["m"], vec![token]).await;
    thief.next().await;
    let unknown = Some(ErrorCode::UnknownJob);
    assert_eq!(
        thief.next().await,
        RelayMessage::Closed {
            token,
            code: unknown
        }
    );
    thief
        .say(&WorkerMessage::End {
            token,
            lines: 0,
            end: End::Completed,
        })
        .await;
    let stale = Some(ErrorCode::StaleLease);
    assert_eq!(
        thief.next().await,
        RelayMessage::Closed { token, code: stale }
    );
    worker.line(token, 1, CHAT_DONE).await;
    worker.end(token, 1, End::Completed).await;
}

#[tokio::test]
async fn an_expired_lease_goes_to_another_worker_and_the_late_one_is_told() {
    let mut settings = RelaySettings::default();
    settings.lease = Duration::from_millis(30);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    submit(&client, CHAT).await;
    let mut late = Scripted::ready(&server).await;
    let token = late.lease().await.token();
    let code = Some(ErrorCode::StaleLease);
    assert_eq!(late.next().await, RelayMessage::Closed { token, code });
    let again = late.lease().await.token();
    assert_eq!((again.job, again.attempt), (token.job, 2));
}

#[tokio::test]
async fn a_running_job_ends_at_its_deadline_and_its_worker_is_told_to_stop() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let body = format!(r#"{{"op":"chat","deadline_ms":400,"body":{CHAT}}}"#);
    let job = client.post("/api/jobs", body).await.json().await;
    let lease = worker.lease().await;
    let remaining = lease.head.remaining_ms.unwrap();
    assert!((1..=400).contains(&remaining), "{remaining}");
    worker.line(lease.token(), 1, &chat("one")).await;
    let (token, code) = (lease.token(), Some(ErrorCode::StaleLease));
    assert_eq!(worker.next().await, RelayMessage::Closed { token, code });
    let path = format!("/api/jobs/{}", job["id"].as_str().unwrap());
    let late = client.get(&path).await.json().await;
    assert_eq!(
        (&late["state"], &late["error"]["code"]),
        (&"failed".into(), &"deadline_exceeded".into())
    );
}

#[tokio::test]
async fn a_job_given_back_for_good_fails_with_the_workers_reason() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submit(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let token = worker.lease().await.token();
    let (code, message) = (ErrorCode::EngineRefused, "no such option".to_owned());
    worker
        .say(&WorkerMessage::Nack {
            token,
            retry: Retry::Never,
            code,
            message,
            engine_status: None,
        })
        .await;
    assert_eq!(
        worker.next().await,
        RelayMessage::Closed { token, code: None }
    );
    let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(job["error"]["message"], "no such option");
}

#[tokio::test]
async fn a_worker_cannot_cancel_what_nobody_withdrew() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = submit(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let token = worker.lease().await.token();
    worker.end(token, 0, End::Cancelled).await;
    let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(job["state"], "failed");
}

#[tokio::test]
async fn a_connection_that_breaks_the_protocol_is_closed_with_4007() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Work]).await;
    for first in [
        Message::text("sing"),
        Message::text(r#"{"type":"capacity","slots":1}"#),
        Message::binary(vec![2; 40]),
    ] {
        let (socket, _) = Scripted::dial(&server, &key, SUBPROTOCOL).await.unwrap();
        let mut worker = Scripted { socket };
        worker.socket.send(first).await.unwrap();
        assert_eq!(worker.close_code().await, 4007);
    }
    for later in [
        Message::text("sing"),
        Message::binary(vec![9; 40]),
        Message::binary(vec![2; 3]),
    ] {
        let mut worker = Scripted::ready(&server).await;
        worker.socket.send(later).await.unwrap();
        assert_eq!(worker.close_code().await, 4007);
    }
    let client = server.requester().await;
    submit(&client, CHAT).await;
    let mut worker = Scripted::ready(&server).await;
    let token = worker.lease().await.token();
    worker.line(token, 2, "{}").await;
    assert_eq!(worker.close_code().await, 4007, "line 1 is missing");
}

#[tokio::test]
async fn a_connection_without_a_hello_is_closed_with_4007() {
    let mut settings = RelaySettings::default();
    settings.hello_patience = Duration::from_millis(50);
    let server = Server::with(settings).await;
    let key = server.key("default", &[Scope::Work]).await;
    let (socket, _) = Scripted::dial(&server, &key, SUBPROTOCOL).await.unwrap();
    let mut worker = Scripted { socket };
    // A sign of life is not a hello.
    let ping = Message::Ping(Bytes::new());
    worker.socket.send(ping).await.unwrap();
    let (code, reason) = in_time(worker.closed()).await;
    assert_eq!((code, reason.as_str()), (4007, "no hello in time"));
}

#[tokio::test]
async fn a_worker_that_closes_is_answered_and_one_that_breaks_a_rule_is_told() {
    let server = Server::start().await;
    let mut leaving = Scripted::ready(&server).await;
    leaving.socket.close(None).await.unwrap();
    while !in_time(leaving.frame()).await.is_close() {}
    let mut broken = Scripted::ready(&server).await;
    // A frame with reserved bits, masked with zeros, and more.
    let sent = [&[0xf1, 0x80, 0, 0, 0, 0][..], &[0; 4096]].concat();
    broken.socket.get_mut().write_all(&sent).await.unwrap();
    assert_eq!(in_time(broken.close_code()).await, 1002);
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_disconnected_and_no_longer_listed_as_online() {
    let mut settings = RelaySettings::default();
    settings.carrier_patience = Duration::from_millis(200);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let mut silent = Scripted::ready(&server).await;
    // The relay sends no close frame, because nothing is there to read it.
    while in_time(silent.socket.next())
        .await
        .is_some_and(|frame| frame.is_ok())
    {}
    let tags = client.get("/api/tags").await;
    assert_eq!(tags.header("x-hearth-workers"), "0");
    let refused = client.post("/api/chat", "{}").await;
    assert_eq!(refused.header("x-hearth-error"), "no_worker");
}

#[tokio::test]
async fn an_upgrade_needs_a_work_key_and_the_subprotocol() {
    let server = Server::start().await;
    let status = |dialled: Result<_, Error>| match dialled {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    let key = server.key("default", &[Scope::Work]).await;
    let read = server.key("default", &[Scope::Read]).await;
    assert_eq!(
        status(Scripted::dial(&server, &key, SUBPROTOCOL).await),
        101
    );
    assert_eq!(status(Scripted::dial(&server, &key, "other").await), 400);
    assert_eq!(
        status(Scripted::dial(&server, &read, SUBPROTOCOL).await),
        403
    );
    assert_eq!(
        status(Scripted::dial(&server, "hearth_x", SUBPROTOCOL).await),
        401
    );
}

#[tokio::test]
async fn a_revoked_key_loses_its_held_poll_and_its_open_stream() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let poller = server.client("default", &[Scope::Work]).await;
    let other = server.requester().await;
    let id = submit(&client, CHAT).await;
    let path = format!("/api/jobs/{id}/events");
    let (events, others) = (client.get(&path).await, other.get(&path).await);
    let body = r#"{"worker":"w","version":"0","free":0,"wait_ms":25000,"report":{"engine":"ollama","engine_version":"","engine_up":true,"models":[]}}"#;
    let held = tokio::spawn(async move { poller.post("/api/worker/v1/poll", body).await });
    for key in ["key-0", "key-1"] {
        let now = proto::Timestamp(1);
        assert!(server.store.revoke_key(now, key).await.unwrap());
    }
    events.broken_off().await;
    let refused = held.await.unwrap();
    assert_eq!(refused.status, http::StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json().await["error"]["code"], "unauthorized");

    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    worker.answer(&job, &["a"]).await;
    assert!(others.text().await.contains("completed"), "its key is good");
}

/// The README promises five seconds.
#[tokio::test]
async fn a_key_that_another_process_revoked_loses_its_connection_within_five_seconds() {
    let server = Server::start().await;
    let mut worker = Scripted::ready(&server).await;
    let (now, key) = (proto::Timestamp(1), "key-0");
    assert!(server.store.revoke_key(now, key).await.unwrap());
    let closed = tokio::time::timeout(Duration::from_secs(5), worker.close_code());
    assert_eq!(closed.await.unwrap(), 4009);
}

#[tokio::test]
async fn a_revoked_key_loses_its_connection() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    let mut worker = Scripted::ready(&server).await;
    assert!(
        server
            .store
            .revoke_key(proto::Timestamp(1), "key-0")
            .await
            .unwrap()
    );
    assert_eq!(in_time(worker.close_code()).await, 4009);
}
