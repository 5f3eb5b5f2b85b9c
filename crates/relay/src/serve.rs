//! The accept loop: connections, limits that apply before routing, and graceful shutdown.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::ErrorCode;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    Network, Relay, api,
    auth::PathKey,
    batch,
    connections::{ConnectionHandle, ConnectionLimits, ConnectionPermits},
    cors,
    error::ApiError,
    error_format,
    exempt::bypasses_limits,
    loopback,
    peer::Peer,
    push,
    revocation::RevocationSlot,
    stall_timeout::{Limits, Phase, StallTimeout},
    target::without_extra_slashes,
    throttle::WorkPermit,
    tls::{self, Tls},
    unread::Unread,
    upkeep, webhook,
};

/// Maximum number of headers of a request.
const HEADERS_MAX: usize = 64;
/// Maximum size of a request's head, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Maximum length of a request's target, in bytes.
const URI_MAX: usize = 4 * 1024;
/// Value of `Strict-Transport-Security`: browsers use only TLS for a year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");
/// Time that connections have to close at the end of a shutdown.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// Pause after a failed accept: running out of file descriptors is not solved by an immediate
/// retry.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled, then drains running work for a limited time and closes the
/// store.
///
/// # Errors
/// The relay must not serve here (there is no key, or `--insecure-dev` is used off loopback), its
/// store cannot be read or closed, or one of its tasks panicked.
pub async fn serve(listener: TcpListener, relay: Relay, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    relay.permitted(address).await?;
    let tls = relay.settings.tls.clone().map(Tls::open).transpose()?;
    let tls = tls.map(Arc::new);
    if let Some(tls) = &tls {
        let reloading = tls::reload_on_hangup(tls.clone(), relay.stop.clone());
        relay.run_part("certificates", reloading);
    }
    tracing::info!(%address, "the relay listens");
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(url = %format_args!("{scheme}://{address}/"), "dashboard available");
    relay.run_part("leases", upkeep::reap(relay.clone()));
    relay.run_part("keys", upkeep::check_keys(relay.clone()));
    relay.run_part("orphans", upkeep::give_up_orphans(relay.clone()));
    relay.run_part("webhooks", webhook::deliver(relay.clone()));
    if let Some(to) = relay.settings.push_url.clone() {
        let latest = relay.pushes.follow();
        let told = push::deliver(relay.clone(), to, latest, address);
        relay.run_part("pushes", told);
    }
    relay.run_part("files", batch::expire_files(relay.clone()));
    batch::resume(relay.clone()).await;
    let open_at = relay.settings.insecure_dev.then_some(address);
    let context = RequestContext {
        router: api::routes(relay.clone()),
        relay: relay.clone(),
        open_at,
        tls,
    };
    let over = async {
        stop.cancelled().await;
        tracing::info!("shutting down");
        relay.drain_gracefully().await;
    };
    // During the drain new requests are refused, and workers still deliver what they have.
    let failed = tokio::select! {
        error = relay.store.failure() => Some(error),
        () = accept(&listener, &context) => None,
        () = relay.part_failed.cancelled() => None,
        () = over => None,
    };
    drop(listener);
    relay.drain.cancel();
    relay.stop.cancel();
    relay.tasks.close();
    if let Some(error) = failed {
        // The store can acknowledge nothing more, so clients should reach the next process soon.
        return Err(store_failure(&error));
    }

    if timeout(CLOSE_WITHIN, relay.tasks.wait()).await.is_err() {
        tracing::warn!("closing connections that are still open");
    }
    relay.store.close().await.map_err(io::Error::other)?;
    if relay.part_failed.is_cancelled() {
        return Err(io::Error::other(
            "a part of the relay failed (see its log), so the relay stopped; start it again",
        ));
    }
    Ok(())
}

/// Returns the reason why the relay ends by itself, as one line.
fn store_failure(error: &queue::QueueError) -> io::Error {
    let source = std::error::Error::source(error);
    let why = source.map_or_else(|| error.to_string(), ToString::to_string);
    io::Error::other(format!(
        "{why}; the relay stopped, so that its next start reads the true state from disk"
    ))
}

impl Relay {
    /// Checks that the relay may serve on this address: without a key only on loopback with
    /// `--insecure-dev`, and without TLS only on loopback or behind a proxy.
    pub(crate) async fn permitted(&self, address: SocketAddr) -> io::Result<()> {
        if self.settings.insecure_dev {
            if address.ip().is_loopback() {
                tracing::warn!(
                    "--insecure-dev: every program on this machine has full access without a key"
                );
                return Ok(());
            }
            return Err(io::Error::other(format!(
                "--insecure-dev serves on loopback only, not on {address}; \
                 leave it out, or listen on 127.0.0.1"
            )));
        }
        let settings = &self.settings;
        let is_plain = settings.tls.is_none() && settings.behind_proxy.is_empty();
        if is_plain && !address.ip().to_canonical().is_loopback() {
            return Err(io::Error::other(format!(
                "keys and questions would go to {address} in the clear; listen on 127.0.0.1, give \
                 a certificate with --tls-cert and --tls-key, or name the proxies that end TLS \
                 with --behind-proxy"
            )));
        }
        let keys = self.store.list_keys().await.map_err(io::Error::other)?;
        let now = self.wall_now();
        if keys.iter().any(|key| key.is_in_force(now)) {
            return Ok(());
        }
        let users = self.store.list_users().await.map_err(io::Error::other)?;
        if !users.is_empty() {
            return Ok(());
        }
        Err(io::Error::other(
            "there is no key, so nobody could use this relay; make one with `hearth key create \
             --store STORE --name NAME --scope enqueue --scope read`",
        ))
    }
}

async fn accept(listener: &TcpListener, context: &RequestContext) {
    let relay = &context.relay;
    let settings = &relay.settings;
    let limits = ConnectionLimits::new(
        settings.connections_per_address,
        settings.connections_per_key,
        &settings.behind_proxy,
    );
    let limits = Arc::new(limits);
    let others_listen = context.tls.is_none()
        && listener
            .local_addr()
            .is_ok_and(|address| !address.ip().to_canonical().is_loopback());
    let places = Arc::new(Semaphore::new(relay.settings.connections_max));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((socket, from)) => {
                let is_served = !others_listen || may_use_plain_http(&settings.behind_proxy, from);
                let Some(connection_handle) = limits.enter(from.ip()).filter(|_| is_served) else {
                    tracing::debug!(%from, "connection refused: over the limit, or no TLS");
                    continue;
                };
                connection_handle.keep(ConnectionPermits {
                    _place: place,
                    _counted: relay.metrics.connected(),
                });
                let info = ConnInfo {
                    from,
                    connection_handle,
                };
                relay.tasks.spawn(connection(socket, info, context.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a client may connect without TLS to an address that other machines reach: only proxies
/// that end TLS, and this machine.
fn may_use_plain_http(proxies: &[Network], from: SocketAddr) -> bool {
    let address = from.ip().to_canonical();
    address.is_loopback() || proxies.iter().any(|proxy| proxy.contains(address))
}

/// Address and counters of one connection.
#[derive(Clone)]
struct ConnInfo {
    from: SocketAddr,
    connection_handle: ConnectionHandle,
}

async fn connection(socket: TcpStream, info: ConnInfo, context: RequestContext) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "the connection closed before it was served");
        return;
    }
    let Some(tls) = &context.tls else {
        return serve_http(socket, info, context).await;
    };
    let patience = context.relay.settings.tls_patience;
    let handshake = timeout(patience, tls.acceptor().accept(socket));
    match context.relay.stop.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => serve_http(stream, info, context).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
        Some(Err(_)) => tracing::debug!("TLS handshake timed out"),
        None => {}
    }
}

/// Serves HTTP on a connection until it closes.
async fn serve_http<S>(socket: S, info: ConnInfo, context: RequestContext)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let relay = context.relay.clone();
    let limits = Limits {
        head: relay.settings.head_patience,
        write: relay.settings.write_patience,
    };
    let phase = Phase::first();
    let socket = StallTimeout::new(socket, limits, phase.clone());
    let idle = relay.settings.idle_patience;
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        phase.busy();
        info.attach_to(&mut request, &context);
        let (context, phase) = (context.clone(), phase.clone());
        let answering = context.relay.answering();
        async move {
            let Ok(response) = answer(context, request).await;
            // An upgraded connection answers no further requests.
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok::<_, Infallible>(response);
            }
            Ok(response.map(|body| phase.until_end_of(body, answering)))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = relay.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection failed");
    }
}

/// State that every request needs.
#[derive(Clone)]
struct RequestContext {
    router: Router,
    relay: Relay,
    /// Address of a relay that requires no key.
    open_at: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
}

impl ConnInfo {
    fn attach_to(&self, request: &mut Request<Incoming>, context: &RequestContext) {
        let proxies = &context.relay.settings.behind_proxy;
        let peer = Peer::of(self.from, context.tls.is_some(), proxies, request.headers());
        let notes = request.extensions_mut();
        notes.insert(peer);
        notes.insert(self.connection_handle.clone());
    }
}

/// Answers one request: checks before routing, the route, then the format of an error.
async fn answer(
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
        if request.method().is_idempotent() {
            work_permit.set_retryable();
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
    let uri = request.uri();
    if let Some(listener) = open_at {
        loopback::admit(request.headers(), uri.authority(), listener)
            .map_err(|error| refused(uri.path(), error))?;
    }
    if uri.query().is_some_and(names_a_token) {
        let message = "a key in the URL would be kept by logs; send `Authorization: Bearer KEY`";
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
    fn a_token_in_the_query_is_found_by_name() {
        for query in ["token=x", "a=1&API_KEY=x", "key", "access_token=x&b"] {
            assert!(names_a_token(query), "{query}");
        }
        for query in ["after=1-2", "monkey=1", "limit=3&first=4"] {
            assert!(!names_a_token(query), "{query}");
        }
    }
}
