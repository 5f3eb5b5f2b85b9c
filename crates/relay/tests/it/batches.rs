//! OpenAI's files and batches.

use std::{pin::pin, sync::Arc, time::Duration};

use hearth_relay::{RelaySettings, SystemWorld, World as _};
use http::{Method, StatusCode};
use proto::worker::{RelayMessage, WorkerMessage};
use queue::{BatchState, Batches as _, Owner, Queue as _, QueueCounts, Scope};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    client::Client,
    gated::Gated,
    in_time,
    server::{Ahead, Server},
    worker::Scripted,
};

pub(crate) fn line(n: u32) -> String {
    json!({
        "custom_id": format!("line-{n}"),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": format!("question {n}")}]},
    })
    .to_string()
}

pub(crate) fn lines(count: u32) -> String {
    (1..=count).map(|n| line(n) + "\n").collect()
}

async fn upload(client: &Client, content: &str) -> Value {
    let form = format!(
        "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n\
         {content}\r\n--b--\r\n"
    );
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    let reply = client
        .send_with(Method::POST, "/v1/files", &kind, form)
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    reply.json().await
}

pub(crate) async fn batch_of(client: &Client, content: &str) -> String {
    let file = upload(client, content).await;
    batch_over(client, &file).await
}

async fn batch_over(client: &Client, file: &Value) -> String {
    let body = json!({
        "input_file_id": file["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"night": "1"},
    });
    let reply = client.post("/v1/batches", body.to_string()).await;
    assert_eq!(reply.status, StatusCode::OK);
    let batch = reply.json().await;
    assert_eq!(batch["metadata"], json!({"night": "1"}));
    batch["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn get(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/batches/{id}")).await.json().await
}

pub(crate) async fn until(client: &Client, id: &str, status: &str) -> Value {
    in_time(async {
        loop {
            let batch = get(client, id).await;
            if batch["status"] == status {
                return batch;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

pub(crate) async fn content(client: &Client, id: &Value) -> Vec<Value> {
    let path = format!("/v1/files/{}/content", id.as_str().unwrap());
    let reply = client.get(&path).await;
    assert_eq!(reply.status, StatusCode::OK);
    let text = reply.text().await;
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Answers a job with its own question, reversed.
pub(crate) async fn echo(worker: &mut Scripted) -> String {
    let job = worker.lease().await;
    let asked: Value = serde_json::from_str(&job.body).unwrap();
    let question = asked["messages"][0]["content"].as_str().unwrap().to_owned();
    worker.answer(&job, &["re: ", &question]).await;
    worker.say(&WorkerMessage::Capacity { slots: 1 }).await;
    question
}

#[tokio::test]
async fn every_line_of_a_file_is_answered_in_a_file() {
    let server = Server::start().await;
    let client = server.requester().await;
    let bad = line(3).replace(r#""m""#, r#""nobodys""#);
    let mut worker = Scripted::ready(&server).await;
    let id = batch_of(&client, &format!("{}\n{bad}\n\n{}", line(1), line(2))).await;
    for _ in 0..2 {
        echo(&mut worker).await;
    }
    let batch = until(&client, &id, "completed").await;
    assert_eq!(
        batch["request_counts"],
        json!({"total": 3, "completed": 2, "failed": 1})
    );
    let answers = content(&client, &batch["output_file_id"]).await;
    let said: Vec<_> = answers
        .iter()
        .map(|line| {
            assert_eq!(line["response"]["status_code"], 200);
            let text = &line["response"]["body"]["choices"][0]["message"]["content"];
            (line["custom_id"].as_str().unwrap(), text.as_str().unwrap())
        })
        .collect();
    assert_eq!(
        said,
        [("line-1", "re: question 1"), ("line-2", "re: question 2")]
    );
    let errors = content(&client, &batch["error_file_id"]).await;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["custom_id"], "line-3");
    assert_eq!(errors[0]["response"]["status_code"], 404);
    assert!(errors[0]["response"]["body"]["error"]["message"].is_string());
    let list = client.get("/v1/batches?limit=1").await.json().await;
    assert_eq!(list["data"][0]["id"], id.as_str());
    assert_eq!(list["has_more"], false);
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_no_line_and_answers_none_twice() {
    let mut settings = RelaySettings::default();
    settings.drain = Duration::ZERO;
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let id = batch_of(&client, &lines(12)).await;
    let mut worker = Scripted::ready(&server).await;
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked.push(echo(&mut worker).await);
    }
    // One line is answered while the relay is stopped.
    let held = worker.lease().await;
    let (store, key) = (server.store.clone(), client.key.clone());
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());

    let server = Server::over(store, RelaySettings::default()).await;
    let client = Client::new(server.base(), key);
    let work = server.key("default", &[Scope::Work]).await;
    let mut worker = Scripted::hello(&server, &work, &["m"], vec![held.token()]).await;
    assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
    assert!(matches!(worker.next().await, RelayMessage::Resume { .. }));
    let question: Value = serde_json::from_str(&held.body).unwrap();
    let question = question["messages"][0]["content"].as_str().unwrap();
    worker.answer(&held, &["re: ", question]).await;
    asked.push(question.to_owned());
    worker.say(&WorkerMessage::Capacity { slots: 1 }).await;
    while asked.len() < 12 {
        asked.push(echo(&mut worker).await);
    }
    let batch = until(&client, &id, "completed").await;
    assert_eq!(batch["request_counts"]["completed"], 12);
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 12, "each was asked once");
    let answers = content(&client, &batch["output_file_id"]).await;
    let names: Vec<_> = answers
        .iter()
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect();
    let all: Vec<_> = (1..=12).map(|n| format!("line-{n}")).collect();
    assert_eq!(names, all);
    assert_eq!(server.store.counts(), QueueCounts::default());
}

#[tokio::test]
async fn a_batch_takes_but_a_few_places_in_the_queue_and_stands_back() {
    let server = Server::start().await;
    let client = server.requester().await;
    let id = batch_of(&client, &lines(30)).await;
    server.until(|counts| counts.queued == 8).await;
    let jobs = client.get("/api/jobs").await.json().await;
    let jobs = jobs.as_array().unwrap();
    assert_eq!(jobs.len(), 8);
    assert!(jobs.iter().all(|job| job["priority"] == 8));
    assert!(jobs.iter().all(|job| job["deadline"].is_i64()));

    let path = format!("/v1/batches/{id}/cancel");
    let stopping = client.post(&path, "").await;
    assert_eq!(stopping.status, StatusCode::OK);
    let batch = until(&client, &id, "cancelled").await;
    assert!(batch["cancelled_at"].is_i64() && batch["cancelling_at"].is_i64());
    assert_eq!(server.store.counts(), QueueCounts::default());
    let errors = content(&client, &batch["error_file_id"]).await;
    assert!(
        errors
            .iter()
            .all(|line| line["error"]["code"] == "batch_cancelled")
    );
    let again = client.post(&path, "").await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_file_that_is_no_batch_is_told_line_by_line() {
    let server = Server::start().await;
    let client = server.requester().await;
    let other = line(2).replace("/v1/chat/completions", "/v1/embeddings");
    let content = format!("{}\nno json\n{other}\n{}\n", line(1), line(1));
    let id = batch_of(&client, &content).await;
    let batch = until(&client, &id, "failed").await;
    let wrong = batch["errors"]["data"].as_array().unwrap();
    let wrong: Vec<_> = wrong.iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(wrong, [Some(2), Some(3), Some(4)]);
    assert_eq!(server.store.counts(), QueueCounts::default());
}

#[tokio::test]
async fn files_are_their_owners_and_can_be_erased() {
    let server = Server::start().await;
    let client = server.requester().await;
    let stranger = server.client("other", &[Scope::Enqueue, Scope::Read]).await;
    let file = upload(&client, "{}").await;
    assert_eq!(
        (&file["bytes"], &file["filename"]),
        (&2.into(), &"in.jsonl".into())
    );
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::GET, format!("{path}/content")),
        (Method::DELETE, path.clone()),
    ] {
        let refused = stranger.send(method, &path, "").await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{path}");
    }
    let body = json!({
        "input_file_id": file["id"],
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
    });
    let refused = stranger.post("/v1/batches", body.to_string()).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!(
        stranger.get("/v1/files").await.json().await["data"],
        json!([])
    );

    let erased = client.send(Method::DELETE, &path, "").await.json().await;
    assert_eq!(erased["deleted"], true);
    assert_eq!(client.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_line_that_is_too_long_fails_its_batch_and_its_file_can_be_erased() {
    let server = Server::start().await;
    let client = server.requester().await;
    for over in [1024 * 1024, 1] {
        let long = "x".repeat(8 * 1024 * 1024 + over);
        let lines = format!("{}\n\n{long}\n{}", line(1), line(2));
        let file = upload(&client, &lines).await;
        let id = batch_over(&client, &file).await;
        let batch = until(&client, &id, "failed").await;
        let wrong = batch["errors"]["data"].as_array().unwrap();
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0]["line"], 3);
        let message = wrong[0]["message"].as_str().unwrap();
        assert!(message.contains("8388608 bytes"), "{message}");
        assert_eq!(server.store.counts(), QueueCounts::default());
        let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
        let erased = client.send(Method::DELETE, &path, "").await;
        assert_eq!(erased.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_batch_that_was_withdrawn_while_it_was_looked_at_stays_so_through_a_restart() {
    let server = Server::start().await;
    let client = server.requester().await;
    // The lines stay queued, because no worker is online.
    let id = batch_of(&client, &lines(12)).await;
    until(&client, &id, "in_progress").await;
    let (store, key) = (server.store.clone(), client.key.clone());
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());
    let begun = store.counts().queued;
    // The state of a batch that was cancelled before its validation ended.
    let mut batch = store.batch(Owner::Anyone, &id).await.unwrap().unwrap();
    let wish = (BatchState::Cancelling, batch.created_at);
    batch.times.insert(0, wish);
    store.put_batch(batch).await.unwrap();

    let server = Server::over(store, RelaySettings::default()).await;
    let client = Client::new(server.base(), key);
    let batch = until(&client, &id, "cancelled").await;
    let counts = &batch["request_counts"];
    assert_eq!(counts["failed"], begun, "no other line was begun");
    assert_eq!(server.store.counts(), QueueCounts::default());
}

#[tokio::test]
async fn a_batch_whose_file_is_not_whole_fails_and_keeps_what_was_answered() {
    let mut settings = RelaySettings::default();
    settings.drain = Duration::ZERO;
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let file = upload(&client, &lines(12)).await;
    let id = batch_over(&client, &file).await;
    echo(&mut worker).await;
    server
        .store
        .erase_file(file["id"].as_str().unwrap())
        .await
        .unwrap();
    let (store, key) = (server.store.clone(), client.key.clone());
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());

    let server = Server::over(store, RelaySettings::default()).await;
    let client = Client::new(server.base(), key);
    let batch = until(&client, &id, "failed").await;
    let message = batch["errors"]["data"][0]["message"].as_str().unwrap();
    assert!(message.contains("was erased"), "{message}");
    let answers = content(&client, &batch["output_file_id"]).await;
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn batches_go_on_while_a_file_is_erased() {
    let gated = Gated::new(9, 9);
    let settings = RelaySettings::default();
    let server = Server::beside(gated.clone(), gated.inner.clone(), settings).await;
    let client = server.requester().await;
    let _worker = Scripted::ready(&server).await;
    let file = upload(&client, "{}").await;
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    gated.erasing.forget_permits(Semaphore::MAX_PERMITS);
    let meanwhile = async {
        while client.get(&path).await.status != StatusCode::NOT_FOUND {
            tokio::task::yield_now().await;
        }
        let id = batch_of(&client, &lines(1)).await;
        until(&client, &id, "in_progress").await;
    };
    let mut deleting = pin!(client.send(Method::DELETE, &path, ""));
    tokio::select! {
        biased;
        _ = &mut deleting => panic!("the batch waited for the deletion"),
        () = in_time(meanwhile) => {}
    }
    let deleted = in_time(deleting).await;
    assert_eq!(deleted.status, StatusCode::OK, "the disk still erases");
    let id = file["id"].as_str().unwrap();
    in_time(async {
        while gated.inner.part(id, 0).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_is_kept_for_as_long_again_once_a_batch_reads_it() {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let client = server.requester().await;
    // Larger than one part of the stored file.
    let long = "x".repeat(64 * 1024);
    let longer = lines(20).replace("question", &format!("question {long}"));
    let (file, idle) = (upload(&client, &longer).await, upload(&client, "{}").await);
    let [path, idle] = [&file, &idle].map(|file| {
        let id = file["id"].as_str().unwrap();
        format!("/v1/files/{id}")
    });
    let is_erased = async |path: &str| {
        in_time(async {
            while client.get(path).await.status != StatusCode::NOT_FOUND {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    let day = Duration::from_secs(24 * 60 * 60);
    clock.by(day * 7 - Duration::from_secs(60));
    let id = batch_over(&client, &file).await;
    clock.by(day * 7 + Duration::from_secs(60));
    // An upload makes the relay check the expiry of all files.
    upload(&client, "{}").await;
    is_erased(&idle).await;
    let mut worker = Scripted::ready(&server).await;
    for _ in 0..20 {
        echo(&mut worker).await;
    }
    let batch = until(&client, &id, "completed").await;
    assert_eq!(batch["request_counts"]["completed"], 20);
    let kept = client.get(&path).await.json().await;
    let until = kept["expires_at"].as_i64().unwrap();
    assert_eq!(
        until,
        batch["created_at"].as_i64().unwrap() + 7 * 24 * 60 * 60
    );
    clock.by(day * 14);
    upload(&client, "{}").await;
    is_erased(&path).await;
}
