//! The engines' APIs under `/api/ollama/`.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::{Method, StatusCode};
use proto::{End, ErrorCode, JobError, Timestamp};
use queue::{Keys as _, Role};

use crate::{
    client::Client,
    people::{client_of, user},
    server::Server,
    worker::{CHAT_DONE, Scripted, chat},
};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}], "x":1.50}"#;

async fn proxied() -> (Server, Client) {
    let server = Server::start().await;
    user(&*server.store, "ann", Role::User, "default").await;
    let ann = client_of(&server.nobody(), "ann").await;
    (server, ann)
}

#[tokio::test]
async fn a_logged_in_user_chats_through_the_proxy_token_by_token_in_both_spellings() {
    let (server, ann) = proxied().await;
    let mut worker = Scripted::ready(&server).await;
    for path in ["/api/ollama/api/chat?x=1", "/api/ollama/chat"] {
        let (client, token) = (ann.clone(), ann.key.clone().unwrap());
        let asked = tokio::spawn(async move {
            let own = [("cookie", "session=secret"), ("x-own", "secret")];
            client.send_with(Method::POST, path, &own, CHAT).await
        });
        let job = worker.lease().await;
        assert_eq!(job.body, CHAT, "byte for byte");
        let head = format!("{:?}", job.head);
        assert!(
            !head.contains("secret") && !head.contains(&token),
            "nothing but the body reaches the engine: {head}"
        );
        worker.line(job.token(), 1, &chat("Hé")).await;
        let mut reply = asked.await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert_eq!(reply.header("content-type"), "application/x-ndjson");
        assert_eq!(reply.chunk().await.unwrap(), chat("Hé") + "\n", "at once");
        worker.line(job.token(), 2, CHAT_DONE).await;
        assert_eq!(reply.chunk().await.unwrap(), format!("{CHAT_DONE}\n"));
        worker.end(job.token(), 2, End::Completed).await;
        assert_eq!(reply.chunk().await, None);
    }
}

#[tokio::test]
async fn what_is_told_of_models_is_the_same_under_the_proxy() {
    let (server, ann) = proxied().await;
    let _worker = Scripted::ready(&server).await;
    for (path, behind) in [
        ("/api/ollama/api/tags", "/api/tags"),
        ("/api/ollama/tags?x=1", "/api/tags"),
        ("/api/ollama/api/version/", "/api/version"),
        ("/api/ollama//ps", "/api/ps"),
        ("/api/ollama/v1/models", "/v1/models"),
        ("/api/ollama/v1/models/m", "/v1/models/m"),
        ("/api/ollama/", "/"),
    ] {
        let (told, known) = (ann.get(path).await, ann.get(behind).await);
        assert_eq!(
            (told.status, known.status),
            (StatusCode::OK, told.status),
            "{path}"
        );
        assert_eq!(told.text().await, known.text().await, "{path}");
    }
    let show = ann.post("/api/ollama/api/show", r#"{"model":"m"}"#).await;
    assert_eq!(show.status, StatusCode::OK);
}

#[tokio::test]
async fn the_engines_status_and_words_come_through_the_proxy() {
    let (server, ann) = proxied().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn({
        let ann = ann.clone();
        async move { ann.post("/api/ollama/api/generate", CHAT).await }
    });
    let job = worker.lease().await;
    let mut error = JobError::new(ErrorCode::EngineRefused, "out of memory");
    error.engine_status = Some(507);
    worker.end(job.token(), 0, End::Failed { error }).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.status.as_u16(), 507);
    assert_eq!(reply.text().await, r#"{"error":"out of memory"}"#);

    for (method, path, status, code, shape) in [
        (
            "GET",
            "/api/ollama/nowhere",
            404,
            "unknown_route",
            r#"{"error":"there is"#,
        ),
        (
            "POST",
            "/api/ollama/api/queries/",
            404,
            "unknown_route",
            r#"{"error":"there is"#,
        ),
        (
            "POST",
            "/api/ollama/api/worker/v1/poll",
            404,
            "unknown_route",
            r#"{"error":"there is"#,
        ),
        (
            "GET",
            "/api/ollama/api/chat",
            405,
            "method_not_allowed",
            r#"{"error":""#,
        ),
        (
            "POST",
            "/api/ollama/v1/nowhere",
            404,
            "unknown_route",
            r#"{"error":{"message":"#,
        ),
        (
            "POST",
            "/api/ollama/v1/messages",
            400,
            "bad_request",
            r#"{"type":"error""#,
        ),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let reply = ann.send(method, path, "").await;
        assert_eq!(reply.status.as_u16(), status, "{path}");
        assert_eq!(reply.header("x-hearth-error"), code, "{path}");
        let text = reply.text().await;
        assert!(text.starts_with(shape), "{path}: {text}");
    }
}

#[tokio::test]
async fn nobody_passes_the_proxy_without_a_key_or_with_one_that_may_not() {
    let (server, _) = proxied().await;
    let reader = server.client("default", &[queue::Scope::Read]).await;
    let nobody = server.nobody();
    let reply = nobody.post("/api/ollama/api/chat", CHAT).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    let reply = reader.post("/api/ollama/api/chat", CHAT).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let key = reader.key.as_deref().unwrap();
    let in_path = nobody.get(&format!("/k/{key}/api/ollama/tags")).await;
    assert_eq!(in_path.status, StatusCode::OK, "a key in the URL path");
}

#[tokio::test]
async fn what_pollers_of_older_systems_call_is_not_proxied() {
    let (server, _) = proxied().await;
    let requester = server.requester().await;
    let poller = server.client("default", &[queue::Scope::Work]).await;
    let body = r#"{"prompt":"hi","model":"m"}"#;
    for end in ["", "/"] {
        let reply = requester
            .post(&format!("/api/ollama/request{end}"), body)
            .await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        let id = reply.json().await["id"].as_str().unwrap().to_owned();
        let status = requester
            .get(&format!("/api/ollama/status/{id}{end}"))
            .await;
        assert_eq!(status.json().await["status"], "queued");
        let polled = poller
            .get(&format!("/api/ollama/poll{end}"))
            .await
            .json()
            .await;
        assert_eq!(polled["request"]["id"], id.as_str());
        let answer = format!(r#"{{"id":"{id}","response":"ho","success":true}}"#);
        let taken = poller
            .post(&format!("/api/ollama/response{end}"), answer)
            .await;
        assert_eq!(taken.text().await, r#"{"success":true}"#);
    }
}

/// The extensions that the outer service adds to a request must reach the proxied route too.
#[tokio::test]
async fn a_revoked_key_loses_its_stream_under_the_proxy_too() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/ollama/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("a")).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    let ended = server.store.revoke_key(Timestamp(1), "key-0").await;
    assert!(ended.unwrap());
    reply.broken_off().await;
}

#[tokio::test]
async fn bad_keys_are_counted_and_work_is_shed_under_the_proxy_too() {
    let mut settings = RelaySettings::default();
    settings.at_work_max = 0;
    let server = Server::with(settings).await;
    let client = server.requester().await;
    for path in ["/api/ollama/api/chat", "/api/ollama/v1/chat/completions"] {
        let reply = client.post(path, CHAT).await;
        assert_eq!(reply.header("x-hearth-error"), "busy", "{path}");
    }

    let server = Server::start().await;
    let guess = Client::new(server.base(), Some("x".into()));
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(guess.get("/api/ollama/api/tags").await.status);
    }
    assert_eq!(seen[0], StatusCode::UNAUTHORIZED);
    assert_eq!(seen[11], StatusCode::TOO_MANY_REQUESTS, "{seen:?}");
}
