//! Keys with limits on models, priority and lifetime.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hearth_relay::{RelaySettings, SystemWorld, World};
use http::StatusCode;
use proto::{
    Priority, Timestamp,
    worker::{PollAnswer, WorkerMessage},
};
use queue::{Ceiling, Keys as _, ModelPatterns, Role, Scope};
use serde_json::{Value, json};

use crate::{
    batches::{batch_of, content, lines, until},
    client::{Client, Reply},
    in_time,
    people::{logged_in, user},
    server::{Ahead, Server},
    sessions::{opened, with},
    worker::Scripted,
};

const ASKS: [Scope; 2] = [Scope::Enqueue, Scope::Read];
const HOUR: Duration = Duration::from_secs(60 * 60);

fn only(pattern: &str) -> Ceiling {
    Ceiling {
        models: ModelPatterns::new(vec![pattern.parse().unwrap()]),
        priority: None,
    }
}

fn at_most(level: u8) -> Ceiling {
    Ceiling {
        priority: Priority::new(level),
        ..Ceiling::default()
    }
}

async fn client(server: &Server, ceiling: Ceiling) -> Client {
    let key = server.limited_key("default", &ASKS, ceiling, None).await;
    Client::new(server.base(), Some(key))
}

async fn refused(reply: Reply, status: StatusCode, code: &str) -> Value {
    assert_eq!(reply.status, status);
    assert_eq!(reply.header("x-hearth-error"), code);
    reply.json().await
}

#[tokio::test]
async fn a_key_asks_only_for_models_it_may_whether_or_not_anybody_has_them() {
    let server = Server::start().await;
    let _worker = Scripted::serving(&server, "default", &["big:70b", "small:1b"], 0).await;
    let small = client(&server, only("small*")).await;
    for model in ["big:70b", "nowhere"] {
        for (path, body) in [
            ("/api/chat", json!({"model": model, "messages": []})),
            ("/api/generate", json!({"model": model, "prompt": "x"})),
            ("/api/embed", json!({"model": model, "input": "x"})),
            ("/api/embeddings", json!({"model": model, "prompt": "x"})),
            (
                "/api/ollama/request",
                json!({"model": model, "prompt": "x"}),
            ),
            (
                "/api/ollama/api/chat",
                json!({"model": model, "messages": []}),
            ),
        ] {
            let reply = small.post(path, body.to_string()).await;
            let told = refused(reply, StatusCode::FORBIDDEN, "model_forbidden").await;
            assert!(told["error"].is_string(), "{path} {told}");
        }
        let messages = json!([{"role": "user", "content": "x"}]);
        for (path, body) in [
            (
                "/v1/chat/completions",
                json!({"model": model, "messages": messages}),
            ),
            ("/v1/completions", json!({"model": model, "prompt": "x"})),
            ("/v1/embeddings", json!({"model": model, "input": "x"})),
            ("/v1/responses", json!({"model": model, "input": "x"})),
            (
                "/v1/messages",
                json!({"model": model, "max_tokens": 9, "messages": messages}),
            ),
            (
                "/api/jobs",
                json!({"op": "chat", "body": {"model": model, "messages": []}}),
            ),
        ] {
            let reply = small.post(path, body.to_string()).await;
            let told = refused(reply, StatusCode::FORBIDDEN, "model_forbidden").await;
            assert!(told["error"]["message"].is_string(), "{path} {told}");
        }
        let shown = small
            .post("/api/show", json!({"model": model}).to_string())
            .await;
        assert_eq!(shown.status, StatusCode::NOT_FOUND);
        let shown = small.get(&format!("/v1/models/{model}")).await;
        assert_eq!(shown.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_key_is_shown_only_models_it_may_ask_for_and_given_one_of_them() {
    let server = Server::start().await;
    let mut worker = Scripted::serving(&server, "default", &["big:70b", "small:1b"], 1).await;
    let small = client(&server, only("small*")).await;
    let names = |list: &Value, of: &str| -> Vec<String> {
        let models = list[of].as_array().unwrap().iter();
        models
            .map(|model| {
                model
                    .get("name")
                    .unwrap_or(&model["id"])
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let tags = small.get("/api/tags").await.json().await;
    assert_eq!(names(&tags, "models"), ["small:1b"]);
    let models = small.get("/v1/models").await.json().await;
    assert_eq!(names(&models, "data"), ["small:1b"]);
    let all = client(&server, Ceiling::default()).await;
    let tags = all.get("/api/tags").await.json().await;
    assert_eq!(names(&tags, "models").len(), 2);

    // Without a model in the request, the first permitted model is used, not the first of all.
    let body = r#"{"op":"chat","body":{"messages":[]}}"#;
    let made = small.post("/api/jobs", body).await.json().await;
    assert_eq!(made["model"], "small:1b");
    assert_eq!(worker.lease().await.head.model.as_str(), "small:1b");
}

#[tokio::test]
async fn a_query_is_for_a_model_that_its_key_may_ask_for() {
    let server = Server::start().await;
    let named = client(&server, only("mine")).await;
    let query = r#"{"query_text":"x","project":1}"#;
    let reply = named.post("/api/queries/", query).await;
    let made = reply.status;
    let jobs = named.get("/api/jobs").await.json().await;
    assert_eq!(made, StatusCode::CREATED, "{jobs}");
    assert_eq!(jobs[0]["model"], "mine");
    let vague = client(&server, only("mine*")).await;
    let reply = vague.post("/api/queries/", query).await;
    refused(reply, StatusCode::FORBIDDEN, "model_forbidden").await;
}

#[tokio::test]
async fn the_lines_of_a_batch_reach_no_further_than_the_key_that_made_it() {
    let server = Server::start().await;
    let _worker = Scripted::serving(&server, "default", &["m"], 0).await;
    let other = client(&server, only("other")).await;
    let batch = batch_of(&other, &lines(1)).await;
    let ended = until(&other, &batch, "completed").await;
    let errors = content(&other, &ended["error_file_id"]).await;
    assert_eq!(errors[0]["response"]["status_code"], 403);
    assert_eq!(
        errors[0]["response"]["body"]["error"]["code"],
        "model_forbidden"
    );

    let low = client(&server, at_most(9)).await;
    batch_of(&low, &lines(1)).await;
    server.until(|counts| counts.queued == 1).await;
    let jobs = low.get("/api/jobs").await.json().await;
    assert_eq!(jobs[0]["priority"], 9);
}

#[tokio::test]
async fn a_job_is_no_more_urgent_than_its_key_allows() {
    let server = Server::start().await;
    let low = client(&server, at_most(7)).await;
    let job = |priority: &str| {
        format!(r#"{{"op":"chat","body":{{"model":"m","messages":[]}}{priority}}}"#)
    };
    let told = low.post("/api/jobs", job(r#","priority":6"#)).await;
    let told = refused(told, StatusCode::FORBIDDEN, "priority_forbidden").await;
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("priorities 7 to 10 only"), "{message}");
    for (said, level) in [(r#","priority":7"#, 7), (r#","priority":10"#, 10), ("", 7)] {
        let made = low.post("/api/jobs", job(said)).await;
        assert_eq!(made.status, StatusCode::ACCEPTED);
        assert_eq!(made.json().await["priority"], level, "{said}");
    }
    let request = r#"{"prompt":"x","model":"m"}"#;
    low.post("/api/ollama/request", request).await;
    let jobs = low.get("/api/jobs").await.json().await;
    assert_eq!(jobs[0]["priority"], 7, "what says nothing is lowered");
}

#[tokio::test]
async fn a_worker_is_lent_only_models_that_its_key_allows() {
    let server = Server::start().await;
    let asker = server.requester().await;
    let work = [Scope::Work];
    let key = server
        .limited_key("default", &work, only("small*"), None)
        .await;
    let models = ["big:70b", "small:1b"];
    let mut worker = Scripted::hello(&server, &key, &models, vec![]).await;
    worker.next().await;
    worker.say(&WorkerMessage::Capacity { slots: 2 }).await;
    let tags = asker.get("/api/tags").await.json().await;
    assert_eq!(tags["models"].as_array().unwrap().len(), 1, "{tags}");
    let body = r#"{"op":"chat","body":{"model":"big:70b","messages":[]}}"#;
    let refused = asker.post("/api/jobs", body).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "nobody may run it");

    let poll = json!({"worker": "p", "version": "0", "free": 1, "wait_ms": 0, "report":
        {"engine": "ollama", "engine_version": "", "engine_up": true, "models":
        [{"name": "big:70b", "loaded": true, "tag": {}}]}});
    let any = server.client("default", &work).await;
    let asked = any.post("/api/worker/v1/poll", poll.to_string()).await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT, "now somebody may");
    let made = asker.post("/api/jobs", body).await;
    assert_eq!(made.status, StatusCode::ACCEPTED);
    let polling = Client::new(server.base(), Some(key));
    let polled = polling.post("/api/worker/v1/poll", poll.to_string()).await;
    assert_eq!(polled.polled().await, PollAnswer::default());
    let polled = any.post("/api/worker/v1/poll", poll.to_string()).await;
    assert_eq!(polled.json().await["leases"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_poller_that_names_no_models_has_those_of_its_key() {
    let mut settings = RelaySettings::default();
    settings.legacy_poll_hold = Duration::ZERO;
    let server = Server::with(settings).await;
    let asker = server.requester().await;
    let key = server
        .limited_key("default", &[Scope::Work], only("small*"), None)
        .await;
    let poller = Client::new(server.base(), Some(key));
    poller.get("/api/ollama/poll").await;
    let ask = |model: &str| json!({"prompt": "x", "model": model}).to_string();
    let none = asker.post("/api/ollama/request", ask("big")).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    let made = asker.post("/api/ollama/request", ask("small")).await;
    assert_eq!(made.status, StatusCode::ACCEPTED);
    let polled = poller.get("/api/ollama/poll").await;
    let polled = polled.json().await;
    assert_eq!(polled["request"]["model"], "small", "{polled}");
}

#[tokio::test]
async fn an_expired_key_opens_nothing_and_is_told_why() {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let ends = Some(SystemWorld.now() + HOUR);
    let key = server
        .limited_key("default", &ASKS, Ceiling::default(), ends)
        .await;
    let client = Client::new(server.base(), Some(key.clone()));
    for path in ["/api/jobs", "/api/tags", "/v1/models", "/api/queries/"] {
        assert_eq!(client.get(path).await.status, StatusCode::OK, "{path}");
    }
    clock.by(HOUR);
    for path in ["/api/jobs", "/api/tags", "/v1/models", "/api/queries/"] {
        let reply = client.get(path).await;
        assert!(!reply.header("www-authenticate").is_empty());
        let told = refused(reply, StatusCode::UNAUTHORIZED, "key_expired").await;
        assert!(told.to_string().contains("expired"), "{told}");
    }
    let half = &key[..key.len() - 1];
    let wrong = Client::new(server.base(), Some(half.to_owned()));
    let reply = wrong.get("/api/jobs").await;
    refused(reply, StatusCode::UNAUTHORIZED, "unauthorized").await;
}

/// A machine that was suspended for a night: its monotonic clock stopped, its wall clock did not.
#[derive(Debug)]
struct Slept;

impl World for Slept {
    fn now(&self) -> Timestamp {
        SystemWorld.now()
    }

    fn wall(&self) -> Timestamp {
        SystemWorld.now() + 8 * HOUR
    }

    fn random(&self) -> std::io::Result<[u8; 32]> {
        SystemWorld.random()
    }
}

#[tokio::test]
async fn the_time_a_machine_slept_counts_for_keys_and_tokens() {
    let server = Server::in_world(Arc::new(Slept), RelaySettings::default()).await;
    let ends = Some(SystemWorld.now() + HOUR);
    let key = server
        .limited_key("default", &ASKS, Ceiling::default(), ends)
        .await;
    let reply = Client::new(server.base(), Some(key)).get("/api/jobs").await;
    refused(reply, StatusCode::UNAUTHORIZED, "key_expired").await;
    user(&*server.store, "jan", Role::User, "default").await;
    let nobody = server.nobody();
    let tokens = opened(&nobody, "jan").await;
    let jan = with(&nobody, &tokens);
    assert_eq!(jan.get("/api/jobs").await.status, StatusCode::OK);
    let claims = tokens["access_token"].as_str().unwrap().split('.').nth(1);
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims.unwrap()).unwrap()).unwrap();
    let wall = (SystemWorld.now() + 8 * HOUR).0 / 1000;
    assert!(claims["exp"].as_i64().unwrap() > wall, "{claims}");
}

/// A machine whose wall clock was ahead and is corrected.
#[derive(Debug, Default)]
struct SetBack(AtomicBool);

impl World for SetBack {
    fn now(&self) -> Timestamp {
        SystemWorld.now()
    }

    fn wall(&self) -> Timestamp {
        let is_right = self.0.load(Ordering::Relaxed);
        let ahead = if is_right { 0 } else { 120 };
        SystemWorld.now() + Duration::from_secs(ahead)
    }

    fn random(&self) -> std::io::Result<[u8; 32]> {
        SystemWorld.random()
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_voids_no_token() {
    let clock = Arc::new(SetBack::default());
    let server = Server::in_world(clock.clone(), RelaySettings::default()).await;
    user(&*server.store, "jan", Role::User, "default").await;
    let nobody = server.nobody();
    let (ours, theirs) = (
        opened(&nobody, "jan").await,
        logged_in(&nobody, "jan").await,
    );
    clock.0.store(true, Ordering::Relaxed);
    let jobs = with(&nobody, &ours).get("/api/jobs").await;
    assert_eq!(jobs.status, StatusCode::OK);
    let renewing = json!({"refresh_token": ours["refresh_token"]}).to_string();
    let renewed = nobody.post("/api/sessions/renew", renewing).await;
    assert_eq!(renewed.status, StatusCode::OK);
    let access = theirs["access"].as_str().unwrap().to_owned();
    let queries = Client::new(server.base(), Some(access));
    assert_eq!(queries.get("/api/queries/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_expired_key_loses_its_connection_its_held_poll_and_its_open_stream() {
    let clock = Arc::new(Ahead::default());
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::at(clock.clone(), settings).await;
    let ends = Some(SystemWorld.now() + HOUR);
    let all = [Scope::Enqueue, Scope::Read, Scope::Work];
    let key = server
        .limited_key("default", &all, Ceiling::default(), ends)
        .await;
    let client = Client::new(server.base(), Some(key.clone()));
    let mut worker = Scripted::hello(&server, &key, &[], vec![]).await;
    worker.next().await;
    let body = r#"{"op":"chat","deadline_ms":600000000,"body":{"model":"m","messages":[]}}"#;
    let asker = server.requester().await;
    let with_m = Scripted::serving(&server, "default", &["m"], 0).await;
    let made = asker.post("/api/jobs", body).await.json().await;
    let path = format!("/api/jobs/{}/events", made["id"].as_str().unwrap());
    let (events, others) = (client.get(&path).await, asker.get(&path).await);
    let poller = client.clone();
    let poll = r#"{"worker":"w","version":"0","free":0,"wait_ms":25000,"report":{"engine":"ollama","engine_version":"","engine_up":true,"models":[]}}"#;
    let held = tokio::spawn(async move { poller.post("/api/worker/v1/poll", poll).await });
    clock.by(HOUR);
    let (code, reason) = in_time(worker.closed()).await;
    assert_eq!((code, reason.contains("expired")), (4009, true), "{reason}");
    events.broken_off().await;
    let told = held.await.unwrap();
    refused(told, StatusCode::UNAUTHORIZED, "key_expired").await;
    assert_eq!(others.status, StatusCode::OK, "its key is good");
    drop(with_m);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_written_once_an_hour() {
    let clock = Arc::new(Ahead::default());
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let client = server.requester().await;
    let used = || async {
        let keys = server.store.list_keys().await.unwrap();
        keys.iter()
            .find(|key| key.name == "key-0")
            .unwrap()
            .last_used_at
    };
    let noted = |before: Option<Timestamp>| async move {
        loop {
            let now = used().await;
            if now != before {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(used().await, None);
    client.get("/api/jobs").await;
    let first = in_time(noted(None)).await;
    clock.by(HOUR - Duration::from_secs(60));
    client.get("/api/jobs").await;
    assert_eq!(used().await, first, "so soon it is not written again");
    clock.by(2 * HOUR);
    client.get("/api/jobs").await;
    assert!(in_time(noted(first)).await > first);
}
