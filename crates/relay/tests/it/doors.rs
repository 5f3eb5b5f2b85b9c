//! Authentication on every route: scopes, missing and revoked keys, and limits before routing.

use std::{collections::BTreeSet, sync::Arc};

use hearth_relay::{Relay, RelaySettings, SystemWorld};
use http::{Method, StatusCode};
use proto::{Account, Timestamp, hex};
use queue::{Ceiling, KeyRecord, Keys as _, MemoryQueue, Scope, Serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{client::Client, in_time, server::Server};

/// Every route that needs a key, with its scope.
const ROUTES: &[(&str, &str, Scope)] = &[
    ("POST", "/api/jobs", Scope::Enqueue),
    ("GET", "/api/jobs", Scope::Read),
    ("GET", "/api/jobs/x", Scope::Read),
    ("DELETE", "/api/jobs/x", Scope::Enqueue),
    ("POST", "/api/jobs/x/retry", Scope::Enqueue),
    ("GET", "/api/jobs/x/events", Scope::Read),
    ("GET", "/api/admin/overview", Scope::Admin),
    ("GET", "/api/admin/events", Scope::Admin),
    ("GET", "/api/admin/jobs", Scope::Admin),
    ("GET", "/api/admin/jobs/x", Scope::Admin),
    ("POST", "/api/admin/jobs/x/retry", Scope::Admin),
    ("DELETE", "/api/admin/jobs/x", Scope::Admin),
    ("GET", "/api/admin/keys", Scope::Admin),
    ("POST", "/api/admin/keys", Scope::Admin),
    ("DELETE", "/api/admin/keys/x", Scope::Admin),
    ("POST", "/api/chat", Scope::Enqueue),
    ("POST", "/api/generate", Scope::Enqueue),
    ("POST", "/api/embed", Scope::Enqueue),
    ("GET", "/api/tags", Scope::Read),
    ("GET", "/api/version", Scope::Read),
    ("POST", "/v1/chat/completions", Scope::Enqueue),
    ("GET", "/v1/models", Scope::Read),
    ("GET", "/v1/models/x", Scope::Read),
    ("GET", "/api/ollama/poll", Scope::Work),
    ("POST", "/api/ollama/response", Scope::Work),
    ("POST", "/api/ollama/request", Scope::Enqueue),
    ("GET", "/api/ollama/status/x", Scope::Read),
    ("GET", "/api/v1/ollama/poll", Scope::Work),
    ("POST", "/api/v1/ollama/response", Scope::Work),
    ("POST", "/api/v1/ollama/request", Scope::Enqueue),
    ("GET", "/api/v1/ollama/status/x", Scope::Read),
    ("POST", "/api/queries/", Scope::Enqueue),
    ("GET", "/api/queries/", Scope::Read),
    ("GET", "/api/queries/by_status/", Scope::Read),
    ("GET", "/api/queries/1/", Scope::Read),
    ("GET", "/api/queries/1/logs/", Scope::Read),
    ("DELETE", "/api/queries/1/", Scope::Enqueue),
    ("PATCH", "/api/queries/1/", Scope::Work),
    ("POST", "/api/queries/claim_next/", Scope::Work),
    ("POST", "/api/logs/", Scope::Work),
    ("POST", "/api/bridge/register", Scope::Work),
    ("GET", "/api/bridge/x/poll", Scope::Work),
    ("POST", "/api/bridge/x/response", Scope::Work),
    ("POST", "/api/bridge/x/heartbeat", Scope::Work),
    ("POST", "/api/bridge/x/provider-status", Scope::Work),
    ("GET", "/api/bridge/x/status", Scope::Work),
    ("GET", "/api/bridge/poll/x", Scope::Work),
    ("POST", "/api/bridge/respond/x/y", Scope::Work),
    ("POST", "/api/bridge/heartbeat/x", Scope::Work),
    ("GET", "/ws/tunnel", Scope::Work),
    ("GET", "/api/worker/v1", Scope::Work),
    ("POST", "/api/worker/v1/poll", Scope::Work),
    ("POST", "/api/worker/v1/jobs/x/1/lines", Scope::Work),
    ("POST", "/api/worker/v1/jobs/x/1/extend", Scope::Work),
    ("POST", "/api/worker/v1/jobs/x/1/end", Scope::Work),
    ("POST", "/api/worker/v1/jobs/x/1/nack", Scope::Work),
];

pub(crate) const SCOPES: [Scope; 4] = [Scope::Enqueue, Scope::Read, Scope::Work, Scope::Admin];

async fn knock(client: &Client, method: &str, path: &str) -> (StatusCode, String, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let reply = client.send(method, path, "").await;
    let code = reply.header("x-hearth-error").to_owned();
    let status = reply.status;
    // Event streams and held polls do not end by themselves.
    let body = if status.is_success() {
        String::new()
    } else {
        reply.text().await
    };
    (status, code, body)
}

#[tokio::test]
async fn every_route_is_open_to_its_scope_and_shut_to_all_others() {
    let mut settings = RelaySettings::default();
    settings.legacy_poll_hold = std::time::Duration::ZERO;
    let server = Server::with(settings).await;
    for (method, path, needed) in ROUTES {
        for scope in SCOPES {
            let client = server.client("default", &[scope]).await;
            let (status, code, _) = knock(&client, method, path).await;
            let is_shut = status == StatusCode::FORBIDDEN && code == "forbidden";
            assert_eq!(
                is_shut,
                scope != *needed,
                "{method} {path} with {scope:?}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn no_route_is_open_to_a_missing_a_wrong_or_a_revoked_key() {
    let mut settings = RelaySettings::default();
    settings.failures_per_minute = 0;
    let server = Server::with(settings).await;
    let good = server.key("default", &SCOPES).await;
    let revoked = server.client("default", &SCOPES).await;
    assert!(
        server
            .store
            .revoke_key(Timestamp(1), "key-1")
            .await
            .unwrap()
    );
    let wrong = good.replace(
        &good[30..32],
        if &good[30..32] == "00" { "11" } else { "00" },
    );
    let base = server.base();
    for (method, path, _) in ROUTES {
        for client in [
            server.nobody(),
            revoked.clone(),
            Client::new(base.clone(), Some(wrong.clone())),
            Client::new(base.clone(), Some("sk-anything".into())),
        ] {
            let (status, code, body) = knock(&client, method, path).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(code, "unauthorized");
            let shape = match *path {
                path if path.starts_with("/v1") => r#"{"error":{"message":"#,
                path if ["/api/jobs", "/api/worker", "/api/admin", "/ws/"]
                    .iter()
                    .any(|own| path.starts_with(own)) =>
                {
                    r#"{"error":{"code":"unauthorized","#
                }
                path if path.starts_with("/api/queries") || path.starts_with("/api/logs") => {
                    r#"{"detail":""#
                }
                _ => r#"{"error":""#,
            };
            assert!(body.starts_with(shape), "{path}: {body}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_in_a_url_is_refused_by_code_in_the_words_of_the_route() {
    let server = Server::start().await;
    let client = server.client("default", &SCOPES).await;
    let job = "0".repeat(32);
    let lines = format!("/api/worker/v1/jobs/{job}/1/lines");
    let native = |code| format!(r#"{{"error":{{"code":"{code}","#);
    let (bad, unknown) = (native("bad_request"), native("unknown_job"));
    let openai = r#"{"error":{"message":"#.to_owned();
    let ollama = r#"{"error":"there is no such job"#.to_owned();
    for (method, path, status, code, shape) in [
        ("GET", "/api/jobs?limit=abc", 400, "bad_request", &bad),
        ("GET", "/api/jobs?limit=-1", 400, "bad_request", &bad),
        (
            "GET",
            &format!("/api/jobs/{job}/events?after=x"),
            400,
            "bad_request",
            &bad,
        ),
        ("GET", "/api/jobs/%FF", 404, "unknown_job", &unknown),
        (
            "GET",
            "/assets/%FF",
            404,
            "unknown_route",
            &native("unknown_route"),
        ),
        ("DELETE", "/api/jobs/%FF", 404, "unknown_job", &unknown),
        ("GET", "/api/jobs/%FF/events", 404, "unknown_job", &unknown),
        ("GET", "/api/ollama/status/%FF", 404, "unknown_job", &ollama),
        ("GET", "/v1/models/%FF", 404, "unknown_model", &openai),
        (
            "POST",
            &format!("{lines}?first=x"),
            400,
            "bad_request",
            &bad,
        ),
        ("POST", &lines, 400, "bad_request", &bad),
        (
            "POST",
            "/api/worker/v1/jobs/%FF/1/lines?first=1",
            404,
            "unknown_job",
            &unknown,
        ),
        (
            "POST",
            "/api/worker/v1/jobs/%FF/1/extend",
            404,
            "unknown_job",
            &unknown,
        ),
        (
            "POST",
            "/api/worker/v1/jobs/x/%FF/end",
            404,
            "unknown_job",
            &unknown,
        ),
        (
            "POST",
            "/api/worker/v1/jobs/%FF/1/nack",
            404,
            "unknown_job",
            &unknown,
        ),
    ] {
        let answer = knock(&client, method, path).await;
        assert_eq!(
            (answer.0.as_u16(), answer.1.as_str()),
            (status, code),
            "{method} {path}"
        );
        assert!(answer.2.starts_with(shape.as_str()), "{path}: {}", answer.2);
    }
}

#[tokio::test]
async fn a_secret_of_another_key_opens_nothing() {
    let server = Server::start().await;
    let one = server.key("default", &[Scope::Read]).await;
    let two = server.key("default", &[Scope::Read]).await;
    let (one, two) = (
        one.split('_').collect::<Vec<_>>(),
        two.split('_').collect::<Vec<_>>(),
    );
    let for_ = hearth_relay::keys::KeyFor {
        name: String::new(),
        account: Account::new("x").unwrap(),
        scopes: BTreeSet::new(),
        serve: Serve::All,
        ceiling: Ceiling::default(),
        expires_at: None,
    };
    let id = hex::decode(one[1]).unwrap();
    let secret = hex::decode(two[2]).unwrap();
    let (text, record) = hearth_relay::keys::mint(for_, id, secret, Timestamp(0));
    assert_eq!(record.id, one[1]);
    let mixed = Client::new(server.base(), Some(text.reveal().to_owned()));
    assert_eq!(
        mixed.get("/api/tags").await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_key_may_stand_in_either_header_or_in_the_path_but_not_in_the_query() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Read]).await;
    let nobody = server.nobody();
    let header = [("x-api-key", key.as_str())];
    let reply = nobody
        .send_with(Method::GET, "/api/tags", &header, "")
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    let reply = nobody.get(&format!("/k/{key}/api/jobs?limit=1")).await;
    assert_eq!(
        (reply.status, reply.text().await.as_str()),
        (StatusCode::OK, "[]")
    );
    let reply = nobody.get(&format!("/k/{key}x/v1/models")).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(
        !reply.text().await.contains(&key[..20]),
        "the key is not repeated"
    );

    let client = Client::new(server.base(), Some(key.clone()));
    for name in ["token", "api_key"] {
        let reply = client.get(&format!("/api/jobs?{name}={key}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.json().await["error"]["code"], "token_in_url");
    }
}

#[tokio::test]
async fn an_answer_that_is_whole_says_how_long_it_is() {
    let server = Server::start().await;
    let reply = server.requester().await.get("/api/tags").await;
    let length = reply.header("content-length").to_owned();
    assert_eq!(length, reply.text().await.len().to_string());
}

#[tokio::test]
async fn front_door_and_health_need_no_key() {
    let server = Server::start().await;
    let nobody = server.nobody();
    let front = nobody.get("/").await;
    assert_eq!(front.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(front.text().await, "Ollama is running");
    let head = nobody.send(Method::HEAD, "/", "").await;
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(
        nobody.get("/healthz").await.text().await,
        r#"{"status":"ok"}"#
    );
    assert_eq!(
        nobody.get("/readyz").await.text().await,
        r#"{"status":"ready"}"#
    );
    let nowhere = nobody.get("/nowhere").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert_eq!(nowhere.json().await["error"]["code"], "unknown_route");
    let wrong = nobody.get("/v1/chat/completions").await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.json().await["error"]["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_relay_starts_only_with_a_key_or_for_a_developer_on_loopback() {
    let start = |address: &'static str, insecure_dev: bool, key: Option<Option<Timestamp>>| async move {
        let store = Arc::new(MemoryQueue::default());
        if let Some(revoked_at) = key {
            store.create_key(record(revoked_at)).await.unwrap();
        }
        let mut settings = RelaySettings::default();
        settings.insecure_dev = insecure_dev;
        let relay = Relay::new(store, settings, Arc::new(SystemWorld));
        let listener = TcpListener::bind(address).await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        in_time(hearth_relay::serve(listener, relay, stop)).await
    };
    let (loopback, everywhere) = ("127.0.0.1:0", "0.0.0.0:0");
    assert!(start(loopback, false, Some(None)).await.is_ok());
    let plain = start(everywhere, false, Some(None)).await;
    let plain = plain.unwrap_err().to_string();
    assert!(plain.contains("--behind-proxy"), "{plain}");
    assert!(start(loopback, true, None).await.is_ok());
    let none = start(loopback, false, None).await.unwrap_err().to_string();
    assert!(none.contains("hearth key create"), "{none}");
    assert!(
        start(loopback, false, Some(Some(Timestamp(1))))
            .await
            .is_err()
    );
    let open = start(everywhere, true, Some(None))
        .await
        .unwrap_err()
        .to_string();
    assert!(open.contains("loopback"), "{open}");
}

fn record(revoked_at: Option<Timestamp>) -> KeyRecord {
    KeyRecord {
        id: "a".into(),
        name: "a".into(),
        account: Account::new("a").unwrap(),
        scopes: BTreeSet::new(),
        serve: Serve::All,
        secret_sha256: [0; 32],
        created_at: Timestamp(0),
        revoked_at,
        ceiling: Ceiling::default(),
        expires_at: None,
        last_used_at: None,
    }
}
