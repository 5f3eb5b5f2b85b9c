//! The operator routes under `/api/admin`, and the dashboard at `/`.

use http::{Method, StatusCode};
use proto::{End, ErrorCode, JobError, worker::WorkerMessage};
use queue::Scope;
use serde_json::{Value, json};

use crate::{
    client::{Client, Reply},
    server::Server,
    worker::{Scripted, chat},
};

const CHAT: &str = r#"{"op":"chat","priority":3,
    "body":{"model":"m","messages":[{"role":"user","content":"a secret question"}]}}"#;

async fn submitted(client: &Client) -> String {
    let reply = client.post("/api/jobs", CHAT).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    reply.json().await["id"].as_str().unwrap().to_owned()
}

/// Reads events of this name until one contains the expected text.
async fn until(stream: &mut Reply, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut text = String::new();
    loop {
        text += &stream.chunk().await.unwrap();
        assert!(
            !text.contains("secret") && !text.contains("Hello"),
            "{text}"
        );
        for event in text
            .split_inclusive("\n\n")
            .filter(|event| event.ends_with("\n\n"))
        {
            let data = event.split_once("data: ").map(|(_, data)| data);
            let is_it = event.starts_with(&format!("event: {name}\n"));
            let told = data.filter(|_| is_it);
            if let Some(told) = told.map(|data| serde_json::from_str(data).unwrap())
                && holds(&told)
            {
                return told;
            }
        }
    }
}

#[tokio::test]
async fn an_operator_sees_a_job_wait_run_and_end_and_never_what_was_asked_or_answered() {
    let server = Server::start().await;
    let admin = server.client("staff", &[Scope::Admin]).await;
    let client = server.requester().await;
    let mut stream = admin.get("/api/admin/events").await;
    assert_eq!(stream.header("content-type"), "text/event-stream");
    until(&mut stream, "overview", |told| told["queue"]["queued"] == 0).await;

    let id = submitted(&client).await;
    let told = until(&mut stream, "overview", |told| told["queue"]["queued"] == 1).await;
    assert_eq!(
        told["queue"]["by_priority"],
        json!([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    );

    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    for n in 1..=3 {
        worker.line(job.token(), n, &chat("Hello")).await;
    }
    let told = until(&mut stream, "overview", |told| {
        told["jobs"][0]["tokens"] == 3
    })
    .await;
    let running = &told["jobs"][0];
    assert_eq!(running["id"], id.as_str());
    assert_eq!(
        (&running["worker"], &running["who"]),
        (&json!("scripted"), &json!("key-1"))
    );
    let here = &told["workers"][0];
    assert_eq!(
        (&here["online"], &here["carrier"]),
        (&json!(true), &json!("websocket"))
    );
    assert_eq!((&here["slots"], &here["running"]), (&json!(1), &json!(1)));
    assert_eq!(here["models"], json!([{"name": "m", "loaded": false}]));

    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(job.token(), 3, End::Failed { error }).await;
    let minutes = until(&mut stream, "minutes", |told| told[0]["failed"] == 1).await;
    assert_eq!(minutes[0]["tokens"], 3);

    let told = admin.get("/api/admin/overview").await.json().await;
    assert_eq!((&told["dead"], &told["jobs"]), (&json!(1), &json!([])));
    assert_eq!(told["minutes"], minutes);
    assert!(!told.to_string().contains("secret"));
}

#[tokio::test]
async fn a_worker_that_left_or_paused_is_told_as_such() {
    let server = Server::start().await;
    let admin = server.client("staff", &[Scope::Admin]).await;
    let mut stream = admin.get("/api/admin/events").await;
    let mut worker = Scripted::ready(&server).await;
    until(&mut stream, "overview", |told| {
        told["workers"][0]["slots"] == 1
    })
    .await;
    worker.say(&WorkerMessage::Capacity { slots: 0 }).await;
    until(&mut stream, "overview", |told| {
        told["workers"][0]["slots"] == 0
    })
    .await;
    drop(worker);
    let told = until(&mut stream, "overview", |told| {
        told["workers"][0]["online"] == false
    })
    .await;
    let gone = &told["workers"][0];
    assert_eq!(
        (&gone["name"], &gone["carrier"]),
        (&json!("scripted"), &Value::Null)
    );
    assert!(gone["last_seen"].as_i64() <= told["now"].as_i64());
}

#[tokio::test]
async fn an_operator_sees_retries_and_withdraws_anybodys_jobs() {
    let server = Server::start().await;
    let admin = server.client("staff", &[Scope::Admin]).await;
    let client = server.requester().await;
    let id = submitted(&client).await;
    let mut worker = Scripted::ready(&server).await;
    let job = worker.lease().await;
    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(job.token(), 0, End::Failed { error }).await;
    drop(worker);
    let dead = admin.get("/api/admin/jobs?state=dead").await.json().await;
    assert_eq!(dead[0]["id"], id.as_str());
    let reply = admin.post(&format!("/api/admin/jobs/{id}/retry"), "").await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let made = reply.json().await;
    let first = admin.get(&format!("/api/admin/jobs/{id}")).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(first.json().await["retried_as"], made["id"]);
    let path = format!("/api/admin/jobs/{}", made["id"].as_str().unwrap());
    let again = admin.get(&path).await.json().await;
    assert_eq!(
        (&again["state"], &again["account"]),
        (&json!("queued"), &json!("default"))
    );
    let reply = admin.send(Method::DELETE, &path, "").await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    let dead = admin.get("/api/admin/jobs?state=dead").await.json().await;
    assert_eq!(dead, json!([]));
}

#[tokio::test]
async fn a_key_is_made_shown_once_used_and_revoked_with_all_it_has_open() {
    let server = Server::start().await;
    let admin = server.client("staff", &[Scope::Admin]).await;
    let wanted = json!({"name": "ci", "account": "team", "scopes": ["enqueue", "read"],
        "models": ["m*"], "max_priority": 4, "expires_in_s": 3600});
    let reply = admin.post("/api/admin/keys", wanted.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    assert_eq!(reply.header("cache-control"), "no-store");
    let made = reply.json().await;
    let (id, text) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let lasts = made["expires_at"].as_i64().unwrap() - made["created_at"].as_i64().unwrap();
    assert_eq!(lasts, 3_600_000);

    let listed = admin.get("/api/admin/keys").await.text().await;
    assert!(listed.contains(id) && !listed.contains(text), "{listed}");
    let other = Client::new(server.base(), Some(text.to_owned()));
    let urgent = r#"{"op":"chat","priority":1,"body":{"model":"m"}}"#;
    let refused = other.post("/api/jobs", urgent).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "its ceiling holds");
    let job = submitted_with(&other).await;
    let stream = other.get(&format!("/api/jobs/{job}/events")).await;

    let path = format!("/api/admin/keys/{id}");
    let reply = admin.send(Method::DELETE, &path, "").await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    stream.broken_off().await;
    assert_eq!(
        other.get("/api/jobs").await.status,
        StatusCode::UNAUTHORIZED
    );
    let again = admin.send(Method::DELETE, &path, "").await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert_eq!(again.json().await["error"]["code"], "unknown_key");
}

async fn submitted_with(client: &Client) -> String {
    let low = r#"{"op":"chat","priority":4,"body":{"model":"m"}}"#;
    let reply = client.post("/api/jobs", low).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    reply.json().await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_not_made() {
    let server = Server::start().await;
    let admin = server.client("staff", &[Scope::Admin]).await;
    for wrong in [
        json!({"name": "", "scopes": ["read"]}),
        json!({"name": "two\nlines", "scopes": ["read"]}),
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["everything"]}),
        json!({"name": "x", "scopes": ["read"], "account": "two words"}),
        json!({"name": "x", "scopes": ["read"], "serve": ["all"]}),
        json!({"name": "x", "scopes": ["read"], "models": ["a b"]}),
        json!({"name": "x", "scopes": ["read"], "max_priority": 11}),
        json!({"name": "x", "scopes": ["read"], "expires_in_s": 0}),
        json!({"name": "x", "scopes": ["read"], "secret": "mine"}),
        json!({"name": "first", "scopes": ["read"]}),
    ] {
        let reply = admin.post("/api/admin/keys", wrong.to_string()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let listed = admin.get("/api/admin/keys").await.json().await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_browser_gets_the_dashboard_and_ollamas_clients_their_words() {
    let server = Server::start().await;
    let nobody = server.nobody();
    let plain = nobody.get("/").await;
    assert_eq!(plain.header("vary"), "accept");
    assert_eq!(plain.text().await, "Ollama is running");
    let accept = [("accept", "text/html,*/*;q=0.8")];
    let page = nobody.send_with(Method::GET, "/", &accept, "").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    assert_eq!(page.header("x-frame-options"), "DENY");
    let html = page.text().await;
    let script = html.split('"').find(|word| word.ends_with(".js")).unwrap();
    let script = nobody.get(script).await;
    assert_eq!(script.status, StatusCode::OK);
    assert!(script.header("cache-control").contains("immutable"));
    assert_eq!(
        nobody.get("/assets/nothing.js").await.status,
        StatusCode::NOT_FOUND
    );
}
