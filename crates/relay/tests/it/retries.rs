//! Failed jobs: listed as dead, and submitted again from the stored request.

use http::StatusCode;
use proto::{End, ErrorCode, JobError};
use queue::{Queue as _, Scope};

use crate::{
    client::Client,
    server::Server,
    worker::{Job, Scripted},
};

const CHAT: &str = r#"{"op":"chat","priority":2,"deadline_ms":600000,
    "body":{"model":"m",  "messages":[{}],"x":1.50}}"#;

async fn submitted(client: &Client) -> String {
    let reply = client.post("/api/jobs", CHAT).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    id(&reply.json().await)
}

fn id(job: &serde_json::Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}

async fn dead(client: &Client) -> Vec<String> {
    let list = client.get("/api/jobs?state=dead").await.json().await;
    let list = list.as_array().unwrap().iter();
    list.map(id).collect()
}

async fn fails(worker: &mut Scripted) -> Job {
    let job = worker.lease().await;
    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(job.token(), 0, End::Failed { error }).await;
    job
}

#[tokio::test]
async fn a_failed_job_is_made_anew_once_from_the_request_that_was_kept() {
    let server = Server::start().await;
    let client = server.requester().await;
    let first = submitted(&client).await;
    let mut worker = Scripted::ready(&server).await;
    let failed = fails(&mut worker).await;
    assert_eq!(dead(&client).await, [first.as_str()]);

    let retry = format!("/api/jobs/{first}/retry");
    let reply = client.post(&retry, "").await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let job = reply.json().await;
    assert_eq!(job["priority"], 2);
    let wanted = job["deadline"].as_i64().unwrap() - job["created_at"].as_i64().unwrap();
    assert_eq!(wanted, 600_000, "as long as the first time");
    let second = id(&job);
    assert_ne!(second, first);
    let again = worker.lease().await;
    assert_eq!(again.body, failed.body, "byte for byte");

    let repeat = client.post(&retry, "").await;
    assert_eq!(repeat.header("idempotent-replayed"), "true");
    assert_eq!(id(&repeat.json().await), second, "it is made anew once");
    let told = client.get(&format!("/api/jobs/{first}")).await.json().await;
    assert_eq!(told["retried_as"], second.as_str());
    assert_eq!(dead(&client).await, [""; 0], "it is tried again");

    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(again.token(), 0, End::Failed { error }).await;
    assert_eq!(dead(&client).await, [second.as_str()], "and dead again");
}

#[tokio::test]
async fn what_was_answered_or_is_not_over_is_not_made_anew() {
    let server = Server::start().await;
    let client = server.requester().await;
    let first = submitted(&client).await;
    let retry = format!("/api/jobs/{first}/retry");
    let early = client.post(&retry, "").await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    assert_eq!(early.json().await["error"]["code"], "job_unfinished");
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    worker.answer(&job, &["Hello"]).await;
    let late = client.post(&retry, "").await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(late.json().await["error"]["code"], "job_ended");
    let jobs = server.store.list(queue::Owner::Anyone, 9).await.unwrap();
    assert_eq!(jobs.len(), 1, "no job was made");
}

#[tokio::test]
async fn an_admin_makes_anybodys_job_anew_for_whom_it_was() {
    let server = Server::start().await;
    let client = server.requester().await;
    let first = submitted(&client).await;
    let mut worker = Scripted::ready(&server).await;
    fails(&mut worker).await;
    let scopes = [Scope::Enqueue, Scope::Read, Scope::Admin];
    let admin = server.client("staff", &scopes).await;
    assert_eq!(dead(&admin).await, [first.as_str()]);
    let reply = admin.post(&format!("/api/jobs/{first}/retry"), "").await;
    let job = reply.json().await;
    assert_eq!(job["account"], "default");
    let own = client.get(&format!("/api/jobs/{}", id(&job))).await;
    assert_eq!(own.status, StatusCode::OK, "its requester finds it");
}

#[tokio::test]
async fn a_job_whose_model_nobody_has_any_more_is_not_made_anew() {
    let server = Server::start().await;
    let client = server.requester().await;
    let first = submitted(&client).await;
    let gone = {
        let mut worker = Scripted::ready(&server).await;
        fails(&mut worker).await;
        worker
    };
    let _other = Scripted::serving(&server, "default", &["other"], 0).await;
    let report = crate::worker::report(&["another"]);
    let mut changed = gone;
    changed
        .say(&proto::worker::WorkerMessage::Report { report })
        .await;
    // The response to renewing an unknown lease comes after the report was processed.
    let token = proto::LeaseToken {
        job: proto::JobId([7; 16]),
        attempt: 1,
    };
    changed
        .say(&proto::worker::WorkerMessage::Extend {
            tokens: vec![token],
        })
        .await;
    changed.next().await;
    let reply = client.post(&format!("/api/jobs/{first}/retry"), "").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.json().await["error"]["code"], "unknown_model");
    assert_eq!(dead(&client).await, [first], "it can still be tried");
}
