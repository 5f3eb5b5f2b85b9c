//! The polling protocol: requesters and workers.

use std::time::Duration;

use hearth_relay::{RelaySettings, SystemWorld, World as _};
use http::{Method, StatusCode};
use queue::{Owner, Queue as _, Scope};
use serde_json::{Value, json};

use crate::{
    client::Client,
    server::Server,
    worker::{Scripted, chat},
};

const REQUEST: &str = r#"{"prompt":"Co to jest Python?","system_prompt":"Jesteś pomocnym asystentem","model":"qwen2.5:7b","temperature":0.5,"max_tokens":100}"#;

async fn server() -> (Server, Client, Client) {
    let mut settings = RelaySettings::default();
    settings.legacy_poll_hold = Duration::from_millis(30);
    let server = Server::with(settings).await;
    let requester = server.requester().await;
    let poller = server.client("default", &[Scope::Work]).await;
    (server, requester, poller)
}

async fn asked(requester: &Client, body: &'static str) -> String {
    let reply = requester.post("/api/ollama/request", body).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let text = reply.text().await;
    let id = serde_json::from_str::<Value>(&text).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        text,
        format!(r#"{{"id":"{id}","status":"queued"}}"#),
        "exactly these bytes"
    );
    id
}

async fn polled(poller: &Client) -> Value {
    let reply = poller.get("/api/ollama/poll").await;
    assert_eq!(reply.status, StatusCode::OK);
    let mut polled = reply.json().await;
    assert_eq!(polled["has_request"], true);
    polled["request"].take()
}

async fn answered(poller: &Client, body: &Value) {
    let reply = poller.post("/api/ollama/response", body.to_string()).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.text().await, r#"{"success":true}"#);
}

async fn status(requester: &Client, id: &str) -> String {
    requester
        .get(&format!("/api/ollama/status/{id}"))
        .await
        .text()
        .await
}

#[tokio::test]
async fn a_request_goes_through_all_four_routes() {
    let (_server, requester, poller) = server().await;
    let id = asked(&requester, REQUEST).await;
    assert_eq!(
        status(&requester, &id).await,
        format!(r#"{{"id":"{id}","status":"queued"}}"#)
    );

    let mut request = polled(&poller).await;
    request
        .as_object_mut()
        .unwrap()
        .remove("created_at")
        .unwrap();
    assert_eq!(
        request,
        json!({"id": id, "prompt": "Co to jest Python?", "system_prompt": "Jesteś pomocnym asystentem",
               "model": "qwen2.5:7b", "temperature": 0.5, "max_tokens": 100})
    );
    assert_eq!(
        status(&requester, &id).await,
        format!(r#"{{"id":"{id}","status":"processing"}}"#)
    );

    let answer = json!({"id": id, "response": "Język", "model": null, "success": true});
    answered(&poller, &answer).await;
    answered(&poller, &answer).await;
    assert_eq!(
        status(&requester, &id).await,
        format!(r#"{{"id":"{id}","status":"completed","response":"Język","model":"qwen2.5:7b"}}"#)
    );
    let other = json!({"id": id, "response": "changed", "model": null, "success": true});
    answered(&poller, &other).await;
    assert!(
        status(&requester, &id).await.contains("Język"),
        "a finished answer never changes"
    );
}

#[tokio::test]
async fn the_documented_defaults_are_filled_in() {
    let (_server, requester, poller) = server().await;
    asked(&requester, r#"{"prompt":"x"}"#).await;
    let request = polled(&poller).await;
    assert_eq!(request["system_prompt"], Value::Null);
    assert_eq!(request["model"], "qwen2.5:7b");
    assert_eq!(
        (&request["temperature"], &request["max_tokens"]),
        (&0.7.into(), &2000.into())
    );
}

#[tokio::test]
async fn an_empty_queue_is_204_after_the_hold_and_work_ends_the_hold() {
    let (_server, _, poller) = server().await;
    let reply = poller.get("/api/ollama/poll").await;
    assert_eq!(
        (reply.status, reply.text().await.as_str()),
        (StatusCode::NO_CONTENT, "")
    );

    let server = Server::start().await;
    let requester = server.requester().await;
    let poller = server.client("default", &[Scope::Work]).await;
    let held = tokio::spawn(async move { polled(&poller).await });
    let id = asked(&requester, REQUEST).await;
    assert_eq!(held.await.unwrap()["id"], id.as_str());
}

#[tokio::test]
async fn a_failure_without_response_or_model_is_an_error_to_its_requester() {
    let (_server, requester, poller) = server().await;
    let id = asked(&requester, REQUEST).await;
    polled(&poller).await;
    answered(
        &poller,
        &json!({"id": id, "error": "timed out", "success": false}),
    )
    .await;
    assert_eq!(
        status(&requester, &id).await,
        format!(r#"{{"id":"{id}","status":"error","error":"timed out"}}"#)
    );
}

#[tokio::test]
async fn a_late_answer_is_acknowledged_and_dropped() {
    let mut settings = RelaySettings::default();
    settings.legacy_lease = Duration::from_millis(20);
    let server = Server::with(settings).await;
    let requester = server.requester().await;
    let slow = server.client("default", &[Scope::Work]).await;
    let quick = server.client("default", &[Scope::Work]).await;
    let id = asked(&requester, REQUEST).await;
    assert_eq!(polled(&slow).await["id"], id.as_str());
    // This held poll is answered when the first lease expires.
    let again = polled(&quick).await["id"].as_str().unwrap().to_owned();
    assert_eq!(
        again,
        format!("{id}-2"),
        "a second attempt can be told from the first"
    );
    answered(
        &slow,
        &json!({"id": id, "response": "late", "success": true}),
    )
    .await;
    assert!(!status(&requester, &id).await.contains("late"));
}

#[tokio::test]
async fn jobs_a_poller_cannot_be_told_are_left_for_others() {
    let (server, requester, poller) = server().await;
    let embed = r#"{"op":"embed","body":{"model":"m","input":"x"}}"#;
    let embed = requester.post("/api/jobs", embed).await.json().await;
    assert_eq!(
        poller.get("/api/ollama/poll").await.status,
        StatusCode::NO_CONTENT
    );
    let id = asked(&requester, REQUEST).await;
    assert_eq!(
        polled(&poller).await["id"],
        id.as_str(),
        "it is passed over"
    );
    let mut worker = Scripted::ready(&server).await;
    assert_eq!(
        worker.lease().await.token().job.to_string(),
        embed["id"].as_str().unwrap()
    );
}

#[tokio::test]
async fn a_poller_answers_an_ollama_client() {
    let (_server, requester, poller) = server().await;
    poller.get("/api/ollama/poll").await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let chat = tokio::spawn(async move { requester.post("/api/chat", body).await });
    let mut reply = poller.get("/api/ollama/poll").await;
    while reply.status == StatusCode::NO_CONTENT {
        reply = poller.get("/api/ollama/poll").await;
    }
    let request = reply.json().await["request"].take();
    assert_eq!(request["prompt"], "hi");
    answered(
        &poller,
        &json!({"id": request["id"], "response": "ho", "success": true}),
    )
    .await;
    let text = chat.await.unwrap().text().await;
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines[0]["message"]["content"], "ho");
    assert_eq!(lines[1]["done"], true);
}

#[tokio::test]
async fn a_worker_on_a_socket_answers_a_polling_requester() {
    let (server, requester, _) = server().await;
    let mut worker = Scripted::ready(&server).await;
    let id = asked(&requester, r#"{"prompt":"hi"}"#).await;
    let job = worker.lease().await;
    assert_eq!(job.head.model.as_str(), "m", "the first of a worker online");
    worker.line(job.token(), 1, &chat("par")).await;
    assert!(status(&requester, &id).await.contains("processing"));
    let token = job.token();
    worker.line(token, 2, crate::worker::CHAT_DONE).await;
    worker.end(token, 2, proto::End::Completed).await;
    assert!(
        status(&requester, &id)
            .await
            .contains(r#""response":"par""#)
    );
}

#[tokio::test]
async fn unknown_and_foreign_ids_are_the_same() {
    let (server, requester, poller) = server().await;
    let id = asked(&requester, REQUEST).await;
    polled(&poller).await;
    let stranger = server.client("other", &[Scope::Read, Scope::Work]).await;
    for id in [id.as_str(), "request-123", &"0".repeat(32)] {
        let reply = stranger.get(&format!("/api/ollama/status/{id}")).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert_eq!(
            reply.text().await,
            format!(r#"{{"id":"{id}","status":"not_found"}}"#)
        );
        let answer = json!({"id": id, "response": "x", "success": true}).to_string();
        let reply = stranger.post("/api/ollama/response", answer).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert!(
            reply
                .text()
                .await
                .starts_with(r#"{"error":"there is no such job"#)
        );
    }
    assert!(
        status(&requester, &id).await.contains("processing"),
        "nothing happened to it"
    );
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused_with_400() {
    let (_server, requester, poller) = server().await;
    for body in ["", "{", "{}", r#"{"prompt":"x","max_tokens":9000}"#] {
        let reply = requester.post("/api/ollama/request", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let reply = poller.post("/api/ollama/response", "{}").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn jobs_a_poller_cannot_be_told_do_not_starve_it_however_many() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let poller = server.client("default", &[Scope::Work]).await;
    for _ in 0..40 {
        let embed = r#"{"op":"embed","body":{"model":"m","input":"x"}}"#;
        requester.post("/api/jobs", embed).await;
    }
    let id = asked(&requester, REQUEST).await;
    assert_eq!(polled(&poller).await["id"], id.as_str(), "in one poll");
}

#[tokio::test]
async fn the_poller_that_is_really_run_gets_and_answers_jobs_in_its_own_words() {
    let (_server, requester, poller) = server().await;
    let empty = poller.get("/api/v1/ollama/poll").await;
    assert_eq!(empty.status, StatusCode::OK, "never 204");
    assert_eq!(empty.text().await, r#"{"has_job":false}"#);

    let body = r#"{"user":"Co to jest Python?","system":"Krótko","model":"llama3.1:8b","temperature":0.7,"max_tokens":1000}"#;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let reply = requester.post("/api/v1/ollama/request", body).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        ids.push(reply.json().await["id"].as_str().unwrap().to_owned());
    }
    let polled = poller.get("/api/v1/ollama/poll").await.text().await;
    let id = &ids[0];
    assert_eq!(
        polled,
        format!(
            r#"{{"has_job":true,"job":{{"job_uuid":"{id}","request_data":{{"system":"Krótko","user":"Co to jest Python?","model":"llama3.1:8b","temperature":0.7,"max_tokens":1000}}}}}}"#
        )
    );
    let answer = format!(
        r#"{{"job_uuid":"{id}","response_text":"Język","response_metadata":{{"input_tokens":1,"output_tokens":2,"response_time_ms":3}}}}"#
    );
    let reply = poller.post("/api/v1/ollama/response", answer).await;
    assert_eq!(reply.status, StatusCode::OK);
    let path = format!("/api/v1/ollama/status/{id}");
    assert_eq!(
        requester.get(&path).await.text().await,
        format!(r#"{{"id":"{id}","status":"completed","response":"Język","model":"llama3.1:8b"}}"#)
    );

    poller.get("/api/v1/ollama/poll").await.text().await;
    let id = &ids[1];
    let failed = format!(
        r#"{{"job_uuid":"{id}","response_text":"","response_metadata":[],"error_message":"HTTP 500"}}"#
    );
    let reply = poller.post("/api/v1/ollama/response", failed).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        status(&requester, id).await,
        format!(r#"{{"id":"{id}","status":"error","error":"HTTP 500"}}"#)
    );
}

#[tokio::test]
async fn who_asks_for_the_head_of_an_answer_has_not_fetched_it() {
    let (server, requester, poller) = server().await;
    for path in ["/api/ollama/status/ID", "/api/jobs/ID/answer"] {
        let id = asked(&requester, REQUEST).await;
        polled(&poller).await;
        let answer = json!({"id": id, "response": "x", "model": null, "success": true});
        answered(&poller, &answer).await;
        let job = id.parse().unwrap();
        for (method, is_erased) in [(Method::HEAD, false), (Method::GET, true)] {
            let reply = requester.send(method, &path.replace("ID", &id), "").await;
            assert_eq!(reply.status, StatusCode::OK, "{path}");
            let later = SystemWorld.now() + Duration::from_secs(2 * 60 * 60);
            server.store.reap(later).await.unwrap();
            let kept = server.store.get(Owner::Anyone, job).await.unwrap();
            assert_eq!(kept.unwrap().is_erased, is_erased, "{path}");
        }
    }
}

#[tokio::test]
async fn who_asks_for_the_head_of_a_poll_takes_no_request_away() {
    let (server, requester, poller) = server().await;
    asked(&requester, REQUEST).await;
    for path in ["/api/ollama/poll", "/api/v1/ollama/poll"] {
        let reply = poller.send(Method::HEAD, path, "").await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert_eq!(server.store.counts().queued, 1);
    polled(&poller).await;
}
