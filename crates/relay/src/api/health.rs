//! The front page and the health checks, which need no key.

use axum::{Json, extract::State, response::Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::written;
use crate::{Relay, error::ApiError, pages};

/// `GET /`: the exact text that Ollama's clients expect; a browser gets the dashboard.
pub(super) async fn front(headers: HeaderMap) -> Response {
    let mut response = if pages::wants_page(&headers) {
        pages::dashboard()
    } else {
        written("text/plain; charset=utf-8", dialect::ollama::RUNNING)
    };
    let by = HeaderValue::from_static("accept");
    response.headers_mut().insert(header::VARY, by);
    response
}

/// `GET /healthz`: the process responds.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: the store responds and the relay is not shutting down.
pub(super) async fn ready(State(relay): State<Relay>) -> Result<Json<Value>, ApiError> {
    if relay.drain.is_cancelled() {
        return Err(ApiError::draining());
    }
    relay.store.find_key("").await?;
    Ok(Json(json!({"status": "ready"})))
}
