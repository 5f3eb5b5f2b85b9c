//! Keys in the path, for clients that cannot send a header.

use std::{
    io,
    sync::{Arc, Mutex},
};

use http::{Method, StatusCode};
use queue::Scope;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    client::Client,
    server::Server,
    tunnel::Desktop,
    worker::{CHAT_DONE, Scripted},
};

const ALL: [Scope; 4] = [Scope::Enqueue, Scope::Read, Scope::Work, Scope::Admin];
const CHAT: &str = r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"x"}]}"#;

/// A client that sends no key in a header, and has it in its base URL.
async fn by_path(server: &Server, scopes: &[Scope]) -> (Client, String) {
    let key = server.key("default", scopes).await;
    let base = format!("{}/k/{key}", server.base());
    (Client::new(base, None), key)
}

#[tokio::test]
async fn a_client_without_headers_finds_models_and_asks_through_its_path() {
    let server = Server::start().await;
    let (client, key) = by_path(&server, &[Scope::Enqueue, Scope::Read]).await;
    let mut worker = Scripted::ready(&server).await;
    assert_eq!(client.get("").await.text().await, "Ollama is running");
    assert_eq!(client.get("/").await.text().await, "Ollama is running");
    let version = client.get("/api/version").await.json().await;
    assert_eq!(version["version"], "0.12.3");
    let careless = format!("{}//k/{}", server.base(), key);
    let careless = Client::new(careless, None).get("//api/version/").await;
    assert_eq!(careless.status, StatusCode::OK, "slashes too many");
    let tags = client.get("/api/tags").await.json().await;
    assert_eq!(tags["models"][0]["name"], "m");
    let models = client.get("/v1/models").await.json().await;
    assert_eq!(models["data"][0]["id"], "m");
    for path in ["/v1/chat/completions", "/api/chat"] {
        let asking = client.clone();
        let asked = tokio::spawn(async move { asking.post(path, CHAT).await });
        let job = worker.lease().await;
        worker.answer(&job, &["hi"]).await;
        let reply = asked.await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert!(reply.text().await.contains("hi"), "{path}");
    }
}

#[tokio::test]
async fn a_key_in_the_path_may_only_ask_and_read_whatever_its_scopes() {
    let server = Server::start().await;
    let (client, key) = by_path(&server, &ALL).await;
    let others = server.client("other", &[Scope::Enqueue]).await;
    let native = r#"{"op":"chat","body":{"model":"m","messages":[{}]}}"#;
    let foreign = others.post("/api/jobs", native).await.json().await;
    let foreign = format!("/api/jobs/{}", foreign["id"].as_str().unwrap());
    let in_header = Client::new(server.base(), Some(key));
    assert_eq!(in_header.get(&foreign).await.status, StatusCode::OK);
    assert_eq!(client.get(&foreign).await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.get("/api/jobs").await.text().await, "[]");

    let job = "0".repeat(32);
    for (method, path) in [
        (Method::GET, "/api/worker/v1".to_owned()),
        (Method::POST, "/api/worker/v1/poll".to_owned()),
        (Method::POST, format!("/api/worker/v1/jobs/{job}/1/lines")),
        (Method::POST, format!("/api/worker/v1/jobs/{job}/1/extend")),
        (Method::POST, format!("/api/worker/v1/jobs/{job}/1/end")),
        (Method::POST, format!("/api/worker/v1/jobs/{job}/1/nack")),
    ] {
        let reply = client.send(method, &path, "").await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
        let error = reply.json().await;
        assert_eq!(error["error"]["code"], "forbidden", "{path}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("in the URL path"), "{message}");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().map_err(|_| io::Error::other("poisoned"))?;
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_log_line_and_no_error_shows_a_key_that_stood_in_the_path() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    // Set for all threads: tracing caches whether a call site is enabled, so that another thread
    // without a subscriber could disable it for this test.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let server = Server::start().await;
    let (client, key) = by_path(&server, &ALL).await;
    let mut worker = Scripted::ready(&server).await;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    let id = job.token().job.to_string();
    worker.line(job.token(), 1, CHAT_DONE).await;
    worker.end(job.token(), 1, proto::End::Completed).await;
    asked.await.unwrap();

    let secret = key.rsplit('_').nth(1).unwrap().to_owned();
    let nobody = server.nobody();
    let mut wrong = key.clone();
    wrong.replace_range(40..41, if &wrong[40..41] == "0" { "1" } else { "0" });
    for (method, path) in [
        (Method::GET, format!("/k/{key}/nowhere")),
        (Method::GET, format!("/k/{key}/api/worker/v1")),
        (Method::DELETE, format!("/k/{key}/api/tags")),
        (Method::GET, format!("/k/{key}/api/jobs?limit=x")),
        (Method::GET, format!("/k/{key}/v1/models/{key}")),
        (Method::GET, format!("/k/{key}/api/jobs?token={key}")),
        (Method::GET, format!("/k/{key}/{}", "y".repeat(5000))),
        (Method::GET, format!("/k/{wrong}/api/tags")),
        (Method::GET, format!("/K/{key}/api/tags")),
        (Method::GET, format!("//k/{wrong}/api/tags")),
        (Method::GET, format!("/{key}/api/tags")),
        (Method::POST, format!("/k/{key}")),
        (Method::GET, format!("/ws/tunnel?token={key}")),
        (Method::GET, format!("/ws/tunnel?token={wrong}")),
        (Method::POST, format!("/ws/tunnel?token={key}")),
        (Method::GET, format!("/ws/tunnel?key={key}")),
        (Method::GET, format!("/ws/tunnel/x?token={key}")),
        (Method::GET, format!("/k/{key}/ws/tunnel?token={key}")),
    ] {
        let reply = nobody.send(method, &path, "").await;
        assert!(!reply.status.is_success(), "{path}");
        let shows = format!("{:?}", reply.headers) + &reply.text().await;
        let is_own_model = path.contains("/v1/models/");
        assert!(is_own_model || !shows.contains(&secret), "{path}: {shows}");
        assert!(!shows.contains(&wrong), "{path}: {shows}");
    }
    for token in [&key, &wrong] {
        let query = format!("?token={token}");
        let mut desktop = Desktop::dial(&server, &query, &[]).await.unwrap();
        if token == &key {
            desktop
                .say(&serde_json::json!({"type": "ping", "id": "a"}))
                .await;
        }
        let told = format!("{:?}", desktop.frame().await);
        let wanted = if token == &key {
            "pong"
        } else {
            "Invalid token"
        };
        assert!(told.contains(wanted), "{told}");
        assert!(!told.contains(&secret) && !told.contains(&wrong), "{told}");
    }
    let metrics = Client::new(format!("http://{}", server.metrics().await), None);
    let metrics = metrics.get("/metrics").await.text().await;
    assert!(!metrics.contains(&secret) && !metrics.contains(&wrong));
    server.stop().await.unwrap();

    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains(&id), "the log was read");
    assert!(!logged.contains(&secret), "a key was logged");
    assert!(!logged.contains(&wrong), "a mistyped key was logged");
}
