//! Connects the subscriber to a hub, in the mode that the hub speaks.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, header};
use proto::{
    ErrorCode, limits,
    status::{
        ClientMessage, Command, CommandArgs, ServerMessage, Status,
        v1::{HubMessage, Nonce, PeerMessage, SUBPROTOCOL, Side, Topic, VERSIONS},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{
    net::TcpStream,
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::{
    LocalToken, Places, foreign, is_foreign, proof::Challenge, upgrade::socket_config, web::Web,
};

/// Timeout of connecting and authenticating, and of writing a command.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// A connection to a hub.
pub(crate) struct Hub {
    socket: WebSocketStream<TcpStream>,
    mode: Mode,
    /// The first status of a server that has proven nothing.
    first: Option<Box<ServerMessage>>,
    /// Time of the last message.
    heard: Instant,
}

/// A server that a status is read from.
pub(crate) enum Peer {
    Hub(Hub),
    Web(Web),
}

enum Mode {
    /// Another program's hub, or one whose token this user cannot read; read-only.
    Legacy,
    /// `hearth.status.v1`, with a hub that has proven that it knows the token.
    V1(Shown),
}

/// A status, assembled from a snapshot and deltas.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    seq: u64,
    data: Map<String, Value>,
}

/// Returns the user of the program that listens on a port.
#[derive(Clone)]
pub(crate) struct PortUsers(Arc<dyn Fn(u16) -> Option<u32> + Send + Sync>);

impl PortUsers {
    pub(crate) fn new(user_of: impl Fn(u16) -> Option<u32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(user_of))
    }

    /// Fails if another user's program listens at this address, or may. To be called after the
    /// server has responded, because an earlier listener may have been replaced.
    pub(crate) async fn refuse_foreign(&self, addr: SocketAddr) -> io::Result<()> {
        let Self(user_of) = self.clone();
        let user = spawn_blocking(move || user_of(addr.port())).await;
        if is_foreign(user.ok().flatten()) {
            return Err(denied("another user's program listens there now"));
        }
        Ok(())
    }
}

impl fmt::Debug for PortUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortUsers")
    }
}

/// Connects to the first server with a status, by WebSocket, or else over HTTP. With `users`,
/// programs of other users are skipped.
pub(crate) async fn connect(places: &Places, users: Option<&PortUsers>) -> Result<Peer, Error> {
    let mut failed = Error::ConnectionClosed;
    for (addr, token) in places.candidates() {
        let token = token.and_then(|path| LocalToken::read(&path).ok().flatten());
        let reached = async {
            let hub = reach(addr, token).await?;
            if let Some(users) = users {
                users.refuse_foreign(addr).await?;
            }
            Ok(hub)
        };
        match timeout(CONNECT, reached).await {
            Ok(Ok(hub)) => return Ok(Peer::Hub(hub)),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = Error::Io(io::ErrorKind::TimedOut.into()),
        }
    }
    for addr in places.http() {
        match Web::open(addr, users.cloned()).await {
            Ok(web) => return Ok(Peer::Web(web)),
            Err(error) => tracing::debug!(%addr, %error, "no status over HTTP"),
        }
    }
    Err(failed)
}

impl Peer {
    /// The next message. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> Option<Result<ServerMessage, Error>> {
        match self {
            Self::Hub(hub) => hub.hear().await,
            Self::Web(web) => Some(web.hear().await.map_err(Error::Io)),
        }
    }

    /// Sends a command; `false` if the server takes none.
    pub(crate) async fn ask(&mut self, command: Command, id: u64) -> Result<bool, Error> {
        match self {
            Self::Hub(hub) => hub.ask(command, id).await.map(|()| true),
            Self::Web(_) => Ok(false),
        }
    }

    /// Time of the last message of a server that only sends changes. `None` where silence is
    /// detected otherwise: the connection to our own hub breaks with it, and HTTP has its own
    /// timeouts.
    pub(crate) fn heard(&self) -> Option<Instant> {
        match self {
            Self::Hub(hub) if matches!(hub.mode, Mode::Legacy) => Some(hub.heard),
            Self::Hub(_) | Self::Web(_) => None,
        }
    }

    /// Sends a ping, so that a live server responds.
    pub(crate) async fn ping(&mut self) -> Result<(), Error> {
        match self {
            Self::Hub(hub) => hub.socket.send(Message::Ping(Bytes::new())).await,
            Self::Web(_) => Ok(()),
        }
    }
}

/// Without a token any server may answer, so the connection counts only after the first status.
async fn reach(addr: SocketAddr, token: Option<LocalToken>) -> Result<Hub, Error> {
    let is_known = token.is_some();
    let mut hub = open(addr, token).await?;
    while !is_known && hub.first.is_none() {
        let heard = hub.hear().await.ok_or(Error::ConnectionClosed)??;
        if matches!(heard, ServerMessage::Status { .. }) {
            hub.first = Some(Box::new(heard));
        }
    }
    Ok(hub)
}

/// Connects and, if there is a token, requires the server to prove that it knows it.
pub(crate) async fn open(addr: SocketAddr, token: Option<LocalToken>) -> Result<Hub, Error> {
    let mut request = format!("ws://{addr}/").into_client_request()?;
    if token.is_some() {
        let wanted = HeaderValue::from_static(SUBPROTOCOL);
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, wanted);
    }
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let config = Some(socket_config(limits::HUB_MESSAGE_MAX));
    let (socket, _) = client_async_with_config(request, stream, config).await?;
    let mode = Mode::Legacy;
    let heard = Instant::now();
    let mut hub = Hub {
        socket,
        mode,
        first: None,
        heard,
    };
    if let Some(token) = token {
        hub.greet(addr.port(), &token).await?;
        hub.mode = Mode::V1(Shown::default());
    }
    Ok(hub)
}

impl Hub {
    /// The hub's next message, in the format of the legacy mode. Unknown messages are skipped.
    pub(crate) async fn hear(&mut self) -> Option<Result<ServerMessage, Error>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(*first));
        }
        loop {
            let came = self.socket.next().await?;
            self.heard = Instant::now();
            let text = match came {
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                Err(error) => return Some(Err(error)),
            };
            let message = match &mut self.mode {
                Mode::Legacy => known(&text).or_else(|| foreign::read(&text)),
                Mode::V1(shown) => match known(&text).map(|message| shown.read(message)) {
                    Some(Ok(message)) => message,
                    Some(Err(error)) => return Some(Err(error)),
                    None => None,
                },
            };
            if let Some(message) = message {
                return Some(Ok(message));
            }
        }
    }

    /// Sends a command, whose answer will carry this id.
    pub(crate) async fn ask(&mut self, command: Command, id: u64) -> Result<(), Error> {
        let (word, id, args) = (command.as_str().to_owned(), id.to_string(), command.args());
        let message = match self.mode {
            Mode::Legacy => text(&ClientMessage::Command {
                command: word,
                id: Some(id),
                args,
                name: "hearth".to_owned(),
            }),
            Mode::V1(_) => text(&PeerMessage::Request {
                id,
                request: word,
                args,
            }),
        };
        self.socket.send(message).await
    }

    /// Sends one request of `hearth.status.v1`, and returns its result or refusal.
    pub(crate) async fn call(
        &mut self,
        word: &str,
        args: CommandArgs,
    ) -> Result<Result<Value, (ErrorCode, String)>, Error> {
        const ID: &str = "call";
        let request = PeerMessage::Request {
            id: ID.to_owned(),
            request: word.to_owned(),
            args,
        };
        self.socket.send(text(&request)).await?;
        loop {
            let Some(message) = self.socket.next().await.transpose()? else {
                return Err(Error::ConnectionClosed);
            };
            let Message::Text(text) = message else {
                continue;
            };
            if let Some(HubMessage::Response {
                id,
                code,
                message,
                result,
                ..
            }) = known(&text)
                && id == ID
            {
                let refused = code.map(|code| (code, message.unwrap_or_default()));
                return Ok(refused.map_or(Ok(result.unwrap_or_default()), Err));
            }
        }
    }

    /// Proves to the hub that this user can read the token, and verifies the hub's proof.
    async fn greet(&mut self, port: u16, token: &LocalToken) -> Result<(), Error> {
        let Some(HubMessage::Hello { nonce, .. }) = self.said().await? else {
            return Err(unproven());
        };
        let challenge = Challenge {
            port,
            server: nonce,
            client: Nonce(rand::random()),
        };
        let topics = Topic::ALL.map(|topic| topic.as_str().to_owned());
        let identify = PeerMessage::Identify {
            version: VERSIONS[0],
            nonce: Some(challenge.client),
            proof: challenge.proof(token, Side::Client),
            name: "hearth".to_owned(),
            subscriptions: Some(topics.to_vec()),
        };
        self.socket.send(text(&identify)).await?;
        match self.said().await? {
            Some(HubMessage::Identified {
                proof: Some(proof), ..
            }) if challenge.is_proven(token, Side::Server, &proof) => Ok(()),
            Some(_) | None => Err(unproven()),
        }
    }

    async fn said(&mut self) -> Result<Option<HubMessage>, Error> {
        match self.socket.next().await.transpose()? {
            Some(Message::Text(text)) => Ok(serde_json::from_str(&text).ok()),
            Some(_) | None => Ok(None),
        }
    }
}

impl Shown {
    /// Converts a message to the legacy mode; `None` if that has no equivalent.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "messages of later versions are left out, like those that say nothing to a reader"
    )]
    pub(crate) fn read(&mut self, message: HubMessage) -> Result<Option<ServerMessage>, Error> {
        Ok(match message {
            HubMessage::Snapshot { seq, data, .. } => {
                *self = Self { seq, data };
                self.status()
            }
            HubMessage::Delta { from, seq, data } if from == self.seq => {
                self.seq = seq;
                self.data.extend(data);
                self.status()
            }
            HubMessage::Delta { from, .. } => {
                let gap = format!("a delta from {from}, but {} was the last", self.seq);
                return Err(Error::Io(std::io::Error::other(gap)));
            }
            HubMessage::Response {
                id,
                request,
                status: 200,
                ..
            } => Some(ServerMessage::Ack {
                command: request,
                id: Some(id),
                result: None,
            }),
            HubMessage::Response {
                id,
                request,
                code,
                message,
                ..
            } => Some(ServerMessage::Error {
                code: code.unwrap_or(ErrorCode::Unknown),
                message: message.unwrap_or_default(),
                command: Some(request),
                id: Some(id),
                approval: None,
            }),
            HubMessage::Error { code, message, .. } => Some(ServerMessage::Error {
                code,
                message,
                command: None,
                id: None,
                approval: None,
            }),
            _ => None,
        })
    }

    fn status(&self) -> Option<ServerMessage> {
        let data: Status = understood(serde_json::from_value(self.data.clone().into()))?;
        let data = Status {
            seq: self.seq,
            ..data
        };
        Some(ServerMessage::Status { data })
    }
}

fn known<T: DeserializeOwned>(text: &str) -> Option<T> {
    understood(serde_json::from_str(text))
}

/// Skips what cannot be parsed, because a later version may send more.
fn understood<T>(read: serde_json::Result<T>) -> Option<T> {
    read.inspect_err(|error| tracing::debug!(%error, "a message of the hub is not understood"))
        .ok()
}

fn text(message: &impl Serialize) -> Message {
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

fn unproven() -> Error {
    denied("the program at this address did not prove to be Hearth's hub").into()
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(shown: &mut Shown, json: &str) -> Result<Option<ServerMessage>, Error> {
        shown.read(known(json).unwrap())
    }

    #[test]
    fn deltas_are_put_onto_the_snapshot_and_a_gap_ends_the_session() {
        let mut shown = Shown::default();
        let snapshot = include_str!("../../proto/fixtures/status-v1/snapshot.json");
        let delta = include_str!("../../proto/fixtures/status-v1/delta.json");
        heard(&mut shown, snapshot).unwrap().unwrap();
        let Ok(Some(ServerMessage::Status { data })) = heard(&mut shown, delta) else {
            panic!("no status")
        };
        assert_eq!((data.seq, &*data.text, data.jobs.len()), (9, "Ready", 0));
        assert!(data.carrier.is_some(), "what did not change stays");
        assert!(
            heard(&mut shown, delta).is_err(),
            "it is from 7, and 9 was the last"
        );
    }

    #[test]
    fn a_status_of_a_later_version_is_skipped() {
        let mut shown = Shown::default();
        let later = r#"{"type":"snapshot","seq":1,"cause":"because","data":{"status":"dreaming"}}"#;
        assert!(matches!(heard(&mut shown, later), Ok(None)));
        assert!(matches!(heard(&mut shown, r#"{"type":"dance"}"#), Ok(None)));
    }
}
