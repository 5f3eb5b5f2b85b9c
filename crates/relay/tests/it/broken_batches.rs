//! Batches, and lines of them, that break down.

use std::sync::Arc;

use hearth_relay::RelaySettings;
use proto::{End, ErrorCode, JobError, worker::WorkerMessage};
use queue::{Queue as _, QueueCounts};
use serde_json::json;

use crate::{
    batches::{batch_of, content, echo, get, line, lines, until},
    gated::{
        Fault::{self, Fails, Panics},
        Gated,
    },
    in_time,
    server::Server,
    worker::Scripted,
};

/// Starts a server over a store with these faults.
async fn breaking(faults: &[Fault]) -> (Server, Arc<Gated>) {
    let gated = Gated::new(99, 99);
    gated.faults.lock().extend(faults);
    let settings = RelaySettings::default();
    let server = Server::beside(gated.clone(), gated.inner.clone(), settings).await;
    (server, gated)
}

/// A batch of four lines that breaks down with an answer, and whose withdrawal meets this fault.
async fn broken_down(withdrawal: Fault) -> (Server, Scripted) {
    let put = Panics("put_result");
    // The answer, and the results of the first line in both attempts to close the batch.
    let (server, gated) = breaking(&[put, put, put, withdrawal]).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let id = batch_of(&client, &lines(4)).await;
    echo(&mut worker).await;
    until(&client, &id, "failed").await;
    assert!(gated.faults.lock().is_empty(), "each has happened");
    (server, worker)
}

#[tokio::test]
async fn a_batch_that_breaks_down_fails_and_others_go_on() {
    let (server, _) = breaking(&[Panics("next_result")]).await;
    let client = server.requester().await;
    let _worker = Scripted::ready(&server).await;
    let nobodys = line(1).replace(r#""m""#, r#""nobodys""#);
    for state in ["failed", "completed"] {
        let id = batch_of(&client, &nobodys).await;
        let batch = until(&client, &id, state).await;
        assert_eq!(batch["request_counts"]["total"], 1);
        assert_eq!(batch["errors"].is_object(), state == "failed", "{batch}");
        let errors = content(&client, &batch["error_file_id"]).await;
        assert_eq!(errors.len(), 1, "the files are written again");
    }
}

#[tokio::test]
async fn a_line_that_breaks_down_is_an_error_of_its_own() {
    let (server, _) = breaking(&[Panics("log")]).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let id = batch_of(&client, &lines(3)).await;
    for _ in 0..2 {
        echo(&mut worker).await;
    }
    let batch = until(&client, &id, "completed").await;
    let counts = json!({"total": 3, "completed": 2, "failed": 1});
    assert_eq!(batch["request_counts"], counts);
    let errors = content(&client, &batch["error_file_id"]).await;
    assert_eq!(errors[0]["response"]["status_code"], 500);
    let counts = server.store.counts();
    assert_eq!(counts, QueueCounts::default(), "its job is withdrawn");
}

#[tokio::test]
async fn a_line_whose_worker_speaks_of_the_store_is_an_error_of_its_own() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let id = batch_of(&client, &lines(2)).await;
    let job = worker.lease().await;
    let error = JobError::new(ErrorCode::OutcomeUnknown, "who knows");
    worker.end(job.token(), 0, End::Failed { error }).await;
    let more = WorkerMessage::Capacity { slots: 1 };
    worker.say(&more).await;
    echo(&mut worker).await;
    let batch = until(&client, &id, "completed").await;
    let counts = json!({"total": 2, "completed": 1, "failed": 1});
    assert_eq!(batch["request_counts"], counts);
    let errors = content(&client, &batch["error_file_id"]).await;
    assert_eq!(
        errors[0]["response"]["body"]["error"]["message"],
        "who knows"
    );
}

#[tokio::test]
async fn a_batch_that_breaks_down_tells_why_a_job_of_it_failed() {
    let (server, gated) = breaking(&[]).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let id = batch_of(&client, &lines(1)).await;
    let job = worker.lease().await;
    gated.faults.lock().push_back(Panics("put_result"));
    let error = JobError::new(ErrorCode::EngineRefused, "no such option");
    worker.end(job.token(), 0, End::Failed { error }).await;
    let batch = until(&client, &id, "failed").await;
    let errors = content(&client, &batch["error_file_id"]).await;
    let told = &errors[0]["response"]["body"]["error"]["message"];
    assert_eq!(told, "no such option");
}

#[tokio::test]
async fn a_batch_that_breaks_down_withdraws_its_jobs_also_if_that_fails_at_first() {
    let (server, _worker) = broken_down(Fails("cancel")).await;
    assert_eq!(server.store.counts().queued, 0, "nobody would read them");
}

#[tokio::test]
async fn a_batch_ends_even_if_the_withdrawal_of_its_jobs_breaks_down() {
    broken_down(Panics("cancel")).await;
}

#[tokio::test]
async fn a_batch_that_breaks_down_keeps_what_was_answered_and_withdraws_the_rest() {
    let (server, gated) = breaking(&[]).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let id = batch_of(&client, &lines(5)).await;
    echo(&mut worker).await;
    in_time(async {
        while get(&client, &id).await["request_counts"]["completed"] == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gated.faults.lock().push_back(Panics("put_result"));
    echo(&mut worker).await;
    let batch = until(&client, &id, "failed").await;
    let answers = content(&client, &batch["output_file_id"]).await;
    assert_eq!(
        answers.len(),
        2,
        "also the one that could not be stored at first"
    );
    let errors = content(&client, &batch["error_file_id"]).await;
    assert_eq!(errors.len(), 3);
    let mut named: Vec<_> = answers
        .iter()
        .chain(&errors)
        .map(|line| &line["custom_id"])
        .collect();
    named.sort_by_key(|name| name.to_string());
    named.dedup();
    assert_eq!(named.len(), 5, "each line is in one file");
    assert_eq!(batch["request_counts"]["completed"], 2);
    assert_eq!(batch["request_counts"]["failed"], 3);
    assert_eq!(server.store.counts().queued, 0, "the rest is withdrawn");
}
