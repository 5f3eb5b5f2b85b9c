//! `/api/sessions`: logins of Hearth's own users, and their short-lived tokens.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::{HeaderValue, StatusCode, header};
use proto::{ErrorCode, Secret};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{
    Relay,
    auth::Denied,
    error::ApiError,
    payload::{Control, Payload},
    peer::Peer,
    session::{ACCESS_LIFE, RENEW_LIFE, Tokens},
};

pub(super) fn routes() -> Router<Relay> {
    Router::new()
        .route("/api/sessions", post(open))
        .route("/api/sessions/renew", post(renew))
        .route("/api/sessions/end", post(end))
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

#[derive(Deserialize)]
struct Held {
    refresh_token: Secret,
}

/// `POST /api/sessions`.
async fn open(
    State(relay): State<Relay>,
    peer: Peer,
    Payload(body): Control,
) -> Result<Response, ApiError> {
    // The parse error is not quoted, because it may contain the password.
    let login: Login = serde_json::from_slice(&body)
        .map_err(|_| bad(r#"send {"username": "NAME", "password": "PASSWORD"}"#))?;
    let password = SecretString::from(login.password);
    let user = relay.log_in(&login.username, password, peer).await?;
    let user = user.ok_or_else(|| {
        let message = "the name or the password is wrong";
        ApiError::new(ErrorCode::Unauthorized, message)
    })?;
    Ok(given(&relay.open_session(&user).await?))
}

/// `POST /api/sessions/renew`.
async fn renew(
    State(relay): State<Relay>,
    peer: Peer,
    Payload(body): Control,
) -> Result<Response, ApiError> {
    let held = held(&body)?;
    let renewed = relay.renew_session(held.refresh_token.expose()).await;
    let tokens = renewed.map_err(|denied| denied_to(&relay, peer, denied))?;
    Ok(given(&tokens))
}

/// `POST /api/sessions/end`: logs out.
async fn end(
    State(relay): State<Relay>,
    peer: Peer,
    Payload(body): Control,
) -> Result<StatusCode, ApiError> {
    let held = held(&body)?;
    let ended = relay.end_session(held.refresh_token.expose()).await;
    ended.map_err(|denied| denied_to(&relay, peer, denied))?;
    Ok(StatusCode::NO_CONTENT)
}

fn denied_to(relay: &Relay, peer: Peer, denied: Denied) -> ApiError {
    relay
        .rate_limits
        .throttle_denied(peer, denied, relay.now())
        .into()
}

fn held(body: &[u8]) -> Result<Held, ApiError> {
    serde_json::from_slice(body).map_err(|_| bad(r#"send {"refresh_token": "TOKEN"}"#))
}

fn bad(message: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

#[derive(Serialize)]
struct Given<'a> {
    access_token: &'a Secret,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: &'a Secret,
    refresh_expires_in: u64,
}

fn given(tokens: &Tokens) -> Response {
    let mut response = Json(Given {
        access_token: &tokens.access,
        token_type: "Bearer",
        expires_in: ACCESS_LIFE.as_secs(),
        refresh_token: &tokens.renew,
        refresh_expires_in: RENEW_LIFE.as_secs(),
    })
    .into_response();
    let unkept = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, unkept);
    response
}
