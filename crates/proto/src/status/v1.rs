//! `hearth.status.v1`, the versioned mode of the hub on port 6001.
//!
//! Whoever asks for the subprotocol [`SUBPROTOCOL`] speaks it, in JSON text messages:
//!
//! ```text
//! client                                    hub
//!                                       <-  Hello{versions, nonce}
//! Identify{version, nonce, proof, …}    ->                  within 3 s, and nothing before it
//!                                       <-  Identified{version, rights, proof}
//!                                       <-  Snapshot{seq}, then Delta{from, seq} …
//! Request{id}                           ->
//!                                       <-  Response{id, status, code}
//! Reidentify{subscriptions}             ->
//!                                       <-  Identified, Snapshot{cause: resubscribed}
//! ```
//!
//! Both proofs are HMAC-SHA-256, keyed with the local token, of [`proven`]: each side shows that it
//! can read the token's file, and neither ever sends the token.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::publish::{Field, Published};
use super::{CommandArgs, pair::Secret};
use crate::{ErrorCode, hex::hex_bytes};

/// The WebSocket subprotocol of this version.
pub const SUBPROTOCOL: &str = "hearth.status.v1";
/// The versions that are spoken under [`SUBPROTOCOL`].
pub const VERSIONS: [u32; 1] = [1];
/// Longest name of a client, in bytes.
pub const NAME_MAX: usize = 64;
/// Longest id of a request, in bytes.
pub const ID_MAX: usize = 128;
/// Longest text of a publisher, in bytes.
pub const TEXT_MAX: usize = 1024;
/// Most subscriptions that may be named at once.
pub const SUBSCRIPTIONS_MAX: usize = 32;

/// Close code: the first message was not `identify`, or it was not understood.
pub const CLOSE_PROTOCOL: u16 = 4007;
/// Close code: `identify` did not come in time.
pub const CLOSE_LATE: u16 = 4008;
/// Close code: the proof is wrong.
pub const CLOSE_UNAUTHORIZED: u16 = 4009;
/// Close code: this version is not spoken here.
pub const CLOSE_VERSION: u16 = 4010;
/// Close code: too many wrong proofs came lately.
pub const CLOSE_RATE_LIMITED: u16 = 4029;

hex_bytes! {
    /// 256 random bits that make a proof good for one connection.
    Nonce, 32, "a nonce is 64 lower-case hexadecimal digits";
    /// An HMAC-SHA-256 over [`proven`].
    Proof, 32, "a proof is 64 lower-case hexadecimal digits";
}

/// Which end of the connection proves something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that connected.
    Client,
    /// The hub.
    Server,
}

/// The text whose HMAC is a [`Proof`]. `port` is the hub's own: a program that sits on another
/// port cannot pass the hub's challenge on as its own.
#[must_use]
pub fn proven(side: Side, version: u32, port: u16, server: Nonce, client: Nonce) -> String {
    let side = match side {
        Side::Client => "client",
        Side::Server => "server",
    };
    format!("{SUBPROTOCOL}\n{side}\n{version}\n{port}\n{server}\n{client}\n")
}

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// See the status.
    Read,
    /// Give commands.
    Command,
    /// Publish fields of its own.
    Publish,
    /// A right of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// The status, as a snapshot and deltas.
    Status,
    /// The figures of each running job, which change with every token.
    Progress,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Status, Self::Progress];
    /// What a client gets that names nothing.
    pub const USUAL: [Self; 1] = [Self::Status];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Progress => "progress",
        }
    }

    /// Those of these words that are known here, each once.
    #[must_use]
    pub fn known(words: &[String]) -> Vec<Self> {
        let is_named = |topic: &Self| words.iter().any(|word| word == topic.as_str());
        Self::ALL.into_iter().filter(is_named).collect()
    }
}

/// Why a snapshot is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It is the first one.
    First,
    /// The client read too slowly; what came in between is left out.
    Behind,
    /// The client subscribed to something else.
    Resubscribed,
    /// A cause of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// Hub to client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HubMessage {
    /// The first message of a connection.
    Hello {
        /// The versions that are spoken.
        versions: Vec<u32>,
        /// The hub's challenge.
        #[cfg_attr(test, ts(type = "string"))]
        nonce: Nonce,
        /// Hearth's version on the hub's side.
        server: String,
        /// How long the hub waits for `identify`.
        identify_within_ms: u64,
    },
    /// The answer to `identify` and `reidentify`.
    Identified {
        /// The version spoken from now on.
        version: u32,
        /// What this connection may do.
        rights: Vec<Right>,
        /// What it is subscribed to; words that are not known here are left out.
        subscriptions: Vec<String>,
        /// That the hub knows the token too; only for who proved it first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "string"))]
        proof: Option<Proof>,
    },
    /// The whole status.
    Snapshot {
        /// The number of this status.
        seq: u64,
        /// Why it is sent.
        cause: Cause,
        /// Every field, as in the legacy mode, but for `seq`.
        #[cfg_attr(test, ts(type = "Omit<Status, \"seq\">"))]
        data: Map<String, Value>,
    },
    /// What became different.
    Delta {
        /// The status this is to be applied to: the one that was sent last.
        from: u64,
        /// The number of the new one.
        seq: u64,
        /// The fields that changed, each whole.
        #[cfg_attr(test, ts(type = "Partial<Omit<Status, \"seq\">>"))]
        data: Map<String, Value>,
    },
    /// How a request ended.
    Response {
        /// The request's own.
        id: String,
        /// The request's own word.
        request: String,
        /// 200, or the HTTP status of `code`.
        status: u16,
        /// Why not, in a stable word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// The same for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// What some requests give.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "unknown"))]
        result: Option<Value>,
        /// What the owner is asked, or was. With the code `approval_required` another response
        /// to the same request follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<String>,
    },
    /// The owner allowed this client for good.
    Granted {
        /// What the owner was asked.
        approval: String,
        /// To be proven from now on, as the local token would be. It is told once.
        #[cfg_attr(test, ts(type = "string"))]
        token: Secret,
    },
    /// A command for a publisher, to be answered with a `response` within 3 s.
    Request {
        /// To be given back.
        id: String,
        /// `stop_tts` or `set_volume`.
        request: String,
        /// What the command needs.
        #[serde(default, skip_serializing_if = "CommandArgs::is_empty")]
        args: CommandArgs,
    },
    /// Another publisher took fields over.
    Taken {
        /// Which.
        fields: Vec<Field>,
        /// Who.
        by: String,
    },
    /// A message that was no request was refused.
    Error {
        /// The HTTP status of `code`.
        status: u16,
        /// Why, in a stable word.
        code: ErrorCode,
        /// The same for a person.
        message: String,
    },
    /// A message of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// Client to hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PeerMessage {
    /// The first message of a client.
    Identify {
        /// One of the hub's versions.
        version: u32,
        /// The client's challenge; a proof needs one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "string"))]
        nonce: Option<Nonce>,
        /// That the client knows the token; without it, it may only read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "string"))]
        proof: Option<Proof>,
        /// What the client calls itself.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// Words of [`Topic`]; [`Topic::USUAL`] if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subscriptions: Option<Vec<String>>,
    },
    /// Changes the subscriptions.
    Reidentify {
        /// Words of [`Topic`].
        subscriptions: Vec<String>,
    },
    /// Asks for something to be done.
    Request {
        /// Given back in the response.
        id: String,
        /// A command's word, or `ping`.
        request: String,
        /// What some commands need.
        #[serde(default, skip_serializing_if = "CommandArgs::is_empty")]
        args: CommandArgs,
    },
    /// Publishes fields of the status; answered like a request.
    Publish {
        /// Given back in the response.
        id: String,
        /// What they are now.
        fields: Published,
        /// Whether to take what another publishes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        takeover: bool,
    },
    /// A publisher's answer to a command.
    Response {
        /// The request's own.
        id: String,
        /// 200, or the HTTP status of what went wrong.
        status: u16,
        /// The same for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A message of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}
