//! `hearth.status.v1`, the versioned mode of the hub on port 6001.
//!
//! A client that requests the subprotocol [`SUBPROTOCOL`] uses it, in JSON text messages:
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
//! Both proofs are HMAC-SHA-256 of [`proven`], keyed with the local token: each side shows that it
//! can read the token's file, and neither ever sends the token.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::publish::{Field, Published};
use super::{CommandArgs, pair::Secret};
use crate::{ErrorCode, hex::hex_bytes};

/// The WebSocket subprotocol of this version.
pub const SUBPROTOCOL: &str = "hearth.status.v1";
/// The versions supported under [`SUBPROTOCOL`].
pub const VERSIONS: [u32; 1] = [1];
/// Maximum length of a client's name, in bytes.
pub const NAME_MAX: usize = 64;
/// Maximum length of a request's id, in bytes.
pub const ID_MAX: usize = 128;
/// Maximum length of a publisher's text, in bytes.
pub const TEXT_MAX: usize = 1024;
/// Maximum number of subscriptions in one message.
pub const SUBSCRIPTIONS_MAX: usize = 32;

/// Close code: the first message was not a valid `identify`.
pub const CLOSE_PROTOCOL: u16 = 4007;
/// Close code: `identify` did not arrive in time.
pub const CLOSE_LATE: u16 = 4008;
/// Close code: the proof is wrong.
pub const CLOSE_UNAUTHORIZED: u16 = 4009;
/// Close code: the version is not supported.
pub const CLOSE_VERSION: u16 = 4010;
/// Close code: too many wrong proofs were sent recently.
pub const CLOSE_RATE_LIMITED: u16 = 4029;

hex_bytes! {
    /// 256 random bits that make a proof valid for one connection only.
    Nonce, 32, "a nonce must have 64 lower-case hexadecimal digits";
    /// An HMAC-SHA-256 over [`proven`].
    Proof, 32, "a proof must have 64 lower-case hexadecimal digits";
}

/// The side of the connection that makes a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that connected.
    Client,
    /// The hub.
    Server,
}

/// Returns the text whose HMAC is a [`Proof`]. `port` is the hub's own port, so that a program on
/// another port cannot pass on the hub's challenge as its own.
#[must_use]
pub fn proven(side: Side, version: u32, port: u16, server: Nonce, client: Nonce) -> String {
    let side = match side {
        Side::Client => "client",
        Side::Server => "server",
    };
    format!("{SUBPROTOCOL}\n{side}\n{version}\n{port}\n{server}\n{client}\n")
}

/// A permission of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// May read the status.
    Read,
    /// May send commands.
    Command,
    /// May publish fields of the status.
    Publish,
    /// A right of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// A subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// The status, as a snapshot and deltas.
    Status,
    /// The figures of each running job, which change with every token.
    Progress,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 2] = [Self::Status, Self::Progress];
    /// Topics of a client that names none.
    pub const USUAL: [Self; 1] = [Self::Status];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Progress => "progress",
        }
    }

    /// Returns the known topics among these names, each once.
    #[must_use]
    pub fn known(words: &[String]) -> Vec<Self> {
        let is_named = |topic: &Self| words.iter().any(|word| word == topic.as_str());
        Self::ALL.into_iter().filter(is_named).collect()
    }
}

/// Reason why a snapshot is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The first snapshot of the connection.
    First,
    /// The client read too slowly, and the changes in between were skipped.
    Behind,
    /// The client changed its subscriptions.
    Resubscribed,
    /// A cause of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// A message from the hub to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HubMessage {
    /// The first message of a connection.
    Hello {
        /// Supported versions.
        versions: Vec<u32>,
        /// Challenge of the hub.
        #[cfg_attr(test, ts(type = "string"))]
        nonce: Nonce,
        /// Version of Hearth on the hub's side.
        server: String,
        /// Time within which `identify` must arrive, in milliseconds.
        identify_within_ms: u64,
    },
    /// The answer to `identify` and `reidentify`.
    Identified {
        /// Version used from now on.
        version: u32,
        /// Permissions of this connection.
        rights: Vec<Right>,
        /// Its subscriptions, without unknown names.
        subscriptions: Vec<String>,
        /// Proof that the hub knows the token, too; only for a client that proved it first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "string"))]
        proof: Option<Proof>,
    },
    /// The complete status.
    Snapshot {
        /// Sequence number of this status.
        seq: u64,
        /// Reason why it is sent.
        cause: Cause,
        /// All fields, as in the legacy mode, except `seq`.
        #[cfg_attr(test, ts(type = "Omit<Status, \"seq\">"))]
        data: Map<String, Value>,
    },
    /// The changes of the status.
    Delta {
        /// Sequence number of the status to apply this to: the one sent last.
        from: u64,
        /// Sequence number of the new status.
        seq: u64,
        /// The changed fields, each complete.
        #[cfg_attr(test, ts(type = "Partial<Omit<Status, \"seq\">>"))]
        data: Map<String, Value>,
    },
    /// The result of a request.
    Response {
        /// Identifier of the request.
        id: String,
        /// Name of the request.
        request: String,
        /// 200, or the HTTP status of `code`.
        status: u16,
        /// Error code, if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// Error message for humans.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Result, if the request has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "unknown"))]
        result: Option<Value>,
        /// Identifier of the question to the owner. After the code `approval_required`, another
        /// response to the same request follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<String>,
    },
    /// The owner allowed this client permanently.
    Granted {
        /// Identifier of the question to the owner.
        approval: String,
        /// Token to be proven from now on, in place of the local token. Sent only once.
        #[cfg_attr(test, ts(type = "string"))]
        token: Secret,
    },
    /// A command for a publisher, to be answered with a `response` within 3 s.
    Request {
        /// To be returned in the response.
        id: String,
        /// `stop_tts` or `set_volume`.
        request: String,
        /// Arguments of the command.
        #[serde(default, skip_serializing_if = "CommandArgs::is_empty")]
        args: CommandArgs,
    },
    /// Another publisher took over fields.
    Taken {
        /// The fields.
        fields: Vec<Field>,
        /// Name of the other publisher.
        by: String,
    },
    /// A message that is not a request was refused.
    Error {
        /// The HTTP status of `code`.
        status: u16,
        /// Error code.
        code: ErrorCode,
        /// Error message for humans.
        message: String,
    },
    /// A message of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// A message from a client to the hub.
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
        /// Challenge of the client; required for a proof.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "string"))]
        nonce: Option<Nonce>,
        /// Proof that the client knows the token; without it, the client may only read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "string"))]
        proof: Option<Proof>,
        /// Name of the client.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// Names of [`Topic`]s; [`Topic::USUAL`] if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subscriptions: Option<Vec<String>>,
    },
    /// Changes the subscriptions.
    Reidentify {
        /// Names of [`Topic`]s.
        subscriptions: Vec<String>,
    },
    /// Requests a command.
    Request {
        /// Returned in the response.
        id: String,
        /// Name of a command, or `ping`.
        request: String,
        /// Arguments, if the command needs any.
        #[serde(default, skip_serializing_if = "CommandArgs::is_empty")]
        args: CommandArgs,
    },
    /// Publishes fields of the status; answered like a request.
    Publish {
        /// Returned in the response.
        id: String,
        /// The new values.
        fields: Published,
        /// Whether to take over fields that another program publishes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        takeover: bool,
    },
    /// A publisher's answer to a command.
    Response {
        /// Identifier of the request.
        id: String,
        /// 200, or an HTTP error status.
        status: u16,
        /// Error message for humans.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A message of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}
