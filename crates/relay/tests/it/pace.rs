//! How much a worker may send that no lease pays for, and over how many WebSockets.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::StatusCode;
use proto::{
    End, ErrorCode, LeaseToken,
    worker::{RelayMessage, Retry, WorkerMessage},
};
use queue::Scope;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    http_carrier::Worker,
    in_time,
    server::Server,
    socket::{CHAT, submit},
    worker::{CHAT_DONE, Scripted, report},
};

#[tokio::test]
async fn a_third_connection_of_a_worker_closes_the_oldest_and_its_job_goes_on() {
    let server = Server::start().await;
    let client = server.requester().await;
    let key = server.key("default", &[Scope::Work]).await;
    let mut oldest = Scripted::hello(&server, &key, &["m"], vec![]).await;
    assert!(matches!(oldest.next().await, RelayMessage::Welcome { .. }));
    oldest.say(&WorkerMessage::Capacity { slots: 1 }).await;
    submit(&client, CHAT).await;
    let token = oldest.lease().await.token();
    let mut newer = Vec::new();
    for _ in 0..2 {
        let mut worker = Scripted::hello(&server, &key, &["m"], vec![token]).await;
        assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
        assert_eq!(
            worker.next().await,
            RelayMessage::Resume { token, stored: 0 }
        );
        newer.push(worker);
    }
    let (code, reason) = in_time(oldest.closed()).await;
    assert_eq!(code, 4007, "{reason}");
    assert!(reason.contains("too many connections"), "{reason}");
    newer[0].is_answered().await;
    newer[1].line(token, 1, CHAT_DONE).await;
    newer[1].end(token, 1, End::Completed).await;

    // A connection with another key does not count.
    let mut other = Scripted::ready(&server).await;
    other.is_answered().await;
    let stale = Some(ErrorCode::StaleLease);
    assert_eq!(
        newer[0].next().await,
        RelayMessage::Closed { token, code: stale }
    );
    newer[0].is_answered().await;
}

/// A limit so low that only what counts against it could wait.
fn nearly_none(burst: u32) -> RelaySettings {
    let mut settings = RelaySettings::default();
    settings.unpaid_every = Duration::from_secs(3600);
    settings.unpaid_burst = burst;
    settings
}

#[tokio::test]
async fn messages_that_no_lease_pays_for_are_read_later_and_none_is_lost() {
    let mut settings = RelaySettings::default();
    settings.unpaid_every = Duration::from_millis(50);
    settings.unpaid_burst = 5;
    let server = Server::with(settings).await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 0).await;
    let began = Instant::now();
    let token = |n: u8| LeaseToken {
        job: proto::JobId([n; 16]),
        attempt: 1,
    };
    let (retry, code) = (Retry::Now, ErrorCode::EngineUnavailable);
    for n in 0..8 {
        let message = match n % 4 {
            0 => WorkerMessage::Extend {
                tokens: vec![token(n)],
            },
            1 => WorkerMessage::End {
                token: token(n),
                lines: 0,
                end: End::Completed,
            },
            2 => WorkerMessage::Nack {
                token: token(n),
                retry,
                code,
                message: String::new(),
                engine_status: None,
            },
            _ => WorkerMessage::Extend {
                tokens: vec![token(n)],
            },
        };
        worker.say(&message).await;
        let report = report(&["m"]);
        worker.say(&WorkerMessage::Report { report }).await;
    }
    let stale = Some(ErrorCode::StaleLease);
    for n in 0..8 {
        let (token, code) = (token(n), stale);
        assert_eq!(worker.next().await, RelayMessage::Closed { token, code });
    }
    // 16 messages, a capacity, and 4 leases that nobody holds.
    worker.is_answered().await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(50 * 15), "{took:?}");
}

#[tokio::test]
async fn a_worker_that_does_many_short_jobs_is_never_slowed() {
    let server = Server::with(nearly_none(3)).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for n in 0..10 {
        submit(&client, CHAT).await;
        let job = worker.lease().await;
        if n % 2 == 0 {
            worker.answer(&job, &["a", "b", "c"]).await;
        } else {
            worker.gives_back(&job).await;
            let job = worker.lease().await;
            worker.answer(&job, &["a"]).await;
        }
    }
}

#[tokio::test]
async fn a_polling_worker_that_does_many_short_jobs_is_never_slowed() {
    let server = Server::with(nearly_none(4)).await;
    let client = server.requester().await;
    let worker = Worker::new(&server).await;
    for _ in 0..10 {
        submit(&client, CHAT).await;
        let token = worker.poll_for(1, &[], 20_000).await.leases[0].head.token;
        // While the job runs, it polls for cancellations.
        worker.poll(0, &[token]).await;
        worker.say(token, "lines?first=1", CHAT_DONE.into()).await;
        let end = json!({"lines": 1, "end": End::Completed}).to_string();
        let (status, _) = worker.say(token, "end", end).await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_of_a_polling_worker_that_no_lease_pays_for_are_answered_later() {
    let token = LeaseToken {
        job: proto::JobId([9; 16]),
        attempt: 1,
    };
    let end = json!({"lines": 0, "end": End::Completed}).to_string();
    let nack = json!({"retry": "now", "code": "internal", "message": ""}).to_string();
    let details = json!({"worker": "w", "details": []}).to_string();
    for (what, body) in [
        ("extend", String::new()),
        ("end", end),
        ("nack", nack),
        ("lines?first=1", CHAT_DONE.into()),
        ("details", details),
        ("poll", String::new()),
    ] {
        let mut settings = RelaySettings::default();
        settings.unpaid_every = Duration::from_millis(50);
        settings.unpaid_burst = 1;
        let server = Server::with(settings).await;
        let worker = Worker::new(&server).await;
        let began = Instant::now();
        for _ in 0..5 {
            match what {
                "poll" => drop(worker.poll(0, &[]).await),
                "details" => {
                    let path = "/api/worker/v1/details";
                    drop(worker.0.post(path, body.clone()).await);
                }
                _ => drop(worker.say(token, what, body.clone()).await),
            }
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(190), "{what}: {took:?}");
    }
}
