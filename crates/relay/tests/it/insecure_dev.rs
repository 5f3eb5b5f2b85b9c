//! `--insecure-dev`: no key is needed, and web pages are kept out all the same.

use hearth_relay::RelaySettings;
use http::{Method, StatusCode};
use queue::Scope;
use serde_json::json;

use crate::{client::Client, doors::SCOPES, server::Server, worker::report};

#[tokio::test]
async fn under_insecure_dev_no_key_is_needed_but_a_wrong_one_of_ours_is_still_wrong() {
    let mut settings = RelaySettings::default();
    settings.insecure_dev = true;
    let server = Server::with(settings).await;
    assert_eq!(
        server.nobody().get("/api/jobs").await.status,
        StatusCode::OK
    );
    let any = Client::new(server.base(), Some("sk-anything".into()));
    assert_eq!(any.get("/v1/models").await.status, StatusCode::OK);
    // Without a key, a client may see and serve all accounts.
    let other = server.client("other", &[Scope::Enqueue]).await;
    let job = r#"{"op":"chat","body":{"model":"m"}}"#;
    let made = other.post("/api/jobs", job).await.json().await;
    let path = format!("/api/jobs/{}", made["id"].as_str().unwrap());
    assert_eq!(any.get(&path).await.status, StatusCode::OK);
    let poll = json!({
        "worker": "w", "version": "0", "report": report(&["m"]), "free": 1, "wait_ms": 0,
    });
    let reply = any.post("/api/worker/v1/poll", poll.to_string()).await;
    assert_eq!(reply.polled().await.leases.len(), 1);
    let wrong = Client::new(server.base(), Some("hearth_wrong".into()));
    assert_eq!(
        wrong.get("/v1/models").await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn under_insecure_dev_web_pages_and_other_names_are_refused_on_every_route() {
    let mut settings = RelaySettings::default();
    settings.insecure_dev = true;
    let server = Server::with(settings).await;
    let own = format!("localhost:{}", server.address.port());
    let own_origin = format!("http://{own}");
    let evil = ("origin", "http://evil.example");
    for (path, headers, code) in [
        (
            "/api/jobs",
            vec![("host", "evil.example")],
            "forbidden_host",
        ),
        ("/api/jobs", vec![evil], "forbidden_origin"),
        ("/v1/models", vec![evil], "forbidden_origin"),
        (
            "/api/ollama/poll",
            vec![("sec-fetch-site", "cross-site")],
            "forbidden_origin",
        ),
        ("/nowhere", vec![("origin", "null")], "forbidden_origin"),
        (
            "/api/jobs",
            vec![("host", &own), ("origin", &own_origin)],
            "",
        ),
    ] {
        let reply = server
            .nobody()
            .send_with(Method::GET, path, &headers, "")
            .await;
        assert_eq!(reply.header("x-hearth-error"), code, "{path} {headers:?}");
        assert_eq!(reply.status == StatusCode::FORBIDDEN, !code.is_empty());
    }
    let key = server.key("default", &SCOPES).await;
    let client = Client::new(server.base(), Some(key.clone()));
    let reply = client
        .send_with(Method::GET, "/api/jobs", &[evil], "")
        .await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN, "with a key too");

    let keyed = Server::over(server.store.clone(), RelaySettings::default()).await;
    let client = Client::new(keyed.base(), Some(key));
    let headers = [("host", "relay.example"), evil];
    let reply = client
        .send_with(Method::GET, "/api/jobs", &headers, "")
        .await;
    assert_eq!(
        reply.status,
        StatusCode::OK,
        "keys guard a relay by any name"
    );
}
