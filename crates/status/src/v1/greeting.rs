//! The handshake of `hearth.status.v1`: `hello`, `identify`, `identified`.

use std::time::{Duration, Instant as Clock};

use proto::{
    ErrorCode,
    status::v1::{
        CLOSE_LATE, CLOSE_PROTOCOL, CLOSE_RATE_LIMITED, CLOSE_UNAUTHORIZED, CLOSE_VERSION,
        HubMessage, NAME_MAX, Nonce, PeerMessage, Proof, Right, SUBSCRIPTIONS_MAX, Topic, VERSIONS,
    },
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::{Error, Message, protocol::frame::coding::CloseCode};
use tokio_util::sync::CancellationToken;

use crate::{
    pipe::{Pipe, broken_rule},
    proof::Challenge,
    socket_slots::{SocketSlot, SocketSlots},
    token_check::{Grant, TokenCheck},
};

/// The hub's side of a handshake.
pub(crate) struct Greeting<'a> {
    pub(crate) token_check: &'a TokenCheck,
    pub(crate) port: u16,
    pub(crate) nonce: Nonce,
    /// The rights that the client already has by the token of its upgrade request.
    pub(crate) grant: Grant,
    pub(crate) within: Duration,
    pub(crate) room: &'a SocketSlots,
    /// The connection slot that the client already has by the token of its upgrade request.
    pub(crate) place: Option<SocketSlot>,
}

/// A client that has identified itself.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) grant: Grant,
    pub(crate) topics: Vec<Topic>,
    pub(crate) name: String,
}

impl Client {
    /// Whether it may publish: it has proven the local token and has a name.
    pub(crate) fn may_publish(&self) -> bool {
        self.grant == Grant::Command && !self.name.is_empty()
    }
}

/// The result of a handshake.
pub(crate) enum Handshake {
    /// A client, with its connection slot.
    Client(Client, SocketSlot),
    /// The client must be closed with this code and reason.
    Stranger(CloseCode, &'static str),
    Gone,
}

type Rejection = (u16, &'static str);

const FULL: &str =
    "the hub is full; the remaining connections are reserved for clients that prove the token";

impl Greeting<'_> {
    /// Sends `hello` and reads `identify`.
    pub(crate) async fn handshake(
        mut self,
        pipe: &mut Pipe,
        stop: &CancellationToken,
    ) -> Result<Handshake, Error> {
        let until = Instant::now() + self.within;
        let hello = HubMessage::Hello {
            versions: VERSIONS.to_vec(),
            nonce: self.nonce,
            server: concat!("hearth ", env!("CARGO_PKG_VERSION")).to_owned(),
            identify_within_ms: u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX),
        };
        pipe.say(&hello).await?;
        let heard = stop.run_until_cancelled(timeout_at(until, first(pipe)));
        let text = match heard.await {
            None => return Ok(Handshake::Stranger(CloseCode::Away, "Hearth is stopping")),
            Some(Err(_)) => return Ok(stranger((CLOSE_LATE, "no `identify` in time"))),
            Some(Ok(Err(error))) => {
                let (code, reason) = broken_rule(&error).ok_or(error)?;
                return Ok(Handshake::Stranger(code, reason));
            }
            Some(Ok(Ok(None))) => return Ok(Handshake::Gone),
            Some(Ok(Ok(Some(message)))) => message,
        };
        match self.identify(&text) {
            Ok((client, proof)) => {
                let place = self.place.take();
                let Some(place) = place.or_else(|| self.room.take(client.grant)) else {
                    return Ok(Handshake::Stranger(CloseCode::Again, FULL));
                };
                pipe.say(&identified(&client, proof)).await?;
                Ok(Handshake::Client(client, place))
            }
            Err(refused) => Ok(stranger(refused)),
        }
    }

    fn identify(&self, message: &Message) -> Result<(Client, Option<Proof>), Rejection> {
        const FIRST: Rejection = (
            CLOSE_PROTOCOL,
            "the first message must be a valid `identify`, see docs/PROTOCOL.md",
        );
        let Message::Text(text) = message else {
            return Err(FIRST);
        };
        let value: Value = serde_json::from_str(text).map_err(|_| FIRST)?;
        // Checked first: another version may have other fields.
        let version = value.get("version").and_then(Value::as_u64);
        let is_known = |version| VERSIONS.iter().any(|known| u64::from(*known) == version);
        if value["type"] == "identify" && version.is_some_and(|version| !is_known(version)) {
            return Err((CLOSE_VERSION, "only version 1 is supported"));
        }
        let Ok(PeerMessage::Identify {
            nonce,
            proof,
            name,
            subscriptions,
            ..
        }) = serde_json::from_value(value)
        else {
            return Err(FIRST);
        };
        if name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err((
                CLOSE_PROTOCOL,
                "`name` must have at most 64 bytes, all printable",
            ));
        }
        let topics = match subscriptions {
            None => Topic::USUAL.to_vec(),
            Some(words) if words.len() <= SUBSCRIPTIONS_MAX => Topic::known(&words),
            Some(_) => return Err((CLOSE_PROTOCOL, "at most 32 subscriptions are allowed")),
        };
        let (grant, proof) = self.prove(nonce, proof)?;
        Ok((
            Client {
                grant,
                topics,
                name,
            },
            proof,
        ))
    }

    fn prove(
        &self,
        nonce: Option<Nonce>,
        proof: Option<Proof>,
    ) -> Result<(Grant, Option<Proof>), Rejection> {
        let Some(proof) = proof else {
            return Ok((self.grant, None));
        };
        let client = nonce.ok_or((CLOSE_PROTOCOL, "`proof` needs a client `nonce`"))?;
        let challenge = Challenge {
            port: self.port,
            server: self.nonce,
            client,
        };
        match self.token_check.prove(&challenge, &proof, Clock::now()) {
            Ok(proven) => Ok(proven),
            Err(ErrorCode::RateLimited) => Err((
                CLOSE_RATE_LIMITED,
                "too many invalid proofs; try again in a second",
            )),
            Err(_) => Err((
                CLOSE_UNAUTHORIZED,
                "the proof does not match the local token",
            )),
        }
    }
}

/// The answer to `identify` and `reidentify`.
pub(crate) fn identified(client: &Client, proof: Option<Proof>) -> HubMessage {
    let rights = match client.grant {
        Grant::Read => vec![Right::Read],
        Grant::Command if client.may_publish() => {
            vec![Right::Read, Right::Command, Right::Publish]
        }
        Grant::Command | Grant::Guest(_) => vec![Right::Read, Right::Command],
    };
    let words = client.topics.iter().map(|topic| topic.as_str().to_owned());
    HubMessage::Identified {
        version: VERSIONS[0],
        rights,
        subscriptions: words.collect(),
        proof,
    }
}

/// The first text or binary message; `None` if the client left.
async fn first(pipe: &mut Pipe) -> Result<Option<Message>, Error> {
    loop {
        match pipe.next(Instant::now()).await.transpose()? {
            None => return Ok(None),
            Some(Message::Close(_)) => {
                pipe.flush().await?;
                return Ok(None);
            }
            Some(Message::Ping(_)) => pipe.flush().await?,
            Some(Message::Pong(_) | Message::Frame(_)) => {}
            Some(message @ (Message::Text(_) | Message::Binary(_))) => return Ok(Some(message)),
        }
    }
}

fn stranger((code, reason): Rejection) -> Handshake {
    Handshake::Stranger(code.into(), reason)
}
