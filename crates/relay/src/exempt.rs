//! Requests that are exempt from load shedding: health checks, and requests of workers. Refusing the
//! latter would keep the queue from draining.

use http::Method;

use crate::auth::is_carrier;

/// Returns whether a request is exempt from the limit on concurrent requests.
pub(crate) fn bypasses_limits(method: &Method, path: &str) -> bool {
    ["/healthz", "/readyz"].contains(&path) || is_carrier(path) || is_of_legacy_worker(method, path)
}

/// Returns whether a request comes from a worker of the founding systems. Such workers never retry,
/// so a refused answer would be lost. Leases and the rate limit of the key bound these requests.
fn is_of_legacy_worker(method: &Method, path: &str) -> bool {
    match (method, path) {
        (&Method::GET, "/api/ollama/poll" | "/api/v1/ollama/poll" | "/ws/tunnel")
        | (
            &Method::POST,
            "/api/ollama/response"
            | "/api/v1/ollama/response"
            | "/api/queries/claim_next"
            | "/api/logs"
            // A token that ends while a query is answered is renewed before the answer is sent.
            | "/api/token/refresh",
        ) => true,
        (&Method::PATCH, path) => path.starts_with("/api/queries/"),
        (&Method::GET | &Method::POST, path) => path.starts_with("/api/bridge/"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_send_bypasses_limits_and_what_requesters_send_is() {
        for (method, path) in [
            (Method::GET, "/healthz"),
            (Method::POST, "/api/worker/v1/poll"),
            (Method::GET, "/api/ollama/poll"),
            (Method::POST, "/api/v1/ollama/response"),
            (Method::POST, "/api/queries/claim_next"),
            (Method::PATCH, "/api/queries/7"),
            (Method::POST, "/api/logs"),
            (Method::POST, "/api/token/refresh"),
            (Method::GET, "/api/bridge/x/poll"),
            (Method::POST, "/api/bridge/x/response"),
            (Method::GET, "/ws/tunnel"),
        ] {
            assert!(bypasses_limits(&method, path), "{method} {path}");
        }
        for (method, path) in [
            (Method::POST, "/api/ollama/request"),
            (Method::GET, "/api/ollama/status/1"),
            (Method::POST, "/api/ollama/api/chat"),
            (Method::POST, "/api/queries"),
            (Method::GET, "/api/queries/7"),
            (Method::DELETE, "/api/queries/7"),
            (Method::DELETE, "/api/bridge/x/poll"),
            (Method::GET, "/api/bridges"),
            (Method::POST, "/api/login"),
            (Method::GET, "/healthz/x"),
        ] {
            assert!(!bypasses_limits(&method, path), "{method} {path}");
        }
    }
}
