//! CORS: web pages may call a relay that requires keys.

use hearth_relay::RelaySettings;
use http::{Method, StatusCode};

use crate::server::Server;

#[tokio::test]
async fn any_page_may_call_a_relay_that_asks_for_keys() {
    let server = Server::start().await;
    let nobody = server.nobody();
    let asks = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization,x-stainless-lang",
        ),
    ];
    let path = "/v1/chat/completions";
    let allowed = nobody.send_with(Method::OPTIONS, path, &asks, "").await;
    assert_eq!(allowed.status, StatusCode::NO_CONTENT);
    assert_eq!(allowed.header("access-control-allow-origin"), "*");
    assert_eq!(allowed.header("access-control-allow-credentials"), "");
    let headers = allowed.header("access-control-allow-headers");
    assert!(headers.contains("authorization") && headers.contains("x-stainless-lang"));
    // A page can read error responses too.
    let refused = nobody.send_with(Method::POST, path, &asks[..1], "{}").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    let exposed = refused.header("access-control-expose-headers");
    assert!(exposed.contains("x-request-id"), "{exposed}");
}

#[tokio::test]
async fn without_keys_no_foreign_page_is_let_in() {
    let mut settings = RelaySettings::default();
    settings.insecure_dev = true;
    let server = Server::with(settings).await;
    let asks = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
    ];
    let nobody = server.nobody();
    for path in ["/v1/chat/completions", "/api/chat"] {
        let refused = nobody.send_with(Method::OPTIONS, path, &asks, "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(refused.header("access-control-allow-origin"), "", "{path}");
    }
    let own = nobody.get("/v1/models").await;
    assert_eq!(own.header("access-control-allow-origin"), "");
}
