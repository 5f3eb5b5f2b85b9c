use std::{sync::Arc, time::Duration};

use hearth_relay::{RelaySettings, System, World as _};
use http::StatusCode;
use proto::{End, JobState};
use queue::{Owner, Queue as _, Scope};

use crate::{
    server::Server,
    worker::{CHAT_DONE, Scripted, chat},
};

const CHAT: &str = r#"{"model":"m","messages":[{}]}"#;

#[tokio::test]
async fn a_relay_that_stops_cuts_streams_with_an_error_and_cancels_nothing() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let (ollama, openai) = (client.clone(), client.clone());
    let asked = tokio::spawn(async move { ollama.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("one")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    let path = format!("/api/jobs/{}/events?after=1-1", job.token().job);
    let watcher = client.get(&path).await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let waiting = tokio::spawn(async move { openai.post("/v1/chat/completions", body).await });
    server.until(|counts| counts.queued == 1).await;

    server.begin_stop();
    assert!(
        reply
            .text()
            .await
            .starts_with(r#"{"error":"the relay is shutting down"#)
    );
    assert_eq!(watcher.text().await, "", "it resumes from where it was");
    let waiting = waiting.await.unwrap();
    assert_eq!(waiting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(waiting.json().await["error"]["code"], "draining");
    assert_eq!(worker.close_code().await, 1012);
    let store = server.store.clone();
    server.stop().await.unwrap();
    store.restart(System.now());
    let kept = store
        .get(Owner::Anyone, job.token().job)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.state, JobState::Leased);
}

#[tokio::test]
async fn a_held_poll_is_answered_when_the_relay_stops() {
    let server = Server::start().await;
    let poller = server.client("default", &[Scope::Work]).await;
    let native = poller.clone();
    let legacy = tokio::spawn(async move { poller.get("/api/ollama/poll").await });
    let report = serde_json::to_string(&crate::worker::report(&["m"])).unwrap();
    let body =
        format!(r#"{{"worker":"w","version":"0","report":{report},"free":1,"wait_ms":20000}}"#);
    let native = tokio::spawn(async move { native.post("/api/worker/v1/poll", body).await });
    let reader = server.client("default", &[Scope::Read]).await;
    let known = async { while reader.get("/api/tags").await.text().await == r#"{"models":[]}"# {} };
    crate::within(known).await;
    server.begin_stop();
    assert_eq!(
        native.await.unwrap().json().await["leases"],
        serde_json::json!([])
    );
    assert_eq!(legacy.await.unwrap().status, StatusCode::NO_CONTENT);
    server.stop().await.unwrap();
}

/// A store with two jobs whose requesters waited on a connection when the relay went away.
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
    store.restart(System.now());
    let jobs = store.list(Owner::Anyone, 2).await.unwrap();
    (store, [jobs[0].new.id, jobs[1].new.id])
}

async fn end_of(store: &queue::MemoryQueue, job: proto::JobId) -> Option<End> {
    let log = store.log(Owner::Anyone, job).await.unwrap().unwrap();
    let mut head = log.head();
    let ended = crate::within(head.wait_for(|head| head.end.is_some())).await;
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
