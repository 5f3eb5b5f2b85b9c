//! Who may make, see, claim and answer queries.

use http::{Method, StatusCode};
use queue::{Role, Scope, Users as _};
use serde_json::json;

use super::{asked, claimed, patched, query, scene};
use crate::{
    client::Client,
    people::{client_of, user},
    server::Server,
};

#[tokio::test]
async fn only_workers_claim_and_only_the_claimant_answers() {
    let (server, jan, worker) = scene().await;
    user(&*server.store, "second", Role::Service, "default").await;
    let second = client_of(&server.nobody(), "second").await;
    let id = asked(&jan, "x").await;
    let denied = r#"{"detail":"You do not have permission to perform this action."}"#;
    for reply in [
        jan.post("/api/queries/claim_next/", "").await,
        patched(&jan, id, json!({"status": "done"})).await,
        jan.post("/api/logs/", r#"{"project":1,"query":1,"log_data":"x"}"#)
            .await,
        patched(&worker, id, json!({"status": "done"})).await,
    ] {
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert_eq!(reply.text().await, denied);
    }
    claimed(&worker).await;
    let stolen = patched(
        &second,
        id,
        json!({"status": "done", "answer_text": "mine"}),
    )
    .await;
    assert_eq!(stolen.status, StatusCode::FORBIDDEN);
    let again = client_of(&server.nobody(), "worker").await;
    let reply = patched(&again, id, json!({"status": "done", "answer_text": "y"})).await;
    assert_eq!(
        reply.status,
        StatusCode::OK,
        "a new login is the same worker"
    );
    assert_eq!(query(&jan, id).await["answer_text"], "y");
}

#[tokio::test]
async fn a_key_with_the_scope_works_like_a_service() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let worker = server.client("default", &[Scope::Work]).await;
    let id = asked(&requester, "x").await;
    assert_eq!(claimed(&worker).await["user"], json!(null));
    let reply = patched(
        &worker,
        id,
        json!({"status": "failed", "answer_text": "broken"}),
    )
    .await;
    let seen = reply.json().await;
    assert_eq!(
        (&seen["status"], &seen["answer_text"]),
        (&"failed".into(), &"broken".into())
    );
}

#[tokio::test]
async fn another_account_sees_claims_and_deletes_nothing() {
    let (server, jan, worker) = scene().await;
    user(&*server.store, "eve", Role::Service, "other").await;
    let eve = client_of(&server.nobody(), "eve").await;
    let id = asked(&jan, "x").await;
    assert_eq!(
        eve.post("/api/queries/claim_next/", "").await.status,
        StatusCode::NOT_FOUND
    );
    claimed(&worker).await;
    patched(&worker, id, json!({"status": "done", "answer_text": "y"})).await;
    let absent = id + 1000;
    for id in [id, absent] {
        let path = format!("/api/queries/{id}/");
        let logs = format!("/api/queries/{id}/logs/");
        for reply in [
            eve.get(&path).await,
            eve.get(&logs).await,
            eve.send(Method::DELETE, &path, "").await,
            patched(&eve, id, json!({"status": "done"})).await,
        ] {
            assert_eq!(reply.status, StatusCode::NOT_FOUND);
            let body = reply.text().await;
            assert_eq!(body, r#"{"detail":"No Query matches the given query."}"#);
        }
        let log = json!({"project": 1, "query": id, "log_data": "x"}).to_string();
        let reply = eve.post("/api/logs/", log).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        let body = format!(r#"{{"query":["Invalid pk \"{id}\" - object does not exist."]}}"#);
        assert_eq!(reply.text().await, body);
    }
    assert_eq!(eve.get("/api/queries/").await.json().await["count"], 0);
    assert_eq!(
        eve.get("/api/queries/by_status/?status=done")
            .await
            .text()
            .await,
        "[]"
    );
    assert_eq!(
        jan.get("/api/queries/by_status/?status=done")
            .await
            .json()
            .await[0]["id"],
        id
    );
}

#[tokio::test]
async fn who_shows_nothing_or_something_bad_is_told_in_the_services_words() {
    let (server, jan, _worker) = scene().await;
    let bad = Client::new(server.base(), Some("a.b.c".into()));
    assert!(server.store.remove_user("jan").await.unwrap());
    for (client, body) in [
        (
            server.nobody(),
            r#"{"detail":"Authentication credentials were not provided."}"#,
        ),
        (
            bad,
            r#"{"detail":"Given token not valid for any token type","code":"token_not_valid","messages":[{"token_class":"AccessToken","token_type":"access","message":"Token is invalid"}]}"#,
        ),
        (
            jan,
            r#"{"detail":"User not found","code":"user_not_found"}"#,
        ),
    ] {
        let reply = client.post("/api/queries/claim_next/", "").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"api\"");
        assert_eq!(reply.text().await, body);
    }
}

#[tokio::test]
async fn every_refusal_of_the_service_has_its_stable_code_too() {
    let (_server, jan, worker) = scene().await;
    let none = worker.post("/api/queries/claim_next/", "").await;
    let absent = jan.get("/api/queries/no-number/").await;
    let odd = jan.get("/api/queries/by_status/?status=odd").await;
    let json = jan.post("/api/queries/", "{").await;
    let login = r#"{"username":"jan","password":"wrong"}"#;
    let login = jan.post("/api/login/", login).await;
    let polled = jan.get("/api/ollama/status/no-number").await;
    for (reply, code) in [
        (none, "unknown_job"),
        (absent, "unknown_job"),
        (odd, "bad_request"),
        (json, "bad_request"),
        (login, "unauthorized"),
        (polled, "unknown_job"),
    ] {
        assert_eq!(reply.header("x-hearth-error"), code, "{}", reply.status);
    }
}
