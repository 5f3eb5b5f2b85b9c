//! Graceful shutdown, and the restart after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearth_relay::{RelaySettings, SystemWorld, World};
use http::StatusCode;
use proto::{
    Account, Dialect, End, JobId, JobState, ModelName, Op, Priority, Timestamp,
    worker::{PollAnswer, RelayMessage, SUBPROTOCOL},
};
use queue::{NewJob, Owner, Queue as _, Scope};

use crate::{
    gated::Gated,
    server::Server,
    worker::{CHAT_DONE, Scripted, chat},
};

const CHAT: &str = r#"{"model":"m","messages":[{}]}"#;

async fn drained_after(patience: Duration) -> Server {
    let mut settings = RelaySettings::default();
    settings.drain = patience;
    Server::with(settings).await
}

/// Waits until the relay reports that it is shutting down.
async fn goes_down(server: &Server) {
    let draining = async { while server.nobody().get("/readyz").await.status == StatusCode::OK {} };
    crate::in_time(draining).await;
}

#[tokio::test]
async fn what_runs_may_end_and_nothing_new_begins_once_the_relay_is_asked_to_stop() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let mut idle = Scripted::serving(&server, "default", &["other"], 1).await;
    let ollama = client.clone();
    let asked = tokio::spawn(async move { ollama.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("one")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    let path = format!("/api/jobs/{}/events?after=1-1", job.token().job);
    let watcher = client.get(&path).await;
    let (openai, whole) = (client.clone(), client.clone());
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let waiting = tokio::spawn(async move { openai.post("/v1/chat/completions", body).await });
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    let streamed = tokio::spawn(async move { whole.post("/v1/chat/completions", body).await });
    server.until(|counts| counts.queued == 2).await;

    server.begin_stop();
    for waiting in [waiting, streamed] {
        let waiting = waiting.await.unwrap();
        assert_eq!(waiting.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(waiting.json().await["error"]["code"], "draining");
    }
    assert_eq!(idle.close_code().await, 1012);
    goes_down(&server).await;
    for (path, body) in [
        ("/api/chat", CHAT),
        ("/api/jobs", r#"{"op":"chat","body":{"model":"m"}}"#),
        ("/api/ollama/request", r#"{"prompt":"x"}"#),
    ] {
        let refused = client.post(path, body).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(refused.header("x-hearth-error"), "draining", "{path}");
        assert_eq!(refused.header("retry-after"), "2", "{path}");
    }
    let key = server.key("default", &[Scope::Work]).await;
    assert!(Scripted::dial(&server, &key, SUBPROTOCOL).await.is_err());
    assert_eq!(worker.next().await, RelayMessage::Drain);
    worker.line(job.token(), 2, CHAT_DONE).await;
    worker.end(job.token(), 2, End::Completed).await;
    assert!(reply.text().await.contains(r#""done":true"#));
    assert!(watcher.text().await.contains(r#"{"state":"completed"}"#));
    assert_eq!(worker.close_code().await, 1012);
    let store = server.store.clone();
    server.stop().await.unwrap();
    let counts = store.counts();
    assert_eq!((counts.queued, counts.leased), (2, 0), "nothing is lost");
}

#[tokio::test]
async fn what_still_runs_when_the_time_is_over_is_cut_with_an_error_and_keeps_its_attempt() {
    let server = drained_after(Duration::from_millis(50)).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let ollama = client.clone();
    let asked = tokio::spawn(async move { ollama.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("one")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    let path = format!("/api/jobs/{}/events?after=1-1", job.token().job);
    let watcher = client.get(&path).await;

    server.begin_stop();
    assert!(
        reply
            .text()
            .await
            .starts_with(r#"{"error":"the relay is shutting down"#)
    );
    assert_eq!(watcher.text().await, "", "it resumes from where it was");
    assert_eq!(worker.close_code().await, 1012);
    let store = server.store.clone();
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());
    let kept = store.get(Owner::Anyone, job.token().job).await;
    assert_eq!(kept.unwrap().unwrap().state, JobState::Leased);

    let server = Server::over(store, RelaySettings::default()).await;
    let key = server.key("default", &[Scope::Work]).await;
    let mut again = Scripted::hello(&server, &key, &["m"], vec![job.token()]).await;
    assert!(matches!(again.next().await, RelayMessage::Welcome { .. }));
    let (token, stored) = (job.token(), 1);
    assert_eq!(again.next().await, RelayMessage::Resume { token, stored });
    let watcher = server.requester().await.get(&path).await;
    again.line(token, 2, CHAT_DONE).await;
    again.end(token, 2, End::Completed).await;
    let said = watcher.text().await;
    assert!(
        said.starts_with("id: 1-2") && said.contains("completed"),
        "{said}"
    );
}

#[tokio::test]
async fn a_requester_who_leaves_while_the_relay_goes_down_still_cancels() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("one")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    server.begin_stop();
    assert_eq!(worker.next().await, RelayMessage::Drain);
    drop(reply);
    let token = job.token();
    assert_eq!(worker.next().await, RelayMessage::Cancel { token });
    worker.gives_back(&job).await;
    assert_eq!(worker.close_code().await, 1012);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_held_poll_is_answered_with_nothing_and_a_mark_when_the_relay_goes_down() {
    let server = Server::start().await;
    let poller = server.client("default", &[Scope::Work]).await;
    let (native, mut busy) = (poller.clone(), Scripted::ready(&server).await);
    let client = server.requester().await;
    client
        .post("/api/jobs", r#"{"op":"chat","body":{"model":"m"}}"#)
        .await;
    let job = busy.lease().await;
    let legacy = tokio::spawn(async move { poller.get("/api/ollama/poll").await });
    let report = serde_json::to_string(&crate::worker::report(&["held"])).unwrap();
    let body = |free: u8| {
        format!(r#"{{"worker":"w","version":"0","report":{report},"free":{free},"wait_ms":20000}}"#)
    };
    let (first, again) = (body(1), body(1));
    let held = native.clone();
    let held = tokio::spawn(async move { held.post("/api/worker/v1/poll", first).await });
    let known = async { while !client.get("/api/tags").await.text().await.contains("held") {} };
    crate::in_time(known).await;
    server.begin_stop();
    let told = [
        held.await.unwrap(),
        native.post("/api/worker/v1/poll", again).await,
    ];
    for told in told {
        assert_eq!(told.header("x-hearth-drain"), "1");
        assert_eq!(told.polled().await, PollAnswer::default());
    }
    assert_eq!(legacy.await.unwrap().status, StatusCode::NO_CONTENT);
    // A polling worker of the older protocol sends its last answer over a new connection.
    assert_eq!(busy.next().await, RelayMessage::Drain);
    busy.answer(&job, &["a"]).await;
    assert_eq!(busy.close_code().await, 1012);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_job_over_plain_requests_ends_while_the_relay_goes_down() {
    let server = Server::start().await;
    let (client, poller) = (
        server.requester().await,
        server.client("default", &[Scope::Work]).await,
    );
    client
        .post("/api/jobs", r#"{"op":"chat","body":{"model":"m"}}"#)
        .await;
    let report = serde_json::to_string(&crate::worker::report(&["m"])).unwrap();
    let body = format!(r#"{{"worker":"w","version":"0","report":{report},"free":1,"wait_ms":0}}"#);
    let polled = poller
        .post("/api/worker/v1/poll", body)
        .await
        .polled()
        .await;
    let token = polled.leases[0].head.token;
    server.begin_stop();
    goes_down(&server).await;
    let path = format!("/api/worker/v1/jobs/{}/{}", token.job, token.attempt);
    let said = poller
        .post(&format!("{path}/lines?first=1"), CHAT_DONE)
        .await;
    assert_eq!(said.status, StatusCode::OK);
    let end = r#"{"lines":1,"end":{"state":"completed"}}"#;
    let ended = poller.post(&format!("{path}/end"), end).await;
    assert_eq!(ended.status, StatusCode::OK);
    let store = server.store.clone();
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());
    let kept = store.get(Owner::Anyone, token.job).await.unwrap().unwrap();
    assert_eq!(kept.state, JobState::Completed);
}

#[tokio::test]
async fn what_is_being_lent_when_the_relay_goes_down_is_given_back() {
    let gated = Gated::new(0, 0);
    let store = gated.inner.clone();
    let server = Server::beside(gated.clone(), store.clone(), RelaySettings::default()).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    client
        .post("/api/jobs", r#"{"op":"chat","body":{"model":"m"}}"#)
        .await;
    worker.is_heard().await;
    server.begin_stop();
    assert_eq!(worker.close_code().await, 1012);
    gated.lending.add_permits(1);
    server.stop().await.unwrap();
    let counts = store.counts();
    assert_eq!((counts.queued, counts.leased), (1, 0));
}

/// Returns a store with two jobs whose requesters were connected when the relay stopped.
async fn left_behind() -> (Arc<queue::MemoryQueue>, [proto::JobId; 2]) {
    let server = Server::start().await;
    let client = server.requester().await;
    let _worker = Scripted::serving(&server, "default", &["m"], 0).await;
    let other = client.clone();
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await });
    let asked_too = tokio::spawn(async move { other.post("/api/chat", CHAT).await });
    server.until(|counts| counts.queued == 2).await;
    let store = server.store.clone();
    server.stop().await.unwrap();
    asked.await.unwrap();
    asked_too.await.unwrap();
    store.restart(SystemWorld.now());
    let jobs = store.list(Owner::Anyone, 2).await.unwrap();
    (store, [jobs[0].new.id, jobs[1].new.id])
}

async fn end_of(store: &queue::MemoryQueue, job: proto::JobId) -> Option<End> {
    let log = store.log(Owner::Anyone, job).await.unwrap().unwrap();
    let mut head = log.head();
    let ended = crate::in_time(head.wait_for(|head| head.end.is_some())).await;
    ended.unwrap().end.clone()
}

#[tokio::test]
async fn after_a_restart_only_the_job_somebody_came_back_for_goes_on() {
    let (store, [claimed, forgotten]) = left_behind().await;
    let mut settings = RelaySettings::default();
    settings.come_back = Duration::from_millis(200);
    let server = Server::over(store.clone(), settings).await;
    let client = server.requester().await;
    let watcher = client.get(&format!("/api/jobs/{claimed}/events")).await;
    assert_eq!(end_of(&store, forgotten).await, Some(End::Cancelled));

    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    assert_eq!(job.token().job, claimed);
    worker.line(job.token(), 1, CHAT_DONE).await;
    worker.end(job.token(), 1, End::Completed).await;
    assert!(watcher.text().await.contains(r#"{"state":"completed"}"#));
}

/// A machine whose clock panics when the test says so.
#[derive(Debug, Default)]
struct Breaking(AtomicBool);

impl World for Breaking {
    fn now(&self) -> Timestamp {
        assert!(!self.0.load(Ordering::Relaxed), "the clock broke");
        SystemWorld.now()
    }

    fn random(&self) -> std::io::Result<[u8; 32]> {
        SystemWorld.random()
    }
}

#[tokio::test]
async fn a_part_that_dies_ends_the_relay() {
    let world = Arc::new(Breaking::default());
    let server = Server::in_world(world.clone(), RelaySettings::default()).await;
    let job = NewJob {
        id: JobId([1; 16]),
        account: Account::new("default").unwrap(),
        who: "laptop".into(),
        op: Op::Chat,
        model: ModelName::new("m").unwrap(),
        priority: Priority::default(),
        body: CHAT.into(),
        dialect: Dialect::Native,
        deadline: None,
        attended: false,
        worker: None,
    };
    let health = server.nobody().get("/healthz").await;
    assert_eq!(health.status, StatusCode::OK, "it serves");
    world.0.store(true, Ordering::Relaxed);
    // The new job wakes the maintenance task, which reads the clock.
    server.store.enqueue(SystemWorld.now(), job).await.unwrap();
    let died = server.ended().await.unwrap_err().to_string();
    assert!(died.contains("a part of the relay failed"), "{died}");
}
