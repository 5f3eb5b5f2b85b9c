//! The accept loop: who may connect, TLS, and HTTP on each connection.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    Network,
    connections::{ConnectionHandle, ConnectionLimits, ConnectionPermits},
    peer::Peer,
    pipeline::{RequestContext, answer},
    stall_timeout::{Limits, Phase, StallTimeout},
};

/// Maximum number of headers of a request.
pub(crate) const HEADERS_MAX: usize = 64;
/// Maximum size of a request's head, in bytes.
pub(crate) const HEAD_MAX: usize = 16 * 1024;
/// Pause after a failed accept: running out of file descriptors is not solved by an immediate
/// retry.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the listener fails for good; each is a task of the relay.
pub(crate) async fn accept(listener: &TcpListener, context: &RequestContext) {
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

impl ConnInfo {
    fn attach_to(&self, request: &mut Request<Incoming>, context: &RequestContext) {
        let proxies = &context.relay.settings.behind_proxy;
        let peer = Peer::of(self.from, context.tls.is_some(), proxies, request.headers());
        let notes = request.extensions_mut();
        notes.insert(self.connection_handle.for_request(peer.address));
        notes.insert(peer);
    }
}
