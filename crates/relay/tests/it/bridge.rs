//! The HTTP polling bridge: a scripted desktop of the tunnel service.

use std::{sync::Arc, time::Duration};

use hearth_relay::{RelaySettings, SystemWorld, World as _};
use http::{Method, StatusCode};
use proto::JobState;
use queue::{Keys as _, Owner, Queue as _, Scope};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    client::{Client, Reply},
    in_time,
    server::{Ahead, Server},
    worker::{CHAT_DONE, Scripted, chat},
};

const REGISTER: &str = r#"{"clientId":"flutter-desktop-linux","platform":"linux","version":"4.0.0","capabilities":["streaming"]}"#;
const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],  "stream":true}"#;
pub(crate) const WHOLE: &str =
    r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":false}"#;
const MALFORMED: [&str; 3] = ["x", "00000000000000000000000000000000", "%FF"];

/// A desktop that is registered.
#[derive(Clone)]
struct Desktop {
    client: Client,
    id: String,
}

impl Desktop {
    async fn of(server: &Server) -> Self {
        Self::with(server.client("default", &[Scope::Work]).await).await
    }

    async fn with(client: Client) -> Self {
        let reply = client.post("/api/bridge/register", REGISTER).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.header("cache-control"), "no-store");
        let registered = reply.json().await;
        let id = registered["bridgeId"].as_str().unwrap().to_owned();
        Self { client, id }
    }

    fn path(&self, what: &str) -> String {
        format!("/api/bridge/{}/{what}", self.id)
    }

    async fn get(&self, what: &str) -> Reply {
        self.client.get(&self.path(what)).await
    }

    async fn post(&self, what: &str, body: &Value) -> Reply {
        self.client.post(&self.path(what), body.to_string()).await
    }

    /// Polls without waiting; returns the request.
    async fn look(&self) -> Option<Value> {
        let reply = self.get("poll?timeout=0").await;
        assert_eq!(reply.status, StatusCode::OK);
        let mut polled = reply.json().await;
        assert_eq!(polled["success"], true);
        let requests = polled["requests"].as_array_mut().unwrap();
        assert!(requests.len() <= 1, "one at a time");
        requests.pop()
    }

    /// Waits for a request.
    async fn poll(&self) -> Value {
        let polled = self.get("poll?timeout=30000").await.json().await;
        polled["requests"][0].clone()
    }

    async fn answer(&self, request: &Value, status: u16, body: &str) {
        let answer = json!({"requestId": request["id"], "status": status,
            "headers": {"content-type": "application/json"}, "body": body});
        let reply = self.post("response", &answer).await;
        assert_eq!(reply.status, StatusCode::OK);
        let received = r#"{"success":true,"message":"Response received"}"#;
        assert_eq!(reply.text().await, received);
    }
}

/// Lines of a chat, collected.
fn lines(texts: &[&str]) -> String {
    let lines: Vec<String> = texts.iter().map(|text| chat(text)).collect();
    format!("{}\n{CHAT_DONE}\n", lines.join("\n"))
}

/// A server whose clock is set by the test, with a requester and a desktop.
async fn ahead() -> (Arc<Ahead>, Server, Client, Desktop) {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let (requester, desktop) = (server.requester().await, Desktop::of(&server).await);
    (clock, server, requester, desktop)
}

pub(crate) fn asked(client: &Client, path: &'static str, body: &'static str) -> JoinHandle<Reply> {
    let client = client.clone();
    tokio::spawn(async move { client.post(path, body).await })
}

#[tokio::test]
async fn a_registration_says_how_to_go_on_and_repeats_the_key_it_came_with() {
    let server = Server::start().await;
    let client = server.client("default", &[Scope::Work]).await;
    let reply = client.post("/api/bridge/register", REGISTER).await;
    let said = reply.json().await;
    let id = said["bridgeId"].as_str().unwrap();
    let key = client.key.clone().unwrap();
    assert_eq!(said["sessionToken"], format!("Bearer {key}"));
    assert_eq!(
        said["endpoints"]["polling"],
        format!("/api/bridge/{id}/poll")
    );
    assert_eq!(said["config"]["heartbeatInterval"], 60_000);
    let again = Desktop::with(client.clone()).await;
    assert_ne!(again.id, id, "each registration is a bridge of its own");
    for wrong in ["", "{", r#"{"clientId":"a"}"#] {
        let reply = client.post("/api/bridge/register", wrong).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.header("x-hearth-error"), "bad_request");
        let said = reply.json().await;
        assert_eq!(said["error"], "Missing required fields", "{wrong}");
    }
}

#[tokio::test]
async fn a_desktop_answers_a_streamed_chat_of_the_ollama_api() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let desktop = Desktop::of(&server).await;
    let asked = asked(&requester, "/api/chat", CHAT);
    let request = desktop.poll().await;
    assert_eq!(request["type"], "request");
    let data = json!({"method": "POST", "path": "/api/chat",
        "headers": {"content-type": "application/json"}, "body": CHAT});
    assert_eq!(request["data"], data, "byte for byte");
    assert!(request["timeout"].is_i64());
    desktop.answer(&request, 200, &lines(&["a", "b"])).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    assert_eq!(reply.text().await, lines(&["a", "b"]));

    // A repeated answer, and one that is different, change nothing.
    desktop.answer(&request, 200, &lines(&["a", "b"])).await;
    desktop.answer(&request, 500, "it broke").await;
    let id = request["id"].as_str().unwrap().parse().unwrap();
    let job = server.store.get(Owner::Anyone, id).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Completed);
}

#[tokio::test]
async fn a_desktop_answers_in_one_piece_and_embeds() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let desktop = Desktop::of(&server).await;
    let embedded = r#"{"model":"m","embeddings":[[0.10,-1e-7]]}"#;
    for (path, body, asks, answer, says) in [
        ("/api/chat", WHOLE, "/api/chat", CHAT_DONE, CHAT_DONE),
        (
            "/api/embed",
            r#"{"model":"m","input":"x"}"#,
            "/api/embed",
            embedded,
            embedded,
        ),
        (
            "/api/embeddings",
            r#"{"model":"m","prompt":"x"}"#,
            "/api/embed",
            embedded,
            r#"{"embedding":[0.10,-1e-7]}"#,
        ),
    ] {
        let asked = asked(&requester, path, body);
        let request = desktop.poll().await;
        assert_eq!(request["data"]["path"], asks);
        desktop.answer(&request, 200, answer).await;
        assert_eq!(asked.await.unwrap().text().await, says, "{path}");
    }
}

#[tokio::test]
async fn an_error_of_the_engine_is_that_of_the_requester() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let desktop = Desktop::of(&server).await;
    let asked = asked(&requester, "/api/chat", WHOLE);
    let request = desktop.poll().await;
    let said = r#"{"error":"model 'm' not found"}"#;
    desktop.answer(&request, 404, said).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.text().await, said);
}

#[tokio::test]
async fn an_engine_that_is_busy_gets_the_job_again_and_half_an_answer_is_an_error() {
    let (clock, _server, requester, desktop) = ahead().await;
    let asked = asked(&requester, "/api/chat", WHOLE);
    let request = desktop.poll().await;
    desktop.answer(&request, 503, "loading").await;
    clock.by(Duration::from_secs(3));
    let again = desktop.poll().await;
    let id = request["id"].as_str().unwrap();
    assert_eq!(again["id"], format!("{id}-2"));
    desktop.answer(&again, 200, &chat("half")).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.header("x-hearth-error"), "engine_failed");
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_paths_of_the_document_lead_to_the_same_bridge() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let client = server.client("default", &[Scope::Work]).await;
    // Later versions of the service have the same routes under other prefixes.
    for prefix in ["/api/bridge", "/api/bridge-polling", "/bridge-polling"] {
        let registered = client.post(&format!("{prefix}/register"), REGISTER).await;
        assert_eq!(registered.status, StatusCode::OK, "{prefix}");
        let registered = registered.json().await;
        let id = registered["bridgeId"].as_str().unwrap();
        let asked = asked(&requester, "/api/chat", WHOLE);
        let polled = client.get(&format!("{prefix}/poll/{id}")).await;
        let polled = polled.json().await;
        let request = &polled["requests"][0];
        let heartbeat = client.post(&format!("{prefix}/heartbeat/{id}"), "").await;
        assert_eq!(heartbeat.json().await["success"], true);
        let path = format!("{prefix}/respond/{id}/{}", request["id"].as_str().unwrap());
        let answer = json!({"status": 200, "body": CHAT_DONE}).to_string();
        assert_eq!(client.post(&path, answer).await.status, StatusCode::OK);
        assert_eq!(asked.await.unwrap().text().await, CHAT_DONE);
    }
}

#[tokio::test]
async fn a_desktop_that_told_its_models_gets_jobs_of_these_only() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let desktop = Desktop::of(&server).await;
    let status = json!({"providers": [{"availableModels": ["m"], "isEnabled": true}]});
    let reply = desktop.post("provider-status", &status).await;
    assert_eq!(reply.json().await["message"], "Provider status updated");
    let other = r#"{"op":"chat","body":{"model":"huge"}}"#;
    requester.post("/api/jobs", other).await;
    assert_eq!(desktop.look().await, None, "it has no such model");
    let tags = requester.get("/api/tags").await.json().await;
    assert_eq!(tags["models"][0]["name"], "m");
    // An engine that is down lists no models; those it had stay known.
    let nothing = json!({"providers": [{"availableModels": []}]});
    desktop.post("provider-status", &nothing).await;
    desktop.post("heartbeat", &json!({})).await;
    let refused = requester.post("/api/chat", r#"{"model":"huge"}"#).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    let own = r#"{"op":"chat","body":{"model":"m"}}"#;
    let own = requester.post("/api/jobs", own).await.json().await;
    assert_eq!(desktop.look().await.unwrap()["id"], own["id"]);

    let state = desktop.get("status").await.json().await;
    assert_eq!(state["status"], "connected");
    assert_eq!(state["providers"][0]["availableModels"], json!(["m"]));
}

#[tokio::test]
async fn a_bridge_outlives_a_restart_of_the_relay() {
    let mut settings = RelaySettings::default();
    settings.drain = Duration::from_millis(50);
    let server = Server::with(settings).await;
    let requester = server.requester().await;
    let mut desktop = Desktop::of(&server).await;
    let job = r#"{"op":"chat","body":{"model":"m","stream":false}}"#;
    let job = requester.post("/api/jobs", job).await.json().await;
    let request = desktop.look().await.unwrap();
    let store = server.store.clone();
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());
    let server = Server::over(store, RelaySettings::default()).await;
    desktop.client.base = server.base();
    let state = desktop.get("status").await.json().await;
    assert_eq!(state["status"], "disconnected");
    desktop.answer(&request, 200, CHAT_DONE).await;
    let id = job["id"].as_str().unwrap().parse().unwrap();
    let ended = server.store.get(Owner::Anyone, id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.attempt), (JobState::Completed, 1));
}

#[tokio::test]
async fn heartbeats_renew_the_lease_until_the_answer_is_overdue() {
    let (clock, server, requester, desktop) = ahead().await;
    let job = r#"{"op":"chat","body":{"model":"m"}}"#;
    requester.post("/api/jobs", job).await;
    let request = desktop.look().await.unwrap();
    let minute = Duration::from_secs(60);
    for minutes in 1..30 {
        clock.by(minutes * minute);
        desktop.post("heartbeat", &json!({})).await;
        assert_eq!(desktop.look().await, None, "after {minutes} minutes");
    }
    for minutes in 30..40 {
        clock.by(minutes * minute);
        desktop.post("heartbeat", &json!({})).await;
    }
    let again = desktop.poll().await;
    let id = request["id"].as_str().unwrap();
    assert_eq!(again["id"], format!("{id}-2"), "it was given to the next");
    desktop.answer(&request, 200, CHAT_DONE).await;
    let id = id.parse().unwrap();
    let job = server.store.get(Owner::Anyone, id).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Leased, "the late answer was dropped");
}

#[tokio::test]
async fn heartbeats_renew_each_lease_of_a_bridge_that_works_on_several_requests() {
    let (clock, server, requester, desktop) = ahead().await;
    let next = async || {
        let job = r#"{"op":"chat","body":{"model":"m","stream":false}}"#;
        requester.post("/api/jobs", job).await;
        desktop.look().await.unwrap()
    };
    let (long, other) = (next().await, next().await);
    // Those that it has answered take no room.
    for _ in 0..20 {
        let short = next().await;
        desktop.answer(&short, 200, CHAT_DONE).await;
    }
    for minutes in 1..20 {
        clock.by(minutes * Duration::from_secs(60));
        desktop.post("heartbeat", &json!({})).await;
        assert_eq!(desktop.look().await, None, "after {minutes} minutes");
    }
    for request in [long, other] {
        desktop.answer(&request, 200, CHAT_DONE).await;
        let id = request["id"].as_str().unwrap().parse().unwrap();
        let ended = server.store.get(Owner::Anyone, id).await.unwrap().unwrap();
        assert_eq!((ended.state, ended.attempt), (JobState::Completed, 1));
    }
}

#[tokio::test]
async fn a_heartbeat_ends_a_job_that_its_requester_cancelled() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let desktop = Desktop::of(&server).await;
    let job = r#"{"op":"chat","body":{"model":"m"}}"#;
    let job = requester.post("/api/jobs", job).await.json().await;
    let path = format!("/api/jobs/{}", job["id"].as_str().unwrap());
    let request = desktop.look().await.unwrap();
    let cancelled = requester.send(Method::DELETE, &path, "").await;
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT);
    desktop.post("heartbeat", &json!({})).await;
    let shown = requester.get(&path).await.json().await;
    assert_eq!(shown["state"], "cancelled");
    desktop.answer(&request, 200, CHAT_DONE).await;
}

#[tokio::test]
async fn what_requesters_cancel_takes_no_lease_from_what_a_bridge_works_on() {
    let (clock, server, requester, desktop) = ahead().await;
    let next = async || {
        let job = r#"{"op":"chat","body":{"model":"m","stream":false}}"#;
        requester.post("/api/jobs", job).await;
        desktop.look().await.unwrap()
    };
    let long = next().await;
    // More than the number of leases that are renewed.
    for _ in 0..20 {
        let short = next().await;
        let path = format!("/api/jobs/{}", short["id"].as_str().unwrap());
        requester.send(Method::DELETE, &path, "").await;
        desktop.post("heartbeat", &json!({})).await;
    }
    for minutes in 1..20 {
        clock.by(minutes * Duration::from_secs(60));
        desktop.post("heartbeat", &json!({})).await;
        assert_eq!(desktop.look().await, None, "after {minutes} minutes");
    }
    desktop.answer(&long, 200, CHAT_DONE).await;
    let id = long["id"].as_str().unwrap().parse().unwrap();
    let ended = server.store.get(Owner::Anyone, id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.attempt), (JobState::Completed, 1));
}

#[tokio::test]
async fn a_malformed_id_and_an_answer_to_nothing_are_refused_in_the_words_of_the_service() {
    let server = Server::start().await;
    let desktop = Desktop::of(&server).await;
    let client = &desktop.client;
    for id in MALFORMED {
        for (method, path) in [
            (Method::GET, format!("/api/bridge/{id}/poll?timeout=0")),
            (Method::POST, format!("/api/bridge/{id}/response")),
            (Method::POST, format!("/api/bridge/{id}/heartbeat")),
            (Method::POST, format!("/api/bridge/{id}/provider-status")),
            (Method::GET, format!("/api/bridge/{id}/status")),
            (Method::GET, format!("/api/bridge/poll/{id}")),
            (Method::POST, format!("/api/bridge/respond/{id}/x")),
            (Method::POST, format!("/api/bridge/heartbeat/{id}")),
        ] {
            let reply = client.send(method, &path, "{}").await;
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
            let unreadable = id.contains('%');
            let words = r#"{"error":"Bridge not found or access denied"}"#;
            assert!(unreadable || reply.text().await == words, "{path}");
        }
    }
    let reply = desktop.post("response", &json!({"status": 200})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.text().await, r#"{"error":"Missing requestId"}"#);
    for unknown in ["x", "00000000000000000000000000000000"] {
        let answer = json!({"requestId": unknown, "status": 200, "body": ""});
        let reply = desktop.post("response", &answer).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{unknown}");
    }
    let head = client.send(Method::HEAD, &desktop.path("poll"), "").await;
    assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn nobody_answers_for_another_account() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let desktop = Desktop::of(&server).await;
    let stranger = Desktop::with(server.client("other", &[Scope::Work]).await).await;
    let job = r#"{"op":"chat","body":{"model":"m"}}"#;
    requester.post("/api/jobs", job).await;
    assert_eq!(stranger.look().await, None);
    let request = desktop.look().await.unwrap();
    let answer = json!({"requestId": request["id"], "status": 200, "body": CHAT_DONE});
    let refused = stranger.post("response", &answer).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    let foreign = Desktop {
        client: stranger.client,
        id: desktop.id.clone(),
    };
    let state = foreign.get("status").await.json().await;
    assert_eq!(state["status"], "disconnected", "its own, not the other's");
    desktop.answer(&request, 200, CHAT_DONE).await;
}

#[tokio::test]
async fn a_job_whose_desktop_did_not_read_its_poll_whole_is_given_back_at_once() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let large = "x".repeat(24 * 1024 * 1024);
    let job = format!(r#"{{"op":"chat","body":{{"model":"m","x":"{large}"}}}}"#);
    requester.post("/api/jobs", job).await;
    let desktop = Desktop::of(&server).await;
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let (path, key) = (desktop.path("poll"), desktop.client.key.unwrap());
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 1024];
    in_time(tcp.read_exact(&mut begun)).await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200"));
    assert_eq!(server.store.counts().leased, 1);
    drop(tcp);
    server.until(|counts| counts.queued == 1).await;
}

#[tokio::test]
async fn a_revoked_key_loses_its_held_poll() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    // Its poll is the first sign of life of this bridge.
    let desktop = Desktop {
        client: server.client("default", &[Scope::Work]).await,
        id: "00000000-0000-0000-0000-000000000000".to_owned(),
    };
    let held = tokio::spawn({
        let desktop = desktop.clone();
        async move { desktop.get("poll?timeout=30000").await }
    });
    in_time(async { while desktop.get("status").await.json().await["status"] != "connected" {} })
        .await;
    let now = proto::Timestamp(1);
    assert!(server.store.revoke_key(now, "key-0").await.unwrap());
    let refused = in_time(held).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_job_of_a_revoked_key_goes_to_another() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    settings.legacy_lease = Duration::from_millis(50);
    let server = Server::with(settings).await;
    let desktop = Desktop::of(&server).await;
    let requester = server.requester().await;
    let job = r#"{"op":"chat","body":{"model":"m"}}"#;
    requester.post("/api/jobs", job).await;
    let request = desktop.look().await.unwrap();
    let now = proto::Timestamp(1);
    assert!(server.store.revoke_key(now, "key-0").await.unwrap());
    let answer = json!({"requestId": request["id"], "status": 200, "body": CHAT_DONE});
    let late = desktop.post("response", &answer).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    let mut worker = Scripted::ready(&server).await;
    assert!(worker.lease().await.token().attempt > 1);
}
