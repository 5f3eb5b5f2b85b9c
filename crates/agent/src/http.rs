//! The local HTTP server: the read-only status.

mod fields;
mod metrics;
mod pages;
mod serve;
mod stall_timeout;
mod stream;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use proto::{ErrorBody, ErrorCode};
use serde_json::json;
use status::{Access, Arrival, StatusHub};

use fields::Polled;
pub(crate) use metrics::Metrics;
pub(crate) use serve::serve;
pub(crate) use stream::Events;

/// Limits on clients, with their defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of stream readers: 1,000.
    pub(crate) streams: usize,
    /// Maximum number of other connections; one more closes the oldest: 1,000.
    pub(crate) asking: usize,
    /// Maximum time for which a reader may take nothing: 5 s.
    pub(crate) stall: Duration,
    /// Minimum time between two statuses, so that at most 20 a second are sent: 50 ms.
    pub(crate) pace: Duration,
    /// Maximum silence of the stream: 30 s, as in the original protocol.
    pub(crate) heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1_000,
            asking: 1_000,
            stall: Duration::from_secs(5),
            pace: Duration::from_millis(50),
            heartbeat: Duration::from_secs(30),
        }
    }
}

/// The routes, behind the check of `Host` and `Origin`.
pub(crate) fn router(hub: StatusHub, access: Access, events: Events, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(told_to_scrapers))
        .route("/api/status", get(api_status))
        .route("/status/stream", get(status_stream))
        .route("/overlay", get(pages::page))
        .route("/assets/{file}", get(pages::page))
        .fallback(async || {
            refuse(
                ErrorCode::UnknownRoute,
                "there is no such path; see /api/status, /status/stream and /overlay",
            )
        })
        .method_not_allowed_fallback(async || {
            refuse(
                ErrorCode::MethodNotAllowed,
                "only GET is allowed; send commands to the status hub",
            )
        })
        .layer(middleware::from_fn_with_state(access, check))
        .layer(Extension(events))
        .layer(Extension(metrics))
        .with_state(hub)
}

async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let checked = access.check(request.uri(), request.headers());
    let is_let_in = checked.is_ok();
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal.code, &refusal.message),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::VARY, "origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    if let Some(origin) = origin.filter(|_| is_let_in) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

async fn healthz() -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn api_status(State(hub): State<StatusHub>) -> Response {
    Json(Polled::new(hub.latest().status())).into_response()
}

async fn told_to_scrapers(
    State(hub): State<StatusHub>,
    Extension(metrics): Extension<Metrics>,
) -> Response {
    metrics.text(&hub)
}

async fn status_stream(
    Extension(events): Extension<Events>,
    Extension(arrival): Extension<Arc<Arrival>>,
) -> Response {
    events.follow(&arrival).unwrap_or_else(|| {
        let mut response = refuse(
            ErrorCode::Busy,
            "the maximum number of stream readers is reached; poll /api/status instead",
        );
        let after = HeaderValue::from_static("5");
        response.headers_mut().insert(header::RETRY_AFTER, after);
        response
    })
}

fn refuse(code: ErrorCode, message: &str) -> Response {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::FORBIDDEN);
    (status, Json(ErrorBody::new(code, message))).into_response()
}
