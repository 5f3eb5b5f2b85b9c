//! All HTTP routes, one module per dialect.

mod admin;
mod anthropic;
mod asked;
mod batches;
pub(crate) mod bridge;
pub(crate) mod files;
mod health;
mod jobs;
mod login;
mod model_changes;
mod ollama;
mod openai;
mod openapi;
mod proxy;
mod queries;
mod relay_polling;
mod rest;
mod sessions;

pub(crate) use self::jobs::view;
use axum::{
    Router,
    middleware::from_fn_with_state,
    response::Response,
    routing::{delete, get, post},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Uri, header};
use proto::ErrorCode;

use crate::{Relay, carrier, error::ApiError, pages, request_id, target::shown};

/// Returns the router with every route.
pub(crate) fn routes(relay: Relay) -> Router {
    Router::new()
        .route("/", get(health::front))
        .route("/assets/{file}", get(pages::asset))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::openapi))
        .route("/api/jobs", post(jobs::submit).get(jobs::list))
        .route("/api/jobs/{id}", get(jobs::get).delete(jobs::cancel))
        .route("/api/jobs/{id}/retry", post(jobs::retry))
        .route("/api/jobs/{id}/answer", get(jobs::answer))
        .route("/api/jobs/{id}/events", get(jobs::events))
        .merge(admin::routes())
        .merge(sessions::routes())
        .merge(engine(relay.clone()))
        .merge(proxy::routes(relay.clone()))
        .route(
            "/api/ollama/poll",
            get(relay_polling::poll).head(wrong_method),
        )
        .route("/api/ollama/response", post(relay_polling::response))
        .route("/api/ollama/request", post(relay_polling::request))
        .route("/api/ollama/status/{id}", get(relay_polling::status))
        .route(
            "/api/v1/ollama/poll",
            get(relay_polling::poll_job).head(wrong_method),
        )
        .route("/api/v1/ollama/response", post(relay_polling::job_response))
        .route("/api/v1/ollama/request", post(relay_polling::request))
        .route("/api/v1/ollama/status/{id}", get(relay_polling::status))
        .merge(query_service())
        .merge(tunnel_service())
        .route("/api/worker/v1", get(carrier::socket::upgrade))
        .route("/api/worker/v1/poll", post(carrier::poll::poll))
        .route("/api/worker/v1/details", post(carrier::poll::details))
        .route(
            "/api/worker/v1/jobs/{id}/{attempt}/lines",
            post(carrier::http::lines),
        )
        .route(
            "/api/worker/v1/jobs/{id}/{attempt}/extend",
            post(carrier::http::extend),
        )
        .route(
            "/api/worker/v1/jobs/{id}/{attempt}/end",
            post(carrier::http::end),
        )
        .route(
            "/api/worker/v1/jobs/{id}/{attempt}/nack",
            post(carrier::http::nack),
        )
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(relay)
}

/// Returns the routes that clients of engines call.
fn engine(relay: Relay) -> Router<Relay> {
    Router::new()
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(ollama::embed))
        .route("/api/embeddings", post(ollama::embeddings))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/version", get(ollama::version))
        .route("/api/pull", post(model_changes::pull))
        .route("/api/push", post(model_changes::refuse))
        .route("/api/create", post(model_changes::create))
        .route("/api/copy", post(model_changes::copy))
        .route("/api/delete", delete(model_changes::delete))
        .route(
            "/api/blobs/{digest}",
            post(model_changes::refuse).head(model_changes::refuse),
        )
        .merge(v1(relay))
}

/// Returns the routes of the query service, whose clients write a trailing slash.
fn query_service() -> Router<Relay> {
    Router::new()
        .route("/api/login", post(login::login))
        .route("/api/token/refresh", post(login::refresh))
        .route("/api/queries", post(queries::create).get(queries::list))
        .route("/api/queries/claim_next", post(queries::claims::claim_next))
        .route("/api/queries/by_status", get(queries::by_status))
        .route(
            "/api/queries/{id}",
            get(queries::get)
                .patch(queries::claims::patch)
                .delete(queries::delete),
        )
        .route("/api/queries/{id}/logs", get(queries::logs))
        .route("/api/logs", post(queries::claims::log))
}

/// Returns the routes of the tunnel service's desktops: those of its programs, then those that only
/// its document has.
fn tunnel_service() -> Router<Relay> {
    let poll = || get(bridge::poll).head(wrong_method);
    Router::new()
        .route("/api/bridge/register", post(bridge::register))
        .route("/api/bridge/{id}/poll", poll())
        .route("/api/bridge/{id}/response", post(bridge::response))
        .route("/api/bridge/{id}/heartbeat", post(bridge::heartbeat))
        .route(
            "/api/bridge/{id}/provider-status",
            post(bridge::provider_status),
        )
        .route("/api/bridge/{id}/status", get(bridge::status))
        .route("/api/bridge/poll/{id}", poll())
        .route("/api/bridge/respond/{id}/{request}", post(bridge::respond))
        .route("/api/bridge/heartbeat/{id}", post(bridge::heartbeat))
        .route("/ws/tunnel", get(carrier::tunnel::upgrade))
}

/// Returns the routes of OpenAI's and Anthropic's clients.
fn v1(relay: Relay) -> Router<Relay> {
    Router::new()
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/responses", post(openai::responses))
        .route("/v1/models", get(openai::models))
        .route("/v1/files", post(files::upload).get(files::list))
        .route("/v1/files/{id}", get(files::get).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", post(batches::create).get(batches::list))
        .route("/v1/batches/{id}", get(batches::get))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route_layer(from_fn_with_state(relay, request_id::name))
}

async fn unknown_route(uri: Uri) -> ApiError {
    no_route(&uri)
}

fn no_route(uri: &Uri) -> ApiError {
    let path = shown(uri.path());
    let message = format!("there is no route {path}; /openapi.json lists all routes");
    ApiError::new(ErrorCode::UnknownRoute, message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let path = shown(uri.path());
    let message =
        format!("{path} does not support {method}; the header Allow lists the methods it supports");
    ApiError::new(ErrorCode::MethodNotAllowed, message)
}

/// Returns a response with this body.
pub(crate) fn written(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
