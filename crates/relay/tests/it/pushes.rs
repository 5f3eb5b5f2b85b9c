//! Push notifications of new queries to a worker of the query service.

use std::time::Duration;

use futures_util::FutureExt as _;
use hearth_relay::RelaySettings;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{client::Client, in_time, server::Server, webhooks::Receiver};

const PATH: &str = "/api/process-query";
const ACCEPTED: &str = "200 OK\r\ncontent-length: 0";

async fn telling(receiver: &Receiver, patience: Duration) -> (Server, Client) {
    let mut settings = RelaySettings::default();
    let url = format!("http://127.0.0.1:{}", receiver.port());
    settings.push_url = Some(url.parse().unwrap());
    settings.push_patience = patience;
    let server = Server::with(settings).await;
    let client = server.requester().await;
    // Once the relay serves, it also follows new queries.
    assert_eq!(client.get("/healthz").await.status, StatusCode::OK);
    (server, client)
}

async fn asked(client: &Client) -> u64 {
    let body = json!({"project": 1, "query_text": "a secret question"}).to_string();
    let reply = client.post("/api/queries/", body).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    reply.json().await["id"].as_u64().unwrap()
}

/// Receives the next notification and returns its query.
async fn told(receiver: &Receiver, answer: &str) -> u64 {
    let message = receiver.hear_at(PATH, answer).await;
    let body: Value = serde_json::from_str(&message.body).unwrap();
    body["query_id"].as_u64().unwrap()
}

#[tokio::test]
async fn a_new_query_is_told_at_once_with_its_number_and_nothing_secret() {
    let receiver = Receiver::start().await;
    let (server, client) = telling(&receiver, Duration::from_secs(20)).await;
    let id = asked(&client).await;
    let message = receiver.hear_at(PATH, ACCEPTED).await;
    let body: Value = serde_json::from_str(&message.body).unwrap();
    assert_eq!(body, json!({"query_id": id, "webbuddy_url": server.base()}));
    assert_eq!(message.headers["content-type"], "application/json");
    assert!(!message.headers.contains_key("authorization"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_push_that_fails_or_leads_elsewhere_is_not_repeated_and_not_followed() {
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let (_server, client) = telling(&receiver, Duration::from_secs(20)).await;
    let port = elsewhere.port();
    let away = format!("307 Temporary Redirect\r\nlocation: http://127.0.0.1:{port}/");
    for answer in [
        "500 Internal Server Error",
        &away,
        "204 No Content",
        "nonsense",
    ] {
        let id = asked(&client).await;
        assert_eq!(told(&receiver, answer).await, id, "before {answer}");
    }
    let last = asked(&client).await;
    assert_eq!(told(&receiver, ACCEPTED).await, last);
    assert!(elsewhere.0.accept().now_or_never().is_none());
}

#[tokio::test]
async fn while_the_worker_is_being_told_only_the_latest_query_is_kept() {
    let receiver = Receiver::start().await;
    let (_server, client) = telling(&receiver, Duration::from_secs(20)).await;
    asked(&client).await;
    let (held, _) = in_time(receiver.0.accept()).await.unwrap();
    for _ in 0..20 {
        asked(&client).await;
    }
    let last = asked(&client).await;
    let second = receiver.0.accept().now_or_never();
    assert!(second.is_none(), "one at a time");
    drop(held);
    assert_eq!(told(&receiver, ACCEPTED).await, last);
    let next = asked(&client).await;
    assert_eq!(told(&receiver, ACCEPTED).await, next);
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_given_up_on_in_time() {
    let patience = RelaySettings::default().push_patience;
    assert_eq!(patience, Duration::from_secs(2));
    let receiver = Receiver::start().await;
    let (server, client) = telling(&receiver, Duration::from_millis(300)).await;
    asked(&client).await;
    let (_silent, _) = in_time(receiver.0.accept()).await.unwrap();
    let next = asked(&client).await;
    assert_eq!(told(&receiver, ACCEPTED).await, next);
    server.stop().await.unwrap();
}
