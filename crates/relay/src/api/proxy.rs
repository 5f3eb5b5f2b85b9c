//! The engines' APIs under `/api/ollama/`, where clients of the tunnel service expect them.
//!
//! ```text
//! /api/ollama/api/chat   /api/chat, as written by a client whose base URL is /api/ollama
//! /api/ollama/chat       /api/chat, as written by the tunnel service's web page
//! /api/ollama/v1/...     /v1/...
//! ```
//!
//! Requests are passed to the routes at the root; nothing of a request but its body reaches an
//! agent. The routes of the polling protocol under the same prefix take precedence.

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{Extensions, Uri};
use tower::ServiceExt as _;

use super::{engine, health, no_route, unknown_route, wrong_method};
use crate::{
    Relay, auth::PathKey, concurrency::WorkPermit, connections::ConnectionHandle, peer::Peer,
    revocation::RevocationSlot,
};

const PREFIX: &str = "/api/ollama";

/// Returns the routes of the proxy.
pub(super) fn routes(relay: Relay) -> Router<Relay> {
    let engine = engine(relay.clone())
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(relay);
    let pass = |request: Request| pass(engine, request);
    Router::new()
        .route("/api/ollama", get(health::front))
        .route(
            "/api/ollama/{*path}",
            get(pass.clone()).post(pass.clone()).delete(pass),
        )
}

async fn pass(engine: Router, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    parts.extensions = notes(&mut parts.extensions);
    let Some(uri) = behind(&parts.uri) else {
        return no_route(&parts.uri).into_response();
    };
    parts.uri = uri;
    let Ok(response) = engine.oneshot(Request::from_parts(parts, body)).await;
    response
}

/// Moves the extensions that the outer service added to a new set. The path parameters of this
/// route are left out, because the inner router would take them for its own.
fn notes(from: &mut Extensions) -> Extensions {
    fn carry<T: Clone + Send + Sync + 'static>(from: &mut Extensions, to: &mut Extensions) {
        if let Some(note) = from.remove::<T>() {
            to.insert(note);
        }
    }
    let mut to = Extensions::new();
    carry::<PathKey>(from, &mut to);
    carry::<Peer>(from, &mut to);
    carry::<ConnectionHandle>(from, &mut to);
    carry::<RevocationSlot>(from, &mut to);
    carry::<WorkPermit>(from, &mut to);
    to
}

/// Returns the URL of the route at the root.
fn behind(uri: &Uri) -> Option<Uri> {
    let target = uri.path_and_query()?.as_str().strip_prefix(PREFIX)?;
    let target = if target.starts_with("/api/") || target.starts_with("/v1/") {
        target.to_owned()
    } else {
        format!("/api{target}")
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_lead_to_one_route_and_the_query_stays() {
        for (asked, is) in [
            ("/api/ollama/api/chat?a=1", "/api/chat?a=1"),
            ("/api/ollama/chat", "/api/chat"),
            ("/api/ollama/apis", "/api/apis"),
            ("/api/ollama/v1/models/m", "/v1/models/m"),
        ] {
            let behind = behind(&asked.parse().unwrap()).unwrap();
            assert_eq!(behind.to_string(), is, "{asked}");
        }
    }
}
