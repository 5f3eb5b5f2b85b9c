//! The HTTP carrier of Hearth's own workers: polls, lines and ends.

use std::{sync::Arc, time::Duration};

use hearth_relay::RelaySettings;
use http::StatusCode;
use proto::{
    End, ErrorCode, JobError, LeaseToken,
    worker::{PollAnswer, RelayMessage, WorkerMessage},
};
use queue::{Queue as _, Scope};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::Client,
    in_time,
    server::{Ahead, Server},
    worker::{CHAT_DONE, Scripted, chat, report},
};

pub(crate) struct Worker(pub(crate) Client);

impl Worker {
    pub(crate) async fn new(server: &Server) -> Self {
        Self(server.client("default", &[Scope::Work]).await)
    }

    /// Polls once with a report, without waiting.
    pub(crate) async fn poll(&self, free: u32, held: &[LeaseToken]) -> PollAnswer {
        self.poll_for(free, held, 0).await
    }

    pub(crate) async fn poll_for(
        &self,
        free: u32,
        held: &[LeaseToken],
        wait_ms: u64,
    ) -> PollAnswer {
        let body = json!({
            "worker": "w", "version": "0", "report": report(&["m"]),
            "free": free, "held": held, "wait_ms": wait_ms,
        });
        let reply = self.0.post("/api/worker/v1/poll", body.to_string()).await;
        reply.polled().await
    }

    pub(crate) async fn say(
        &self,
        token: LeaseToken,
        what: &str,
        body: String,
    ) -> (StatusCode, Value) {
        let LeaseToken { job, attempt } = token;
        let path = format!("/api/worker/v1/jobs/{job}/{attempt}/{what}");
        let reply = self.0.post(&path, body).await;
        (reply.status, reply.json().await)
    }
}

const CHAT: &str = r#"{"op":"chat","body":{"model":"m",  "x":1.50}}"#;

#[tokio::test]
async fn a_job_goes_over_plain_requests() {
    let server = Server::start().await;
    let client = server.requester().await;
    let worker = Worker::new(&server).await;
    let id = client.post("/api/jobs", CHAT).await.json().await["id"].take();
    let answer = worker.poll(1, &[]).await;
    let [lease] = answer.leases.as_slice() else {
        panic!("one lease")
    };
    assert_eq!(lease.body, r#"{"model":"m",  "x":1.50}"#);
    assert_eq!(lease.head.body_len, lease.body.len());
    let token = lease.head.token;

    let ok = |stored: u64| {
        (
            StatusCode::OK,
            json!({"stored": stored, "cancelled": false}),
        )
    };
    let lines = format!("{}\n{}\n", chat("a"), chat("b"));
    assert_eq!(
        worker.say(token, "lines?first=1", lines.clone()).await,
        ok(2)
    );
    assert_eq!(
        worker.say(token, "lines?first=1", lines).await,
        ok(2),
        "a repeat is skipped"
    );
    assert_eq!(worker.say(token, "extend", String::new()).await, ok(2));
    let (status, gap) = worker.say(token, "lines?first=9", chat("c")).await;
    assert_eq!(
        (status, &gap["error"]["code"]),
        (StatusCode::CONFLICT, &"chunk_gap".into())
    );
    assert_eq!(
        worker.say(token, "lines?first=3", CHAT_DONE.into()).await,
        ok(3)
    );
    let end = json!({"lines": 3, "end": End::Completed}).to_string();
    assert_eq!(worker.say(token, "end", end.clone()).await, ok(3));
    assert_eq!(
        worker.say(token, "end", end).await,
        ok(3),
        "a repeated end is confirmed again"
    );

    let path = format!("/api/jobs/{}/events", id.as_str().unwrap());
    let events = client.get(&path).await.text().await;
    assert!(
        events.contains(&chat("b")) && events.contains(r#"{"state":"completed"}"#),
        "{events}"
    );
    let (status, stale) = worker.say(token, "extend", String::new()).await;
    assert_eq!(
        (status, &stale["error"]["code"]),
        (StatusCode::CONFLICT, &"stale_lease".into())
    );
}

#[tokio::test]
async fn a_held_poll_is_answered_by_work_and_by_a_cancellation() {
    let server = Server::start().await;
    let client = server.requester().await;
    let worker = std::sync::Arc::new(Worker::new(&server).await);
    let held = tokio::spawn({
        let worker = worker.clone();
        async move { worker.poll_for(1, &[], 20_000).await }
    });
    let id = client.post("/api/jobs", CHAT).await.json().await["id"].take();
    let token = held.await.unwrap().leases[0].head.token;

    let held = tokio::spawn({
        let worker = worker.clone();
        async move { worker.poll_for(0, &[token], 20_000).await }
    });
    let path = format!("/api/jobs/{}", id.as_str().unwrap());
    client.send(http::Method::DELETE, &path, "").await;
    assert_eq!(held.await.unwrap().cancelled, [token]);
    let (_, answer) = worker.say(token, "extend", String::new()).await;
    assert_eq!(answer["cancelled"], true);
    let nack = json!({"retry": "never", "code": "cancelled", "message": ""}).to_string();
    assert_eq!(worker.say(token, "nack", nack).await.0, StatusCode::OK);
    assert_eq!(client.get(&path).await.json().await["state"], "cancelled");
}

#[tokio::test]
async fn a_poll_with_nothing_to_tell_ends_with_its_hold() {
    let server = Server::start().await;
    let worker = Worker::new(&server).await;
    assert_eq!(worker.poll_for(1, &[], 20).await, PollAnswer::default());
}

#[tokio::test]
async fn a_newer_poll_of_the_same_worker_ends_the_older_at_once() {
    let server = Server::start().await;
    let worker = std::sync::Arc::new(Worker::new(&server).await);
    // Both with and without a report, a poll replaces the previous one.
    for newer in [
        json!({"worker": "w", "version": "0", "report": report(&["m"]), "free": 0, "wait_ms": 0}),
        json!({"worker": "w", "version": "0", "free": 0, "wait_ms": 0}),
    ] {
        let held = tokio::spawn({
            let worker = worker.clone();
            async move { worker.poll_for(1, &[], 25_000).await }
        });
        let reader = server.client("default", &[Scope::Read]).await;
        let known =
            async { while reader.get("/api/tags").await.text().await == r#"{"models":[]}"# {} };
        crate::in_time(known).await;
        let path = "/api/worker/v1/poll";
        while !held.is_finished() {
            // The worker's first poll may not have arrived yet.
            let reply = worker.0.post(path, newer.to_string()).await;
            assert!(reply.status.is_success(), "{}", reply.status);
        }
        assert_eq!(held.await.unwrap(), PollAnswer::default());
    }
}

#[tokio::test]
async fn a_poll_names_no_more_leases_than_a_worker_may_hold() {
    let server = Server::start().await;
    let worker = Worker::new(&server).await;
    let token = |n: u8| LeaseToken {
        job: proto::JobId([n; 16]),
        attempt: 1,
    };
    let mut held: Vec<_> = (1..=64).map(token).collect();
    assert_eq!(worker.poll(0, &held).await.gone, held);
    held.push(token(65));
    let body = json!({"worker": "w", "version": "0", "free": 0, "held": held, "wait_ms": 0});
    let refused = worker.0.post("/api/worker/v1/poll", body.to_string()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json().await["error"]["code"], "bad_request");
}

#[tokio::test]
async fn an_unknown_worker_is_asked_for_its_report() {
    let server = Server::start().await;
    let client = server.requester().await;
    client.post("/api/jobs", CHAT).await;
    let worker = Worker::new(&server).await;
    let body = r#"{"worker":"w","version":"0","free":1,"wait_ms":20000}"#;
    let answer = worker
        .0
        .post("/api/worker/v1/poll", body)
        .await
        .json()
        .await;
    assert_eq!(answer["report_wanted"], true);
    assert_eq!(answer["leases"], json!([]));
    worker.poll(0, &[]).await;
    let answer = worker
        .0
        .post("/api/worker/v1/poll", body)
        .await
        .json()
        .await;
    assert_eq!(answer["leases"][0]["model"], "m", "now it is known");
}

#[tokio::test]
async fn a_worker_that_polls_is_online_until_it_has_been_silent_too_long() {
    let mut settings = RelaySettings::default();
    settings.online_after_poll = Duration::ZERO;
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let worker = Worker::new(&server).await;
    worker.poll(0, &[]).await;
    let refused = client.post("/api/chat", "{}").await;
    assert_eq!(refused.header("x-hearth-error"), "no_worker");
    let tags = client.get("/api/tags").await.text().await;
    assert!(
        tags.contains(r#""name":"m""#),
        "what it told is remembered: {tags}"
    );
    let models = client.get("/v1/models").await.json().await;
    assert_eq!(models["data"][0]["id"], "m", "there too");
    assert_eq!(client.get("/v1/models/m").await.status, StatusCode::OK);

    let server = Server::start().await;
    let client = server.requester().await;
    let worker = Worker::new(&server).await;
    worker.poll(0, &[]).await;
    assert!(
        client
            .get("/api/tags")
            .await
            .text()
            .await
            .contains(r#""name":"m""#)
    );
}

#[tokio::test]
async fn leases_that_are_over_are_named_and_those_of_others_cannot_be_used() {
    let server = Server::start().await;
    let client = server.requester().await;
    client.post("/api/jobs", CHAT).await;
    let worker = Worker::new(&server).await;
    let token = worker.poll(1, &[]).await.leases[0].head.token;
    let old = LeaseToken {
        attempt: 9,
        ..token
    };
    assert_eq!(worker.poll(0, &[token, old]).await.gone, [old]);

    let thief = Worker(server.client("other", &[Scope::Work]).await);
    assert_eq!(thief.poll(0, &[token]).await.gone, [token]);
    let error = JobError::new(ErrorCode::EngineFailed, "mine now");
    let end = json!({"lines": 0, "end": End::Failed { error }}).to_string();
    for (what, body) in [
        ("lines?first=1", chat("x")),
        ("extend", String::new()),
        ("end", end),
        (
            "nack",
            json!({"retry": "now", "code": "internal", "message": ""}).to_string(),
        ),
    ] {
        let nowhere = LeaseToken {
            job: proto::JobId([1; 16]),
            attempt: 1,
        };
        let (status, foreign) = thief.say(token, what, body.clone()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
        assert_eq!(
            thief.say(nowhere, what, body).await,
            (status, foreign),
            "{what}"
        );
    }
    assert_eq!(
        worker.say(token, "extend", String::new()).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn of_what_a_worker_says_of_a_failure_so_much_is_kept_and_it_may_say_it_again() {
    let server = Server::start().await;
    let client = server.requester().await;
    let worker = Worker::new(&server).await;
    let long = "ż".repeat(20_000);
    let error = JobError::new(ErrorCode::EngineFailed, long.clone());
    for (what, body) in [
        (
            "nack",
            json!({"retry": "never", "code": "engine_failed", "message": long}),
        ),
        (
            "end",
            json!({"lines": 0, "end": End::Failed { error: error.clone() }}),
        ),
    ] {
        let id = client.post("/api/jobs", CHAT).await.json().await["id"].take();
        let token = worker.poll(1, &[]).await.leases[0].head.token;
        let said = worker.say(token, what, body.to_string()).await;
        assert_eq!(said.0, StatusCode::OK, "{what}");
        if what == "end" {
            let again = worker.say(token, what, body.to_string()).await;
            assert_eq!(again.0, StatusCode::OK, "the same end");
        }
        let path = format!("/api/jobs/{}", id.as_str().unwrap());
        let shown = client.get(&path).await.json().await;
        let message = shown["error"]["message"].as_str().unwrap();
        assert_eq!(message.len(), 1024, "{what}");
    }
}

#[tokio::test]
async fn what_a_poll_was_lent_and_did_not_read_whole_is_given_back_at_once() {
    let server = Server::start().await;
    let client = server.requester().await;
    let large = "x".repeat(24 * 1024 * 1024);
    let body = format!(r#"{{"op":"chat","body":{{"model":"m","x":"{large}"}}}}"#);
    client.post("/api/jobs", body).await;
    let key = server.key("default", &[Scope::Work]).await;
    let poll = json!({
        "worker": "w", "version": "0", "report": report(&["m"]),
        "free": 1, "held": [], "wait_ms": 0,
    })
    .to_string();
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/worker/v1/poll HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{poll}",
        server.address,
        poll.len()
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 1024];
    in_time(tcp.read_exact(&mut begun)).await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200"));
    assert_eq!(server.store.counts().leased, 1);
    drop(tcp);
    server.until(|counts| counts.queued == 1).await;
}

#[tokio::test]
async fn a_worker_that_came_again_over_another_carrier_gets_its_jobs_there() {
    let server = Server::start().await;
    let client = server.requester().await;
    let key = server.key("default", &[Scope::Work]).await;
    let worker = Worker(Client::new(server.base(), Some(key.clone())));
    let mut socket = Scripted::hello(&server, &key, &["m"], vec![]).await;
    assert!(matches!(socket.next().await, RelayMessage::Welcome { .. }));
    socket.say(&WorkerMessage::Capacity { slots: 3 }).await;
    socket.is_heard().await;
    let poll = |model: &str, wait_ms: u64| {
        let body = json!({
            "worker": "scripted", "version": "0", "report": report(&[model]),
            "free": 1, "held": [], "wait_ms": wait_ms,
        });
        let client = worker.0.clone();
        async move {
            let polled = client.post("/api/worker/v1/poll", body.to_string()).await;
            polled.polled().await
        }
    };
    poll("m", 0).await;
    // Nothing was received on the connection, so it may be dead.
    client.post("/api/jobs", CHAT).await;
    let polled = poll("m", 0).await;
    assert_eq!(polled.leases.len(), 1);

    // Conversely, a connection ends the worker's held poll.
    let held = tokio::spawn(poll("polled", 20_000));
    let is_held = async {
        while !client
            .get("/api/tags")
            .await
            .text()
            .await
            .contains("polled")
        {}
    };
    in_time(is_held).await;
    let mut again = Scripted::hello(&server, &key, &["m"], vec![]).await;
    assert!(matches!(again.next().await, RelayMessage::Welcome { .. }));
    let polled = in_time(held).await.unwrap();
    assert_eq!(polled, PollAnswer::default());
}

/// Each polling worker takes memory for its report while it counts as online.
#[tokio::test]
async fn only_so_many_workers_poll_with_one_key() {
    let mut settings = RelaySettings::default();
    // Long enough for all polls on any machine.
    settings.online_after_poll = Duration::from_secs(3600);
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), settings).await;
    let key = server.client("default", &[Scope::Work]).await;
    let poll = async |name: String| {
        let body = json!({
            "worker": name, "version": "0", "report": report(&["m"]), "free": 0, "wait_ms": 0,
        });
        key.post("/api/worker/v1/poll", body.to_string()).await
    };
    for n in 0..256 {
        assert_eq!(
            poll(format!("w{n}")).await.status,
            StatusCode::NO_CONTENT,
            "{n}"
        );
    }
    let refused = poll("one-more".into()).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("x-hearth-error"), "rate_limited");
    assert_eq!(
        poll("w0".into()).await.status,
        StatusCode::NO_CONTENT,
        "who is there"
    );
    let other = Worker::new(&server).await;
    other.poll(0, &[]).await;
    clock.by(Duration::from_secs(2 * 3600));
    let later = poll("one-more".into()).await;
    assert_eq!(later.status, StatusCode::NO_CONTENT, "the others are gone");
}
