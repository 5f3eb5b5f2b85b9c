//! Upgrades a new TCP connection to a WebSocket, or refuses it.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::{ErrorCode, limits, status::v1::SUBPROTOCOL};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::server::create_response_with_body,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    Access, Refusal,
    connection::{Connection, Wire},
    socket_slots::{SocketSlot, SocketSlots},
    token_check::{Grant, TokenCheck},
};

type Page = Response<Full<Bytes>>;

/// The checks before a socket opens.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) access: Access,
    pub(crate) token_check: TokenCheck,
    /// The port of the hub; proofs are bound to it.
    pub(crate) port: u16,
    /// A client that takes a message only after this time has fallen behind.
    pub(crate) behind: Duration,
    pub(crate) room: SocketSlots,
    /// Maximum message size, in bytes.
    pub(crate) message_max: usize,
}

/// An open socket, and what was agreed in the upgrade.
pub(crate) struct Opened {
    pub(crate) stream: WebSocketStream<Wire>,
    pub(crate) agreed: Agreed,
    /// The `Origin` of the web page, if the client is one.
    pub(crate) origin: Option<String>,
}

/// The result of the upgrade request.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) grant: Grant,
    /// A client of `hearth.status.v1` gets its slot after the handshake, in which it may prove the
    /// token.
    pub(crate) place: Option<SocketSlot>,
    /// Whether the subprotocol is `hearth.status.v1` instead of the legacy mode.
    pub(crate) is_v1: bool,
}

/// The WebSocket limits of the hub and its clients.
pub(crate) fn socket_config(message_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(limits::WS_READ_BUFFER)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(4 * message_max)
        .max_message_size(Some(message_max))
        .max_frame_size(Some(message_max))
}

/// Handles one HTTP request. `None`: the request was refused or malformed.
pub(crate) async fn upgrade(stream: TcpStream, gate: &Gate) -> Option<Opened> {
    let opened: Mutex<Option<(OnUpgrade, Agreed, Option<String>)>> = Mutex::new(None);
    let answer = async |mut request: Request<Incoming>| {
        let response = match gate.check(&request) {
            Ok((response, agreed)) => {
                let origin = request.headers().get(header::ORIGIN);
                let origin = origin.and_then(|origin| Some(origin.to_str().ok()?.to_owned()));
                let upgrade = hyper::upgrade::on(&mut request);
                *opened.lock() = Some((upgrade, agreed, origin));
                response
            }
            Err(refused) => *refused,
        };
        Ok::<_, Infallible>(response)
    };
    let served = http1::Builder::new()
        .max_buf_size(16 * 1024)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the hub ended early");
    }
    let (upgrade, agreed, origin) = opened.into_inner()?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<TcpStream>>().ok()?;
    let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
    let config = socket_config(gate.message_max).read_buffer_size(limits::HUB_READ_BUFFER);
    // Room for a status, and for the answers in front of it.
    let kept = 4 * gate.message_max;
    let wire = Wire(Arc::new(Connection::new(stream, gate.behind, kept)));
    let stream = WebSocketStream::from_partially_read(wire, read, Role::Server, Some(config)).await;
    Some(Opened {
        stream,
        agreed,
        origin,
    })
}

impl Gate {
    /// The answer to a request: an open socket and its rights, or a refusal.
    fn check<B>(&self, request: &Request<B>) -> Result<(Page, Agreed), Box<Page>> {
        let refuse = |refusal| Box::new(refused(&refusal));
        self.access
            .check(request.uri(), request.headers())
            .map_err(refuse)?;
        if request.method() != Method::GET || !request.headers().contains_key(header::UPGRADE) {
            return Err(Box::new(upgrade_required()));
        }
        let mut plain = Request::builder()
            .method(Method::GET)
            .version(request.version());
        if let Some(headers) = plain.headers_mut() {
            headers.clone_from(request.headers());
        }
        let plain = plain.body(()).unwrap_or_default();
        let Ok(mut response) = create_response_with_body(&plain, Full::default) else {
            return Err(Box::new(upgrade_required()));
        };
        let grant = self
            .token_check
            .admit(request.headers(), Instant::now())
            .map_err(refuse)?;
        let is_v1 = offers_v1(request.headers());
        let is_awaited = is_v1 && grant == Grant::Read;
        let place = if is_awaited {
            None
        } else {
            self.room.take(grant)
        };
        if place.is_none() && !is_awaited {
            let message = "the hub has no free connections; send the local token, for which some are \
                           reserved, or try again later";
            return Err(refuse(Refusal::new(ErrorCode::Busy, message)));
        }
        if is_v1 {
            response.headers_mut().insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(SUBPROTOCOL),
            );
        }
        let agreed = Agreed {
            grant,
            place,
            is_v1,
        };
        Ok((response, agreed))
    }
}

/// Whether the client offers `hearth.status.v1`; other subprotocols are ignored.
fn offers_v1(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut words = offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|word| word.trim() == SUBPROTOCOL)
}

fn refused(refusal: &Refusal) -> Page {
    let mut response = json(refusal.code.http_status(), refusal);
    let after = [(ErrorCode::RateLimited, "1"), (ErrorCode::Busy, "5")];
    if let Some((_, after)) = after.into_iter().find(|(code, _)| *code == refusal.code) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static(after));
    }
    response
}

fn upgrade_required() -> Page {
    let refusal = Refusal::new(
        ErrorCode::BadRequest,
        "this is Hearth's status hub; connect with a WebSocket (version 13) to this very address, \
         or run `hearth status`",
    );
    let mut response = json(StatusCode::UPGRADE_REQUIRED.as_u16(), &refusal);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::CONNECTION,
        HeaderValue::from_static("upgrade, close"),
    );
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    );
    response
}

fn json(status: u16, refusal: &Refusal) -> Page {
    let body = serde_json::to_vec(&refusal.body()).unwrap_or_default();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
