//! Paths as Ollama's clients write them.

use reqwest::Method;

use crate::site::{Carrier, Site};

#[tokio::test]
async fn the_front_says_what_clients_look_for_with_and_without_a_body() {
    let site = Site::start(Carrier::WebSocket).await;
    for (path, kind, body) in [
        (
            "/",
            "text/plain; charset=utf-8",
            "Ollama is running".to_owned(),
        ),
        (
            "/api/version",
            "application/json; charset=utf-8",
            r#"{"version":"0.33.0"}"#.to_owned(),
        ),
        (
            "/api/tags",
            "application/json; charset=utf-8",
            site.get("/api/tags").await.body,
        ),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let reply = site.begin(method.clone(), path, "").await;
            assert_eq!(reply.status(), 200, "{method} {path}");
            assert_eq!(reply.headers()["content-type"], kind, "{method} {path}");
            let length = reply.headers()["content-length"]
                .to_str()
                .unwrap()
                .to_owned();
            assert_eq!(length, body.len().to_string(), "{method} {path}");
            let want = if method == Method::HEAD { "" } else { &body };
            assert_eq!(reply.text().await.unwrap(), want, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn another_method_is_told_which_ones_there_are() {
    let site = Site::start(Carrier::WebSocket).await;
    for (method, path, allow) in [
        (Method::POST, "/", "GET,HEAD"),
        (Method::POST, "/api/tags", "GET,HEAD"),
        (Method::GET, "/api/chat", "POST"),
        (Method::GET, "/api/show", "POST"),
    ] {
        let reply = site.begin(method, path, "{}").await;
        assert_eq!(reply.status(), 405, "{path}");
        assert_eq!(reply.headers()["allow"], allow, "{path}");
    }
}

#[tokio::test]
async fn what_only_a_cloud_answers_is_not_there() {
    let site = Site::start(Carrier::WebSocket).await;
    for (method, path) in [
        (Method::GET, "/api/status"),
        (Method::POST, "/api/me"),
        (Method::POST, "/api/signout"),
        (Method::POST, "/api/experimental/web_search"),
        (Method::GET, "/api/nope"),
    ] {
        let reply = site.ask(method, path, "{}").await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.body.starts_with(r#"{"error":""#), "{}", reply.body);
    }
}

#[tokio::test]
async fn a_slash_too_many_changes_nothing() {
    let site = Site::start(Carrier::WebSocket).await;
    let tags = site.get("/api/tags").await;
    for path in ["/api/tags/", "//api/tags", "/api//tags", "/api/tags?x=1"] {
        assert_eq!(site.get(path).await, tags, "{path}");
    }
    let chat = r#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
    let plain = site.post("/api/chat", chat).await;
    assert_eq!(site.post("/api/chat/", chat).await, plain);
    assert_eq!(site.post("/api/nope/", chat).await.status, 404);
}
