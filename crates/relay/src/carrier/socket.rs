//! The WebSocket carrier: upgrade, hello and close.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::{
    ErrorCode, LeaseToken, WorkerId, WorkerReport, limits,
    worker::{
        CLOSE_DRAIN, CLOSE_EXPIRED, CLOSE_PROTOCOL, CLOSE_UNAUTHORIZED, RelayMessage, SUBPROTOCOL,
        WorkerMessage,
    },
};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    farewell::Farewell,
    session::Session,
    writer::{text, write, write_rest},
};
use crate::{
    Relay,
    auth::{Caller, MayWork},
    error::ApiError,
    revocation::KeyUse,
    workers::{Link, OnlineId, OnlineWorker},
};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Maximum time for the last messages to a worker.
const GOODBYE: Duration = Duration::from_secs(1);
/// Close code for an internal error of the relay.
const CLOSE_INTERNAL: u16 = 1011;

/// Reason why the relay ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The worker disconnected, closed the connection, broke a rule of WebSocket, or stopped
    /// reading or writing.
    Lost(Farewell),
    /// The worker violated the protocol.
    Protocol(&'static str),
    /// The store failed; unconfirmed messages must be sent again.
    Store,
    /// Its key or token was revoked.
    Revoked,
    /// Its key has expired.
    KeyExpired,
    /// Its token has expired.
    Expired,
    /// The worker has opened too many further connections.
    Displaced,
    /// The relay is shutting down.
    Drain,
}

impl CloseReason {
    const fn farewell(self) -> Farewell {
        let (code, reason) = match self {
            Self::Lost(farewell) => return farewell,
            Self::Protocol(what) => (CLOSE_PROTOCOL, what),
            Self::Store => (CLOSE_INTERNAL, "the store failed"),
            Self::Revoked => (
                CLOSE_UNAUTHORIZED,
                "the key was revoked; ask the operator for a new one",
            ),
            Self::KeyExpired => (
                CLOSE_UNAUTHORIZED,
                "the key has expired; ask the operator for a new one",
            ),
            Self::Expired => (
                CLOSE_EXPIRED,
                "the token has expired; connect again with a new one",
            ),
            Self::Displaced => (
                CLOSE_PROTOCOL,
                "this worker has too many connections; give each agent a name of its own",
            ),
            Self::Drain => (CLOSE_DRAIN, "the relay is shutting down"),
        };
        Farewell::Close(code, reason)
    }
}

/// `GET /api/worker/v1`.
pub(crate) async fn upgrade(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    mut request: Request,
) -> Result<Response, ApiError> {
    let accept = accept_key(request.headers(), Some(SUBPROTOCOL))?;
    if relay.drain.is_cancelled() {
        return Err(ApiError::draining());
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let (served, caller) = (relay.clone(), Arc::new(caller));
    relay.tasks.spawn(async move {
        match upgraded.await {
            Ok(io) => serve(&served, &caller, TokioIo::new(io)).await,
            Err(error) => tracing::debug!(%error, "a worker disconnected during the upgrade"),
        }
    });
    let mut response = switching(accept);
    response.headers_mut().insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(response)
}

/// Returns the response to an upgrade.
pub(super) fn switching(accept: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Checks that the request is an upgrade, to this subprotocol if there is one.
pub(super) fn accept_key(
    headers: &HeaderMap,
    subprotocol: Option<&str>,
) -> Result<HeaderValue, ApiError> {
    let says = |name: header::HeaderName, word: &str| {
        let values = headers
            .get_all(name)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !says(header::UPGRADE, "websocket") || !says(header::CONNECTION, "upgrade") {
        let message = "this route is a WebSocket; send an upgrade request";
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let is_ours = |ours: &str| says(header::SEC_WEBSOCKET_PROTOCOL, ours);
    if !says(header::SEC_WEBSOCKET_VERSION, "13") || !subprotocol.is_none_or(is_ours) {
        let with = subprotocol.map(|ours| format!(" with subprotocol {ours}"));
        let with = with.unwrap_or_default();
        let message = format!("only WebSocket version 13{with} is supported");
        return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24);
    let key = key.ok_or_else(|| {
        ApiError::new(
            ErrorCode::BadRequest,
            "Sec-WebSocket-Key is missing or malformed",
        )
    })?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| ApiError::internal())
}

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(limits::WS_READ_BUFFER)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(4 * limits::FRAME_MAX)
        .max_message_size(Some(limits::FRAME_MAX))
        .max_frame_size(Some(limits::FRAME_MAX))
}

async fn serve(relay: &Relay, caller: &Arc<Caller>, io: TokioIo<Upgraded>) {
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
    let ended = match hello(relay, &mut socket).await {
        Ok(hello) => {
            tracing::info!(worker = %hello.worker, "worker connected");
            let worker = hello.worker.clone();
            let ended = run_session(relay, caller, hello, &mut socket).await;
            tracing::info!(%worker, ?ended, "worker disconnected");
            ended
        }
        Err(ended) => ended,
    };
    // Boxed to keep the task of an idle worker small.
    Box::pin(ended.farewell().say(&mut socket, |io| io)).await;
}

/// First message of a worker.
pub(super) struct Hello {
    pub(super) worker: WorkerId,
    pub(super) report: WorkerReport,
    pub(super) held: Vec<LeaseToken>,
}

async fn hello(relay: &Relay, socket: &mut Socket) -> Result<Hello, CloseReason> {
    let first = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    return Err(CloseReason::Protocol("the first message must be hello"));
                }
                last @ (Some(Ok(Message::Close(_)) | Err(_)) | None) => {
                    return Err(CloseReason::Lost(Farewell::after(last.as_ref())));
                }
            }
        }
    };
    let first = tokio::select! {
        first = timeout(relay.settings.hello_patience, first) => first,
        () = relay.drain.cancelled() => return Err(CloseReason::Drain),
    };
    let first = first.map_err(|_| CloseReason::Protocol("no hello in time"))??;
    match serde_json::from_str(&first) {
        Ok(WorkerMessage::Hello {
            worker,
            report,
            held,
            ..
        }) => Ok(Hello {
            worker,
            report,
            held,
        }),
        Ok(_) | Err(_) => Err(CloseReason::Protocol("the first message must be hello")),
    }
}

/// Serves one connection from its hello to its end.
async fn run_session(
    relay: &Relay,
    caller: &Arc<Caller>,
    hello: Hello,
    socket: &mut Socket,
) -> CloseReason {
    let id = relay.workers.new_id();
    let key_use = caller
        .key
        .clone()
        .map(|key| relay.key_uses.begin(key, caller.until));
    let report = Arc::new(caller.permitted(hello.report));
    let link = Link {
        worker: hello.worker,
        maybe_dead: Arc::default(),
        displaced: CancellationToken::new(),
        routing_entry: Arc::new(relay.routing.join()),
    };
    relay
        .workers
        .suspect_older(caller.key.as_ref(), &link.worker);
    let polled = OnlineId::Poll(caller.key_id().to_owned(), link.worker.clone());
    relay.workers.end_poll(&polled);
    relay.workers.register(
        id.clone(),
        OnlineWorker {
            report: Some(report.clone()),
            link: Some(link.clone()),
            ..OnlineWorker::of(caller, proto::admin::WorkerCarrier::Websocket)
        },
    );
    let welcome = RelayMessage::Welcome {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lease_ms: u64::try_from(relay.settings.lease.as_millis()).unwrap_or(u64::MAX),
        heartbeat_ms: u64::try_from((relay.settings.lease / 4).as_millis()).unwrap_or(u64::MAX),
    };
    let until = caller.until;
    let displaced = link.displaced.clone();
    let (mut sink, source) = socket.split();
    let ended = if sink.send(text(&welcome)).await.is_err() {
        CloseReason::Lost(Farewell::None)
    } else {
        let (session, mut control) =
            Session::new(relay.clone(), caller.clone(), link, id.clone(), report);
        let ended = tokio::select! {
            biased;
            () = relay.stop.cancelled() => CloseReason::Drain,
            () = revoked(key_use.as_ref()) => match until {
                Some(until) if until > relay.wall_now() => CloseReason::Revoked,
                Some(_) if caller.user.is_some() => CloseReason::Expired,
                Some(_) => CloseReason::KeyExpired,
                None => CloseReason::Revoked,
            },
            () = displaced.cancelled() => CloseReason::Displaced,
            ended = session.run(source, &hello.held) => ended,
            _ = write(&mut sink, &mut control, &session) => CloseReason::Lost(Farewell::None),
        };
        if ended == CloseReason::Drain {
            // Sends the outcome of its last jobs. If it is lost, the worker asks again.
            drop(timeout(GOODBYE, write_rest(&mut sink, &mut control)).await);
        }
        relay.give_back(session.unsent.take()).await;
        ended
    };
    if matches!(ended, CloseReason::Revoked | CloseReason::KeyExpired) {
        relay.workers.dismiss(&id);
    } else {
        relay.workers.leave(&id, relay.now());
    }
    ended
}

/// Waits until the key of a connection is not valid any more.
pub(super) async fn revoked(key_use: Option<&KeyUse>) {
    match key_use {
        Some(key_use) => key_use.revoked().await,
        None => std::future::pending().await,
    }
}
