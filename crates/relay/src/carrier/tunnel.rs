//! `GET /ws/tunnel`: the WebSocket of the tunnel service's desktops. Upgrade, credentials and close.

use std::{io, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
    request::Parts,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::{
    ErrorCode, WorkerId,
    admin::WorkerCarrier,
    limits::{LINE_MAX, WS_READ_BUFFER},
    worker::{CLOSE_DRAIN, CLOSE_PROTOCOL},
};
use queue::Scope;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    farewell::Farewell,
    meter::{Meter, Metered},
    socket::{accept_key, revoked, switching},
    tunnel_session::run_session,
};
use crate::{
    Relay,
    auth::{Caller, Denied, KeyLocation, admit, in_headers},
    connections::ConnectionHandle,
    error::ApiError,
    workers::{Link, OnlineId, OnlineWorker},
};

/// The only path with a token in the query.
pub(crate) const PATH: &str = "/ws/tunnel";
/// Maximum size of a message, in bytes: an answer of one line of the maximum length, and the escapes
/// of its text.
pub(crate) const MESSAGE_MAX: usize = 2 * LINE_MAX;
/// Close code of the tunnel service for a credential that is not accepted.
const CLOSE_DENIED: u16 = 4001;
const CLOSE_AWAY: u16 = 1001;
const CLOSE_TOO_LARGE: u16 = 1009;
const CLOSE_INTERNAL: u16 = 1011;
const CLOSE_BUSY: u16 = 1013;

/// Reasons for 4001, in the words of the tunnel service.
const REQUIRED: &str = "Authentication required";
const INVALID: &str = "Invalid token";
const FAILED: &str = "Authentication failed";

type Socket = WebSocketStream<Metered<TokioIo<Upgraded>>>;

/// The token of the query, which is removed from the URL before routing.
#[derive(Clone)]
pub(crate) struct QueryToken(pub(crate) SecretString);

/// Reason why the relay ends a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelEnd {
    /// The desktop disconnected, closed the tunnel, broke a rule of WebSocket, or stopped reading.
    Lost(Farewell),
    /// It sent nothing for too long.
    Silent,
    /// It did not answer a request in time.
    Overdue,
    /// An answer exceeds the maximum size.
    TooLarge,
    /// The memory for messages that are arriving is used up.
    Busy,
    /// The store failed.
    Store,
    /// Its key or token is not valid any more.
    Revoked,
    /// The relay is shutting down.
    Drain,
}

impl TunnelEnd {
    /// The end for a tunnel from which nothing more can be read.
    pub(super) fn after(last: Option<&Result<Message, Error>>) -> Self {
        match last {
            Some(Err(Error::Capacity(_))) => Self::TooLarge,
            Some(Err(Error::Io(error))) if error.kind() == io::ErrorKind::OutOfMemory => Self::Busy,
            last => Self::Lost(Farewell::after(last)),
        }
    }

    pub(super) const fn farewell(self) -> Farewell {
        let (code, reason) = match self {
            Self::Lost(farewell) => return farewell,
            Self::Silent => (CLOSE_AWAY, "no message for 90 s"),
            Self::Overdue => (CLOSE_PROTOCOL, "no answer within 30 minutes"),
            Self::TooLarge => (CLOSE_TOO_LARGE, "the message exceeds 16 MiB"),
            Self::Busy => (
                CLOSE_BUSY,
                "too much is arriving; connect again in a moment",
            ),
            Self::Store => (CLOSE_INTERNAL, "the store failed"),
            Self::Revoked => (CLOSE_DENIED, INVALID),
            Self::Drain => (CLOSE_DRAIN, "the relay is shutting down"),
        };
        Farewell::Close(code, reason)
    }
}

/// `GET /ws/tunnel`. A credential that is not accepted is told after the upgrade, as the tunnel
/// service tells it.
pub(crate) async fn upgrade(
    State(relay): State<Relay>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgraded = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    if parts.headers.contains_key(ORIGIN) {
        let message =
            "web pages cannot be workers; connect from a program, which sends no `Origin`";
        return Err(ApiError::new(ErrorCode::ForbiddenOrigin, message));
    }
    let accept = accept_key(&parts.headers, None);
    show_token(&mut parts);
    let (caller, accept) = match (
        admit(&parts, &relay, Scope::Work, KeyLocation::Header).await,
        accept,
    ) {
        (Ok(caller), accept) => (Ok(Arc::new(caller)), accept?),
        (Err(Denied::Failed(error)), _) => return Err(error),
        (Err(denied), Ok(accept)) => {
            let why = reason(&denied);
            // The response is 101, so it is counted here.
            relay.metrics.refused(ApiError::from(denied).code);
            (Err(why), accept)
        }
        (Err(denied), Err(_)) => return Err(denied.into()),
    };
    if relay.drain.is_cancelled() {
        return Err(ApiError::draining());
    }
    let connection = parts.extensions.get::<ConnectionHandle>().cloned();
    let served = relay.clone();
    relay.tasks.spawn(async move {
        match upgraded.await {
            Ok(io) => {
                let claimant = caller.as_ref().map(|caller| caller.claimant());
                let meter = Meter::new(served.arriving.share(&claimant.unwrap_or_default()));
                let io = Metered {
                    io: TokioIo::new(io),
                    meter: meter.clone(),
                };
                let config = Some(config(MESSAGE_MAX));
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, config).await;
                serve(&served, caller, socket, &meter).await;
            }
            Err(error) => tracing::debug!(%error, "a desktop disconnected during the upgrade"),
        }
        // It counts until here, also if it has shown no valid key.
        drop(connection);
    });
    Ok(switching(accept))
}

/// The configuration of a tunnel with this maximum size of a message.
pub(super) fn config(message_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(WS_READ_BUFFER)
        .write_buffer_size(16 * 1024)
        .max_message_size(Some(message_max))
        .max_frame_size(Some(message_max))
}

/// Moves the token to the header in which keys are looked for: the one of the query comes first,
/// and the one of the subprotocol last.
fn show_token(parts: &mut Parts) {
    let in_query = parts.extensions.remove::<QueryToken>();
    let token = match in_query {
        Some(QueryToken(token)) => token,
        None if in_headers(&parts.headers).is_some() => return,
        None => match in_subprotocol(&parts.headers) {
            Some(token) => token,
            None => return,
        },
    };
    let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
    // No key or token has characters that a header cannot have.
    let mut bearer = bearer.unwrap_or(HeaderValue::from_static("Bearer invalid"));
    bearer.set_sensitive(true);
    parts.headers.insert(AUTHORIZATION, bearer);
}

/// Returns the token of a subprotocol `token-…`.
fn in_subprotocol(headers: &HeaderMap) -> Option<SecretString> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok());
    offered.find_map(|offered| {
        let mut each = offered.split(',');
        let token = each.find_map(|protocol| protocol.trim().strip_prefix("token-"))?;
        Some(token.to_owned().into())
    })
}

const fn reason(denied: &Denied) -> &'static str {
    match denied {
        Denied::Nothing => REQUIRED,
        Denied::Key
        | Denied::Revoked
        | Denied::Expired
        | Denied::Token(_)
        | Denied::Session(_)
        | Denied::Reused
        | Denied::Gone => INVALID,
        Denied::Scope(_) | Denied::KeyInPath | Denied::Failed(_) => FAILED,
    }
}

async fn serve(
    relay: &Relay,
    caller: Result<Arc<Caller>, &'static str>,
    mut socket: Socket,
    meter: &Meter,
) {
    let farewell = match caller {
        Ok(caller) => serve_desktop(relay, &caller, &mut socket, meter)
            .await
            .farewell(),
        Err(reason) => Farewell::Close(CLOSE_DENIED, reason),
    };
    // Boxed to keep the task of an idle desktop small.
    Box::pin(farewell.say(&mut socket, |metered| &mut metered.io)).await;
}

async fn serve_desktop(
    relay: &Relay,
    caller: &Arc<Caller>,
    socket: &mut Socket,
    meter: &Meter,
) -> TunnelEnd {
    let id = relay.workers.new_id();
    // Desktops of one key cannot be told from each other, so each tunnel is a worker of its own.
    let OnlineId::Socket(number) = &id else {
        return TunnelEnd::Lost(Farewell::None);
    };
    let Ok(worker) = WorkerId::new(format!("tunnel-{number}")) else {
        return TunnelEnd::Lost(Farewell::None);
    };
    let key_use = caller
        .key
        .clone()
        .map(|key| relay.key_uses.begin(key, caller.until));
    let online = OnlineWorker {
        link: Some(Link {
            worker: worker.clone(),
            maybe_dead: Arc::default(),
            displaced: CancellationToken::new(),
            // It takes no part in the ranking, because it tells no models.
            routing_entry: Arc::new(relay.routing.join()),
        }),
        ..OnlineWorker::of(caller, WorkerCarrier::Websocket)
    };
    relay.workers.register(id.clone(), online);
    tracing::info!(%worker, "tunnel connected");
    let over = async {
        tokio::select! {
            () = relay.stop.cancelled() => TunnelEnd::Drain,
            () = revoked(key_use.as_ref()) => TunnelEnd::Revoked,
        }
    };
    let ended = run_session(relay, caller, &worker, socket, meter, over).await;
    tracing::info!(%worker, ?ended, "tunnel disconnected");
    if ended == TunnelEnd::Revoked {
        relay.workers.dismiss(&id);
    } else {
        relay.workers.leave(&id, relay.now());
    }
    ended
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn each_end_has_the_close_code_of_its_cause() {
        let code = |end: TunnelEnd| match end.farewell() {
            Farewell::Close(code, _) => Some(code),
            Farewell::None | Farewell::Answer => None,
        };
        assert_eq!(code(TunnelEnd::Busy), Some(1013));
        assert_eq!(code(TunnelEnd::TooLarge), Some(1009));
        assert_eq!(code(TunnelEnd::Store), Some(1011));
        assert_eq!(code(TunnelEnd::Silent), Some(1001));
        assert_eq!(code(TunnelEnd::Drain), Some(1012));
        assert_eq!(code(TunnelEnd::Lost(Farewell::None)), None);
        let full = Err(Error::Io(io::ErrorKind::OutOfMemory.into()));
        assert_eq!(TunnelEnd::after(Some(&full)), TunnelEnd::Busy);
        let broken = Err(Error::Utf8(String::new()));
        assert_eq!(code(TunnelEnd::after(Some(&broken))), Some(1007));
    }

    #[test]
    fn the_token_of_the_query_comes_first_and_that_of_the_subprotocol_last() {
        let shown = |query: Option<&str>, headers: &[(&str, &str)]| {
            let mut request = Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            if let Some(token) = query {
                parts.extensions.insert(QueryToken(token.to_owned().into()));
            }
            show_token(&mut parts);
            in_headers(&parts.headers).map(str::to_owned)
        };
        let header = ("authorization", "Bearer b");
        let protocol = ("sec-websocket-protocol", "chat, token-c");
        let both = [header, protocol];
        assert_eq!(shown(Some("a"), &both).as_deref(), Some("a"));
        assert_eq!(shown(None, &both).as_deref(), Some("b"));
        assert_eq!(shown(None, &[protocol]).as_deref(), Some("c"));
        let other = ("sec-websocket-protocol", "chat");
        assert_eq!(shown(None, &[other]), None);
        assert_eq!(shown(Some("a\n"), &both).as_deref(), Some("invalid"));
    }
}
