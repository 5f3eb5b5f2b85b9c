//! The choice of the worker for a job.

use proto::{JobId, worker::WorkerMessage};
use queue::{Queue as _, Scope};
use serde_json::json;

use crate::{
    client::Client,
    in_time,
    server::Server,
    worker::{Scripted, report},
};

async fn submit(client: &Client) -> JobId {
    let body = r#"{"op":"chat","body":{"model":"m"}}"#;
    let job = client.post("/api/jobs", body).await.json().await;
    job["id"].as_str().unwrap().parse().unwrap()
}

/// Connects a worker with `slots` free slots; the relay has processed them when this returns.
async fn standing(server: &Server, name: &str, slots: u32, loaded: bool) -> Scripted {
    let mut worker = Scripted::named(server, name, "default", &[], slots).await;
    let mut report = report(&["m"]);
    report.models[0].loaded = loaded;
    worker.say(&WorkerMessage::Report { report }).await;
    worker.is_heard().await;
    worker
}

#[tokio::test]
async fn a_job_goes_to_the_worker_that_has_its_model_in_memory() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut cold = standing(&server, "cold", 8, false).await;
    let mut warm = standing(&server, "warm", 4, true).await;
    for _ in 0..4 {
        let id = submit(&client).await;
        assert_eq!(warm.lease().await.token().job, id);
        warm.is_heard().await;
    }
    let id = submit(&client).await;
    assert_eq!(cold.lease().await.token().job, id, "the other one is full");
}

#[tokio::test]
async fn a_job_goes_to_the_least_busy_of_equals() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut one = standing(&server, "one", 2, true).await;
    let first = submit(&client).await;
    assert_eq!(one.lease().await.token().job, first);
    one.is_heard().await;
    let mut two = standing(&server, "two", 2, true).await;
    let second = submit(&client).await;
    assert_eq!(two.lease().await.token().job, second);
}

#[tokio::test]
async fn jobs_that_wait_for_several_workers_reach_them_all() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut workers = Vec::new();
    for n in 0..3 {
        workers.push(standing(&server, &format!("w{n}"), 2, n == 0).await);
    }
    for _ in 0..6 {
        submit(&client).await;
    }
    for worker in &mut workers {
        worker.lease().await;
        worker.lease().await;
    }
    assert_eq!(server.store.counts().leased, 6);
}

#[tokio::test]
async fn a_worker_that_leaves_or_pauses_keeps_no_job_from_the_others() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut cold = standing(&server, "cold", 8, false).await;
    let mut warm = standing(&server, "warm", 1, true).await;
    warm.say(&WorkerMessage::Capacity { slots: 0 }).await;
    warm.is_heard().await;
    let paused = submit(&client).await;
    assert_eq!(cold.lease().await.token().job, paused);
    warm.say(&WorkerMessage::Capacity { slots: 1 }).await;
    warm.is_heard().await;
    warm.goes().await;
    let gone = submit(&client).await;
    assert_eq!(cold.lease().await.token().job, gone);
}

#[tokio::test]
async fn a_worker_that_polls_has_what_a_better_one_has_no_room_for() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut warm = standing(&server, "warm", 1, true).await;
    let polls = server.client("default", &[Scope::Work]).await;
    let body = json!({
        "worker": "polls", "version": "0", "report": report(&["m"]),
        "free": 1, "held": [], "wait_ms": 20_000,
    });
    let polled = tokio::spawn(async move {
        polls
            .post("/api/worker/v1/poll", body.to_string())
            .await
            .json()
            .await
    });
    submit(&client).await;
    submit(&client).await;
    warm.lease().await;
    let polled = in_time(polled).await.unwrap();
    assert_eq!(polled["leases"].as_array().unwrap().len(), 1);
}
