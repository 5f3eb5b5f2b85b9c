//! What is leased while a worker has not read its last request.

use std::time::Duration;

use futures_util::StreamExt as _;
use hearth_relay::{RelaySettings, SystemWorld, World as _};
use http::StatusCode;
use proto::worker::{PollAnswer, RelayMessage, WorkerMessage};
use queue::{
    NewJob, Queue as _, Scope,
    conformance::sample::{account, job},
};
use serde_json::json;

use crate::{
    client::{Client, Reply},
    in_time,
    server::Server,
    tunnel::Desktop,
    worker::{Scripted, report},
};

const MIB: usize = 1024 * 1024;
/// More than the system takes for a connection that is not read.
const LARGE: usize = 8 * MIB;
const SCOPES: [Scope; 1] = [Scope::Work];

/// The ways in which a request reaches a worker.
#[derive(Debug, Clone, Copy)]
enum Carrier {
    Socket,
    Poll,
    Tunnel,
    Bridge,
    LegacyPoll,
    JobPoll,
}

/// A worker that has asked for one request and reads nothing.
enum Unread {
    Socket(Scripted),
    Tunnel(Desktop),
    Response(Reply),
}

impl Unread {
    async fn of(server: &Server, client: &Client, carrier: Carrier) -> Self {
        let key = client.key.as_deref().unwrap();
        match carrier {
            Carrier::Socket => {
                let mut worker = Scripted::hello(server, key, &["m"], vec![]).await;
                assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
                worker.say(&WorkerMessage::Capacity { slots: 3 }).await;
                Self::Socket(worker)
            }
            Carrier::Tunnel => {
                let query = format!("?token={key}");
                Self::Tunnel(Desktop::dial(server, &query, &[]).await.unwrap())
            }
            Carrier::Poll => Self::Response(poll(client, "slow", 5_000).await),
            Carrier::Bridge => {
                let id = "01234567-89ab-cdef-0123-456789abcdef";
                let path = format!("/api/bridge/{id}/poll?timeout=5000");
                Self::Response(client.get(&path).await)
            }
            Carrier::LegacyPoll => Self::Response(client.get("/api/ollama/poll").await),
            Carrier::JobPoll => Self::Response(client.get("/api/v1/ollama/poll").await),
        }
    }

    /// Reads everything from now on.
    async fn read(self) {
        match self {
            Self::Response(reply) => drop(reply.text().await),
            Self::Socket(mut worker) => while worker.socket.next().await.is_some() {},
            Self::Tunnel(mut desktop) => while desktop.frame().await.is_text() {},
        }
    }
}

async fn poll(client: &Client, worker: &str, wait_ms: u64) -> Reply {
    let body = json!({
        "worker": worker, "version": "0", "report": report(&["m"]),
        "free": 3, "held": [], "wait_ms": wait_ms,
    });
    client.post("/api/worker/v1/poll", body.to_string()).await
}

fn sizes(answer: &PollAnswer) -> Vec<usize> {
    let sizes = answer.leases.iter().map(|lease| lease.body.len() / MIB);
    sizes.collect()
}

/// Queues the `n`-th job, of this size.
async fn enqueue(server: &Server, n: u8, bytes: usize) {
    let words = "x".repeat(bytes);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": words}]});
    let new = NewJob {
        account: account("default"),
        body: body.to_string().into(),
        ..job(n)
    };
    let now = SystemWorld.now();
    server.store.enqueue(now, new).await.unwrap();
}

/// A relay that waits long for slow readers.
async fn patient(sending_max: usize) -> Server {
    let mut settings = RelaySettings::default();
    settings.sending_max = sending_max;
    settings.write_patience = Duration::from_secs(60);
    Server::with(settings).await
}

#[tokio::test]
async fn a_key_whose_worker_does_not_read_gets_no_further_large_request_until_it_does() {
    for carrier in [
        Carrier::Socket,
        Carrier::Poll,
        Carrier::Tunnel,
        Carrier::Bridge,
        Carrier::LegacyPoll,
        Carrier::JobPoll,
    ] {
        let server = patient(4 * MIB).await;
        let client = server.client("default", &SCOPES).await;
        enqueue(&server, 1, LARGE).await;
        let unread = Unread::of(&server, &client, carrier).await;
        if let Unread::Response(reply) = &unread {
            assert_eq!(reply.status, StatusCode::OK, "{carrier:?}");
        }
        server.until(|counts| counts.leased == 1).await;
        enqueue(&server, 2, LARGE).await;
        enqueue(&server, 3, 5).await;
        let asked = poll(&client, "other", 0).await.polled().await;
        assert_eq!(sizes(&asked), [0], "{carrier:?}: a small one only");
        let asked = poll(&client, "other", 0).await.polled().await;
        assert_eq!(sizes(&asked), [0; 0], "{carrier:?}");
        let held = async { poll(&client, "other", 20_000).await.polled().await };
        tokio::select! {
            asked = held => assert_eq!(sizes(&asked), [8], "{carrier:?}"),
            () = async { unread.read().await; std::future::pending().await } => {}
        }
    }
}

#[tokio::test]
async fn a_key_whose_worker_does_not_read_takes_nothing_from_others() {
    let server = patient(64 * MIB).await;
    let client = server.client("default", &SCOPES).await;
    for n in 1..=4 {
        enqueue(&server, n, LARGE).await;
    }
    let _unread = poll(&client, "slow", 0).await;
    server.until(|counts| counts.leased == 3).await;
    let own = poll(&client, "own", 0).await.polled().await;
    assert_eq!(sizes(&own), [0; 0]);
    let other = server.client("default", &SCOPES).await;
    let asked = poll(&other, "other", 0).await.polled().await;
    assert_eq!(sizes(&asked), [8]);
}

#[tokio::test]
async fn a_large_request_waits_for_no_worker_that_may_not_have_it() {
    let server = patient(64 * MIB).await;
    let client = server.client("default", &SCOPES).await;
    for n in 1..=3 {
        enqueue(&server, n, LARGE).await;
    }
    let _unread = poll(&client, "slow", 0).await;
    // With the model in memory, it would be the first to get the next job.
    let mut report = report(&["m"]);
    report.models[0].loaded = true;
    let key = client.key.as_deref().unwrap();
    let mut idle = Scripted::hello(&server, key, &["m"], vec![]).await;
    assert!(matches!(idle.next().await, RelayMessage::Welcome { .. }));
    idle.say(&WorkerMessage::Report { report }).await;
    idle.say(&WorkerMessage::Capacity { slots: 1 }).await;
    let mut other = Scripted::serving(&server, "default", &["m"], 1).await;
    enqueue(&server, 4, LARGE).await;
    let lease = in_time(other.lease()).await;
    assert_eq!(lease.body.len() / MIB, 8);
}

#[tokio::test]
async fn a_worker_asks_for_nothing_while_a_large_request_is_written_to_it() {
    let server = Server::start().await;
    let client = server.client("default", &SCOPES).await;
    enqueue(&server, 1, LARGE).await;
    let unread = Unread::of(&server, &client, Carrier::Socket).await;
    server.until(|counts| counts.leased == 1).await;
    enqueue(&server, 2, 5).await;
    let asked = in_time(poll(&client, "other", 15_000)).await.polled().await;
    assert_eq!(sizes(&asked), [0], "it would wait behind the large one");
    enqueue(&server, 3, 5).await;
    let Unread::Socket(mut worker) = unread else {
        unreachable!()
    };
    for size in [8, 0] {
        let job = worker.lease().await;
        assert_eq!(job.body.len() / MIB, size);
    }
}
