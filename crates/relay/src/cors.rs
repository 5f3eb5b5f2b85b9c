//! CORS: web pages of any origin may use a relay that requires keys. Only the key counts; cookies
//! are never used.
//!
//! Under `--insecure-dev` no key is required, and `loopback` refuses other pages before this module
//! is reached.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Method, Request, StatusCode, header};

/// Seconds for which a browser may cache a preflight response.
const MAX_AGE: &str = "43200";
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS";
/// Request headers that the official clients send from a browser, and that the relay's routes read.
const HEADERS: &str = "authorization, content-type, accept, user-agent, x-requested-with, \
    x-api-key, idempotency-key, x-hearth-deadline-ms, x-hearth-priority, x-hearth-worker, \
    x-device-id, x-hearth-thinking-status, last-event-id, \
    openai-beta, openai-organization, openai-project, \
    anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access, \
    x-stainless-arch, x-stainless-async, x-stainless-custom-poll-interval, x-stainless-helper, \
    x-stainless-helper-method, x-stainless-lang, x-stainless-os, x-stainless-package-version, \
    x-stainless-poll-helper, x-stainless-read-timeout, x-stainless-retry-count, \
    x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout";
/// Response headers that a page may read.
const EXPOSED: &str = "x-hearth-error, x-hearth-job, request-id, x-request-id, retry-after, \
    x-should-retry, link, idempotent-replayed, x-hearth-workers, x-hearth-queue-position, \
    x-hearth-expected-wait-ms";

/// Returns the response to a CORS preflight request; `None` for any other request.
pub(crate) fn preflight(request: &Request<Body>) -> Option<Response> {
    let headers = request.headers();
    let asks = request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || !is_open(request.uri().path()) {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// Lets every page read responses of the requesters' routes, though not of the workers' and
/// operators' routes. No credentials are allowed, so that browsers send no cookies.
pub(crate) fn allow(path: &str, response: &mut Response) {
    if is_open(path) {
        let headers = response.headers_mut();
        let everybody = HeaderValue::from_static("*");
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, everybody);
        let exposed = HeaderValue::from_static(EXPOSED);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

fn is_open(path: &str) -> bool {
    path.starts_with("/v1/")
        || (path.starts_with("/api/")
            && !["/api/worker", "/api/bridge", "/api/admin"]
                .iter()
                .any(|shut| path.starts_with(shut)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers;

    #[test]
    fn a_page_may_send_every_header_that_is_read_and_read_every_one_that_is_sent() {
        let has = |list: &str, name: &str| list.split(", ").any(|known| known.trim() == name);
        for name in headers::READ {
            assert!(has(HEADERS, name), "{name}");
        }
        for name in headers::SENT {
            assert!(has(EXPOSED, name), "{name}");
        }
    }

    fn answered(method: Method, path: &str, headers: &[&str]) -> Option<Response> {
        let mut request = Request::builder().method(method).uri(path);
        for name in headers {
            request = request.header(*name, "https://app.example");
        }
        preflight(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn a_page_may_ask_for_what_requesters_use() {
        let asks = ["origin", "access-control-request-method"];
        for path in ["/v1/chat/completions", "/api/chat", "/api/jobs"] {
            let response = answered(Method::OPTIONS, path, &asks).unwrap();
            assert_eq!(response.status(), StatusCode::NO_CONTENT);
            let allowed = &response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS];
            assert!(allowed.to_str().unwrap().contains("authorization"));
        }
        for path in [
            "/api/worker/v1",
            "/api/bridge/register",
            "/api/admin/keys",
            "/",
            "/healthz",
        ] {
            assert!(answered(Method::OPTIONS, path, &asks).is_none(), "{path}");
        }
        assert!(answered(Method::OPTIONS, "/api/chat", &asks[..1]).is_none());
        assert!(answered(Method::POST, "/api/chat", &asks).is_none());
    }
}
