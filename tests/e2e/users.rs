//! `hearth user` beside a running relay.

use std::fs::{self, File};

use hearth_tests::{
    process::{Finished, PATIENCE, finish},
    test_bed::{TestBed, read_json, store},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

const PASSWORD: &str = "correct horse";

/// Runs `hearth user` with the password as its input.
async fn user(bed: &TestBed, args: &[&str]) -> Finished {
    let input = bed.home.path().join("password");
    fs::write(&input, PASSWORD).unwrap();
    let mut command = bed.hearth(&["user"]);
    command.args(args).args(["--store", &store(&bed.home)]);
    command.stdin(File::open(input).unwrap());
    finish(command).await
}

#[tokio::test]
async fn logging_all_out_voids_every_token_of_a_running_relay_and_ends_what_is_open() {
    let bed = TestBed::relay_only("ollama:http://127.0.0.1:1").await;
    let made = user(&bed, &["create", "--name", "jan", "--password-stdin"]).await;
    assert!(made.status.success(), "{}", made.stderr);
    let login = async || {
        let body = json!({"username": "jan", "password": PASSWORD});
        let login = bed.http.post(bed.url("/api/sessions")).json(&body);
        let tokens = read_json(login).await;
        tokens["access_token"].as_str().unwrap().to_owned()
    };
    let status = async |token: &str| {
        let request = bed.http.get(bed.url("/api/tags")).bearer_auth(token);
        request.send().await.unwrap().status()
    };
    let token = login().await;
    assert_eq!(status(&token).await, StatusCode::OK);
    let job = json!({"op": "chat", "body": {"model": "m", "messages": []}});
    let job = bed
        .http
        .post(bed.url("/api/jobs"))
        .bearer_auth(&token)
        .json(&job)
        .send();
    let job: Value = job.await.unwrap().json().await.unwrap();
    let events = bed.url(&format!("/api/jobs/{}/events", job["id"].as_str().unwrap()));
    let open = bed
        .http
        .get(events)
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(open.status(), StatusCode::OK);

    let done = user(&bed, &["logout", "--all"]).await;
    assert!(done.status.success(), "{}", done.stderr);
    assert!(done.stdout.contains("all users (1)"), "{}", done.stdout);

    assert_eq!(status(&token).await, StatusCode::UNAUTHORIZED);
    let broken_off = timeout(PATIENCE, open.bytes()).await.unwrap();
    assert!(broken_off.is_err(), "it ended as if it were whole");
    assert_eq!(status(&login().await).await, StatusCode::OK);
    assert_eq!(status(&bed.requester).await, StatusCode::OK, "a key stays");
}
