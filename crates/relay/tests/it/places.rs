//! Queue positions, as every kind of waiting client receives them.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::{Method, StatusCode};
use proto::worker::WorkerMessage;
use serde_json::Value;

use crate::{
    client::{Client, Reply},
    server::Server,
    wire::{question, strict_events, strict_lines},
    worker::Scripted,
};

const NATIVE: &str = r#"{"op":"chat","body":{"model":"m","messages":[]}}"#;

async fn chatty() -> Server {
    let mut settings = RelaySettings::default();
    settings.place_every = Duration::from_millis(20);
    settings.heartbeat = Duration::from_millis(500);
    Server::with(settings).await
}

async fn submitted(client: &Client) -> String {
    let reply = client.post("/api/jobs", NATIVE).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    reply.json().await["id"].as_str().unwrap().to_owned()
}

/// Queues two jobs, with a worker that has no free slot yet.
async fn two_wait(server: &Server) -> (Client, Scripted, [String; 2]) {
    let client = server.requester().await;
    let worker = Scripted::serving(server, "default", &["m"], 0).await;
    let jobs = [submitted(&client).await, submitted(&client).await];
    (client, worker, jobs)
}

async fn may_work(worker: &mut Scripted) {
    worker.say(&WorkerMessage::Capacity { slots: 1 }).await;
}

/// Reads chunks until one contains the expected text.
async fn until(reply: &mut Reply, what: &str) -> String {
    let mut all = String::new();
    while !all.contains(what) {
        all += &reply
            .chunk()
            .await
            .unwrap_or_else(|| panic!("no {what}: {all}"));
    }
    all
}

#[tokio::test]
async fn a_submission_and_its_job_tell_how_many_come_before_it() {
    let server = chatty().await;
    let (client, mut worker, [first, second]) = two_wait(&server).await;
    let third = client.post("/api/jobs", NATIVE).await;
    assert_eq!(third.header("x-hearth-queue-position"), "2");
    assert_eq!(third.header("x-hearth-expected-wait-ms"), "", "not known");
    assert_eq!(third.json().await["position"], 2);
    let asked = r#"{"prompt":"x","model":"m"}"#;
    let fourth = client.post("/api/ollama/request", asked).await;
    assert_eq!(fourth.header("x-hearth-queue-position"), "3");

    may_work(&mut worker).await;
    let job = worker.lease().await;
    assert_eq!(job.token().job.to_string(), first);
    worker.answer(&job, &["hi"]).await;
    let next = worker.lease().await;
    assert_eq!(next.token().job.to_string(), second);
    let third = client.get("/api/jobs").await.json().await;
    let third = third
        .as_array()
        .or_else(|| third["jobs"].as_array())
        .unwrap()
        .iter()
        .find(|job| job["dialect"] != "relay_polling" && job["state"] == "queued")
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let third = client.get(&format!("/api/jobs/{third}")).await.json().await;
    assert!(third["position"].as_u64().unwrap() <= 1, "{third}");
    assert!(third["expected_wait_ms"].is_u64(), "{third}");
    let second = client
        .get(&format!("/api/jobs/{second}"))
        .await
        .json()
        .await;
    assert_eq!(second["position"], Value::Null, "it waits no more");
}

#[tokio::test]
async fn a_watcher_is_told_of_each_place_until_the_job_is_taken() {
    let server = chatty().await;
    let (client, mut worker, [_, second]) = two_wait(&server).await;
    let mut watcher = client.get(&format!("/api/jobs/{second}/events")).await;
    let told = until(&mut watcher, "queued").await;
    let queued = "event: queued\ndata: {\"position\":1}\n\n";
    assert!(told.ends_with(queued), "{told}");
    may_work(&mut worker).await;
    let first = worker.lease().await;
    let told = until(&mut watcher, "queued").await;
    assert!(told.contains(r#"{"position":0"#), "{told}");
    worker.answer(&first, &["hi"]).await;
    let job = worker.lease().await;
    worker.answer(&job, &["ho"]).await;
    let rest = watcher.text().await;
    let events = strict_events(&rest);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["", "", "end"], "{rest}");
}

#[tokio::test]
async fn a_stream_that_waits_tells_its_place_in_its_head() {
    let server = chatty().await;
    let (client, _worker, _) = two_wait(&server).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        let mut reply = client.post(path, question(path, true)).await;
        assert_eq!(reply.header("x-hearth-queue-position"), "2", "{path}");
        let beat = reply.chunk().await.unwrap();
        assert!(!beat.contains("position"), "who did not ask: {beat}");
    }
}

#[tokio::test]
async fn a_requester_who_asks_for_it_reads_his_place_as_a_thought() {
    let server = chatty().await;
    let (client, mut worker, _) = two_wait(&server).await;
    let header = [("x-hearth-thinking-status", "1")];
    let mut streams = Vec::new();
    for (path, pointer) in [
        ("/api/chat", "/message/thinking"),
        ("/api/generate", "/thinking"),
        ("/v1/chat/completions", "/choices/0/delta/reasoning"),
    ] {
        let reply = if path.starts_with("/v1") {
            let path = format!("{path}?hearth_status=thinking");
            client.post(&path, question("", true)).await
        } else {
            let body = question(path, true);
            client.send_with(Method::POST, path, &header, body).await
        };
        streams.push((reply, pointer));
    }
    for (n, (reply, pointer)) in streams.iter_mut().enumerate() {
        let told = until(reply, "position").await;
        let thought = if told.starts_with('{') {
            strict_lines(&told).remove(0)
        } else {
            serde_json::from_str(&strict_events(&told)[0].1).unwrap()
        };
        let thought = thought.pointer(pointer).and_then(Value::as_str);
        assert_eq!(
            thought,
            Some(format!("position {}\n", n + 2).as_str()),
            "{told}"
        );
    }
    let (mut mine, _) = streams.remove(0);
    may_work(&mut worker).await;
    for place in ["position 1", "position 0, about 1 s"] {
        let job = worker.lease().await;
        until(&mut mine, place).await;
        worker.answer(&job, &["hi"]).await;
    }
    let job = worker.lease().await;
    worker.answer(&job, &["mine"]).await;
    let text = mine.text().await;
    let (_, answer) = text.split_once("mine").unwrap();
    assert!(!answer.contains("position"), "{text}");
}
