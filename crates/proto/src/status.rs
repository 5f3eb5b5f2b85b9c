//! The messages of the status hub on port 6001, which extend the founding overlay's protocol.
//!
//! The seven fields of the founding protocol keep their names, types and order; new fields are
//! added beside them. They never contain a prompt or an answer.

mod command;
pub mod pair;
mod publish;
pub mod v1;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::command::{Command, CommandArgs};

use crate::{ErrorCode, JobId, ModelName, Op, Timestamp};

/// A message from the hub to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerMessage {
    /// The complete status; clients never need to merge.
    Status {
        /// The snapshot.
        data: Status,
    },
    /// A command was executed.
    Ack {
        /// Name of the command.
        command: String,
        /// The client's `id`, if it sent one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Result of the command `ping`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "unknown"))]
        result: Option<Value>,
    },
    /// A message or a command was refused.
    Error {
        /// Stable code.
        code: ErrorCode,
        /// Message for humans.
        message: String,
        /// Name of the command, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// The client's `id`, if it sent one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Identifier of the question to the owner, if approval is needed; the outcome follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<String>,
    },
    /// The owner allowed this client permanently.
    Granted {
        /// Identifier of the question to the owner.
        approval: String,
        /// Token to be used from now on, in place of the local token. Sent only once.
        #[cfg_attr(test, ts(type = "string"))]
        token: pair::Secret,
    },
    /// The answer to `ping`.
    Pong,
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
pub enum ClientMessage {
    /// Asks the agent to do something.
    Command {
        /// Name of a [`Command`].
        command: String,
        /// Returned in the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Arguments, if the command needs any: `{"on":true}`, `{"job":"…"}`.
        #[serde(default, skip_serializing_if = "CommandArgs::is_empty")]
        args: CommandArgs,
        /// Name of the client; shown to the owner when approval is needed.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
    },
    /// Asks for a `pong`.
    Ping,
    /// A message of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// Overall state of the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Starting; nothing is confirmed yet.
    #[default]
    Starting,
    /// Relay and engine are both confirmed; waiting for jobs.
    Ready,
    /// At least one job is running.
    Working,
    /// A voice assistant is recording a command.
    Listening,
    /// Speech is being output.
    Speaking,
    /// Paused by the owner.
    Paused,
    /// Connecting to the relay.
    Connecting,
    /// The relay is unreachable.
    RelayOffline,
    /// The engine is unreachable.
    EngineOffline,
    /// Something needs the owner's attention.
    Error,
    /// Stopping.
    Stopping,
}

impl Phase {
    /// The name used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Working => "working",
            Self::Listening => "listening",
            Self::Speaking => "speaking",
            Self::Paused => "paused",
            Self::Connecting => "connecting",
            Self::RelayOffline => "relay_offline",
            Self::EngineOffline => "engine_offline",
            Self::Error => "error",
            Self::Stopping => "stopping",
        }
    }
}

/// State of one hop: confirmed, unknown, or broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum HopState {
    /// Not known yet.
    #[default]
    Unknown,
    /// The last exchange succeeded.
    Up,
    /// The last exchange failed.
    Down,
}

/// One hop between requester and model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Hop {
    /// State of the hop.
    pub state: HopState,
    /// Address or name, without secrets.
    pub name: String,
    /// The problem in one sentence; empty while the hop is up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// Carrier of the agent's connection to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum CarrierKind {
    /// One WebSocket.
    Websocket,
    /// Long polls: HTTP requests held open by the relay.
    LongPoll,
    /// Plain HTTP requests at an interval.
    Poll,
}

impl CarrierKind {
    /// The name used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::LongPoll => "long_poll",
            Self::Poll => "poll",
        }
    }
}

/// A running job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LiveJob {
    /// Identifier.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: JobId,
    /// Name of the key that submitted it.
    pub who: String,
    /// Model.
    #[cfg_attr(test, ts(type = "string"))]
    pub model: ModelName,
    /// Operation.
    pub op: Op,
    /// Time at which this machine started it.
    #[cfg_attr(test, ts(type = "number"))]
    pub started_at: Timestamp,
    /// Number of tokens (log lines) so far; 0 for clients that chose not to receive progress.
    #[serde(default)]
    pub tokens: u64,
    /// Tokens per second since the first token; 0 before it.
    #[serde(default)]
    pub tokens_per_second: f32,
}

/// A snapshot of the agent's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Status {
    /// Overall state.
    pub status: Phase,
    /// The state as text in the owner's language.
    pub text: String,
    /// Whether a voice command is being recorded.
    pub is_listening: bool,
    /// Whether speech is being output.
    pub is_speaking: bool,
    /// Whether the wake word was detected.
    pub wake_word_detected: bool,
    /// Whether the owner wants the overlay shown.
    pub overlay_visible: bool,
    /// `false` exactly while paused.
    pub monitoring: bool,
    /// The running jobs.
    #[serde(default)]
    pub jobs: Vec<LiveJob>,
    /// The hop to the relay.
    #[serde(default)]
    pub relay: Hop,
    /// The hop to the engine.
    #[serde(default)]
    pub engine: Hop,
    /// Carrier of the connection to the relay, while there is one.
    #[serde(default)]
    pub carrier: Option<CarrierKind>,
    /// Other programs, and the fields each of them publishes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publishers: Vec<Publisher>,
    /// Sequence number; rises with each change.
    #[serde(default)]
    pub seq: u64,
}

/// Another local program that publishes fields of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Publisher {
    /// Name of the program, as it reported it.
    pub name: String,
    /// Fields that it publishes now.
    pub fields: Vec<String>,
    /// Address it is read from, if it did not connect to the hub itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Whether it has been silent for a while and did not answer a ping, so that its fields may be
    /// wrong.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            status: Phase::Starting,
            text: String::new(),
            is_listening: false,
            is_speaking: false,
            wake_word_detected: false,
            overlay_visible: true,
            monitoring: true,
            jobs: Vec::new(),
            relay: Hop::default(),
            engine: Hop::default(),
            carrier: None,
            publishers: Vec::new(),
            seq: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fixture is the contract: the pages' tests read the same file.
    #[test]
    fn status_matches_its_fixture() {
        let json = include_str!("../fixtures/status.json");
        let message = serde_json::from_str::<ServerMessage>(json).unwrap();
        let again = serde_json::to_value(&message).unwrap();
        assert_eq!(
            again,
            serde_json::from_str::<serde_json::Value>(json).unwrap()
        );
    }

    #[test]
    fn the_founding_seven_fields_are_enough_to_read_a_status() {
        let json = r#"{"type":"status","data":{"status":"ready","text":"Assistant ready",
            "is_listening":false,"is_speaking":false,"wake_word_detected":false,
            "overlay_visible":true,"monitoring":true}}"#;
        let ServerMessage::Status { data } = serde_json::from_str(json).unwrap() else {
            panic!("not a status");
        };
        assert_eq!(data.status, Phase::Ready);
        assert!(data.jobs.is_empty());
    }

    #[test]
    fn the_founding_command_is_read_and_a_later_message_is_no_failure() {
        let json = r#"{"type":"command","command":"toggle_monitoring"}"#;
        let ClientMessage::Command {
            command,
            args,
            id: None,
            ..
        } = serde_json::from_str(json).unwrap()
        else {
            panic!("not a command");
        };
        assert_eq!(
            Command::parse(&command, &args),
            Ok(Command::ToggleMonitoring)
        );
        let later = serde_json::from_str::<ClientMessage>(r#"{"type":"dance","x":1}"#).unwrap();
        assert_eq!(later, ClientMessage::Unknown);
    }

    #[test]
    fn states_and_carriers_are_named_as_on_the_wire() {
        for phase in [
            Phase::Starting,
            Phase::Ready,
            Phase::Working,
            Phase::Listening,
            Phase::Speaking,
            Phase::Paused,
            Phase::Connecting,
            Phase::RelayOffline,
            Phase::EngineOffline,
            Phase::Error,
            Phase::Stopping,
        ] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
        for carrier in [
            CarrierKind::Websocket,
            CarrierKind::LongPoll,
            CarrierKind::Poll,
        ] {
            assert_eq!(serde_json::to_value(carrier).unwrap(), carrier.as_str());
        }
    }
}
