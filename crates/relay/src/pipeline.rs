//! What every request passes: checks before routing, the route within its limits, and the headers
//! and format of the response.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use proto::ErrorCode;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::{
    Relay,
    auth::PathKey,
    carrier::tunnel::{self, QueryToken},
    concurrency::{Repeat, WorkPermit},
    cors,
    error::ApiError,
    error_format,
    exempt::bypasses_limits,
    loopback,
    peer::Peer,
    revocation::RevocationSlot,
    target::without_extra_slashes,
    tls::Tls,
    unread::Unread,
};

/// Maximum length of a request's target, in bytes.
pub(crate) const URI_MAX: usize = 4 * 1024;
/// Value of `Strict-Transport-Security`: browsers use only TLS for a year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// State that every request needs.
#[derive(Clone)]
pub(crate) struct RequestContext {
    pub(crate) router: Router,
    pub(crate) relay: Relay,
    /// Address of a relay that requires no key.
    pub(crate) open_at: Option<SocketAddr>,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Answers one request: checks before routing, the route, then the format of an error.
pub(crate) async fn answer(
    context: RequestContext,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let asks_for_keys = context.open_at.is_none();
    let peer = request.extensions().get::<Peer>();
    let is_secure = peer.is_some_and(|peer| peer.is_secure);
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let (unread, request) = followed(request);
    let relay = context.relay.clone();
    let (path, response) = match admitted(request, context.open_at) {
        Ok(request) => {
            let path = request.uri().path().to_owned();
            let response = match cors::preflight(&request).filter(|_| asks_for_keys) {
                Some(allowed) => allowed,
                None => routed(context, request, &path).await,
            };
            (path, response)
        }
        Err(refused) => (refused.path, refused.error.into_response()),
    };
    let mut response = error_format::write_error(&path, response);
    if let Some(code) = error_format::code(&response) {
        relay.metrics.refused(code);
        let hold = relay.rate_limits.refusal_delay(code, relay.now());
        if !hold.is_zero() {
            // The delay does not hold up a shutdown.
            let _ = relay.drain.run_until_cancelled(sleep(hold)).await;
        }
    }
    if asks_for_keys {
        cors::allow(&path, &mut response);
    }
    let is_last = is_chunked || unread.is_any();
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // Otherwise a client that keeps the connection for its next request would find it closed. A
        // chunked request always ends the connection: a `Content-Length` beside the chunks is
        // ignored, and a proxy that trusted it would take the rest for the next request.
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if is_secure {
        let headers = response.headers_mut();
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    Ok(response)
}

/// Runs the route, if the limit on concurrent requests allows.
async fn routed(context: RequestContext, mut request: Request<Body>, path: &str) -> Response {
    let revocation = RevocationSlot::default();
    request.extensions_mut().insert(revocation.clone());
    let work_permit = WorkPermit::new(&context.relay.concurrency);
    if !bypasses_limits(request.method(), path) {
        // A request with a body takes its slot once the body has arrived.
        if request.body().is_end_stream() && !work_permit.try_start(context.relay.now()) {
            return context.relay.busy().into_response();
        }
        if request.method().is_safe() {
            work_permit.if_repeated(Repeat::Only);
        }
        request.extensions_mut().insert(work_permit.clone());
    }
    let relay = context.relay.clone();
    let answer = context.router.oneshot(request).map(|Ok(response)| response);
    let mut answer = pin!(revocation.respond(answer, || relay.wall_now()));
    let patience = relay.settings.work_patience;
    let response = loop {
        // A request that waits for a worker or for its body is looked at again later.
        let left = || work_permit.time_left(relay.now(), patience);
        match timeout(left(), &mut answer).await {
            Ok(response) => break response,
            Err(_) if left().is_zero() => {
                tracing::error!(?patience, "request aborted: it exceeded the work timeout");
                work_permit.give_up();
                break relay.gave_up(&work_permit).into_response();
            }
            Err(_) => {}
        }
    };
    work_permit.pause();
    response
}

fn followed(request: Request<Incoming>) -> (Unread, Request<Body>) {
    let (parts, body) = request.into_parts();
    let (unread, body) = Unread::of(Body::new(body));
    (unread, Request::from_parts(parts, body))
}

struct Refused {
    path: String,
    error: ApiError,
}

fn admitted(
    mut request: Request<Body>,
    open_at: Option<SocketAddr>,
) -> Result<Request<Body>, Box<Refused>> {
    let refused = |path: &str, error| {
        Box::new(Refused {
            path: path.to_owned(),
            error,
        })
    };
    let uri = request.uri();
    if uri
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > URI_MAX)
    {
        return Err(refused("/", ApiError::uri_too_long(URI_MAX)));
    }
    // Clients often join base URLs with an extra slash. It is removed here, where Ollama would
    // redirect.
    if let Some(clean) = without_extra_slashes(uri) {
        *request.uri_mut() = clean;
    }
    if let Some((key, rest)) = path_key(request.uri()) {
        *request.uri_mut() = rest;
        request.extensions_mut().insert(PathKey(key.into()));
    }
    if let Some(current) = current_bridge_path(request.uri()) {
        *request.uri_mut() = current;
    }
    if let Some((token, rest)) = tunnel_token(request.uri()) {
        *request.uri_mut() = rest;
        request.extensions_mut().insert(QueryToken(token.into()));
    }
    let uri = request.uri();
    if let Some(listener) = open_at {
        loopback::admit(request.headers(), uri.authority(), listener)
            .map_err(|error| refused(uri.path(), error))?;
    }
    if uri.query().is_some_and(names_a_token) {
        let message = "a key in the URL would be recorded in logs; send it as `Authorization: \
                       Bearer KEY`";
        return Err(refused(
            uri.path(),
            ApiError::new(ErrorCode::TokenInUrl, message),
        ));
    }
    Ok(request)
}

/// Removes `/k/<key>` from the front of the path, for clients that cannot send a header.
pub(crate) fn path_key(uri: &Uri) -> Option<(String, Uri)> {
    let target = uri.path_and_query()?.as_str().strip_prefix("/k/")?;
    let (key, rest) = target.split_at(target.find(['/', '?']).unwrap_or(target.len()));
    let rest = match rest.strip_prefix('/') {
        Some(_) => rest.to_owned(),
        None => format!("/{rest}"),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest.parse::<PathAndQuery>().ok()?);
    Some((key.to_owned(), Uri::from_parts(parts).ok()?))
}

/// Replaces the two prefixes under which later versions of the tunnel service have its polling
/// routes.
pub(crate) fn current_bridge_path(uri: &Uri) -> Option<Uri> {
    let target = uri.path_and_query()?.as_str();
    let mut later = ["/api/bridge-polling/", "/bridge-polling/"].into_iter();
    let rest = later.find_map(|prefix| target.strip_prefix(prefix))?;
    let mut parts = uri.clone().into_parts();
    let path: PathAndQuery = format!("/api/bridge/{rest}").parse().ok()?;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

/// Removes the query with its token from the URL of the tunnel, the only route that accepts one.
pub(crate) fn tunnel_token(uri: &Uri) -> Option<(String, Uri)> {
    let query = uri.query().filter(|_| uri.path() == tunnel::PATH)?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let (_, token) = pairs.find(|(name, _)| name == "token")?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(tunnel::PATH));
    Some((token.into_owned(), Uri::from_parts(parts).ok()?))
}

fn names_a_token(query: &str) -> bool {
    const NAMES: [&str; 6] = ["token", "access_token", "key", "api_key", "apikey", "auth"];
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_key_is_taken_off_and_the_query_stays() {
        let taken = |target: &str| path_key(&target.parse().unwrap());
        let (key, rest) = taken("/k/hearth_a_b_c/api/jobs?limit=1").unwrap();
        assert_eq!(
            (key.as_str(), rest.to_string().as_str()),
            ("hearth_a_b_c", "/api/jobs?limit=1")
        );
        for front in ["/k/hearth_a_b_c", "/k/hearth_a_b_c/"] {
            assert_eq!(taken(front).unwrap().1, "/", "{front}");
        }
        assert_eq!(taken("/k/hearth_a_b_c?x=1").unwrap().1, "/?x=1");
        assert!(taken("/api/k/x/").is_none());
    }

    #[test]
    fn the_later_prefixes_of_the_polling_routes_are_replaced() {
        let current = |target: &str| current_bridge_path(&target.parse().unwrap());
        for later in [
            "/bridge-polling/x/poll?timeout=1",
            "/api/bridge-polling/x/poll?timeout=1",
        ] {
            assert_eq!(current(later).unwrap(), "/api/bridge/x/poll?timeout=1");
        }
        for other in [
            "/api/bridge/x/poll",
            "/bridge-polling",
            "/x/bridge-polling/y",
            "/?a=/bridge-polling/",
        ] {
            assert_eq!(current(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_taken_off_the_query_of_the_tunnel_and_of_nothing_else() {
        let taken = |target: &str| tunnel_token(&target.parse().unwrap());
        for target in ["/ws/tunnel?token=a%2Bb", "/ws/tunnel?x=1&token=a%2Bb&key=c"] {
            let (token, rest) = taken(target).unwrap();
            assert_eq!(
                (token.as_str(), rest.to_string().as_str()),
                ("a+b", "/ws/tunnel")
            );
        }
        for target in [
            "/ws/tunnel",
            "/ws/tunnel?key=a",
            "/ws/tunnel?Token=a",
            "/ws/tunnel/x?token=a",
            "/api/tags?token=a",
        ] {
            assert_eq!(taken(target), None, "{target}");
        }
    }

    #[test]
    fn a_token_in_the_query_is_found_by_name() {
        for query in ["token=x", "a=1&API_KEY=x", "key", "access_token=x&b"] {
            assert!(names_a_token(query), "{query}");
        }
        for query in ["after=1-2", "monkey=1", "limit=3&first=4"] {
            assert!(!names_a_token(query), "{query}");
        }
    }
}
