//! What the status hub on port 6001 says and hears, after the founding overlay's protocol.
//!
//! The seven fields of the founding protocol keep their names, types and place; what is new
//! stands beside them. Neither a prompt nor an answer is ever among them.

pub mod pair;
mod publish;
pub mod v1;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ErrorCode, JobId, ModelName, Op, Timestamp};

/// Hub to client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerMessage {
    /// The whole state; a client never has to merge.
    Status {
        /// The snapshot.
        data: Status,
    },
    /// A command was carried out.
    Ack {
        /// The command's own word.
        command: String,
        /// The client's `id`, if it sent one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What the command `ping` gives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "unknown"))]
        result: Option<Value>,
    },
    /// A message or a command was refused.
    Error {
        /// Stable code.
        code: ErrorCode,
        /// For a person.
        message: String,
        /// The command's own word, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// The client's `id`, if it sent one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What the owner is asked, if that is why; the outcome follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<String>,
    },
    /// The owner allowed this client for good.
    Granted {
        /// What the owner was asked.
        approval: String,
        /// To be shown from now on, as the local token would be. It is told once.
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

/// Client to hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientMessage {
    /// Asks the agent to do something.
    Command {
        /// One of [`Command`]'s words.
        command: String,
        /// Given back in the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What some commands need: `{"on":true}`, `{"job":"…"}`.
        #[serde(default, skip_serializing_if = "CommandArgs::is_empty")]
        args: CommandArgs,
        /// What the client calls itself; shown to the owner when he is asked.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
    },
    /// Asks whether anybody is there.
    Ping,
    /// A message of a later version.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(test, ts(skip))]
    Unknown,
}

/// Arguments of a command; each command says which it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct CommandArgs {
    /// For `set_monitoring`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
    /// For `cancel_job`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "string"))]
    pub job: Option<JobId>,
    /// For `set_volume`: 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<i64>,
    /// For `approve` and `deny`: what the owner is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// For `approve`: whether it holds for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always: Option<bool>,
    /// For `revoke`: whose leave ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
}

impl CommandArgs {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What an overlay, the tray or a script may ask of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Pauses or resumes taking work.
    ToggleMonitoring,
    /// Resumes (`true`) or pauses (`false`) taking work.
    SetMonitoring(bool),
    /// Stops whoever speaks.
    StopTts,
    /// How loud whoever speaks is to be, from 0 to 100.
    SetVolume(u8),
    /// Shows the overlay.
    ShowOverlay,
    /// Hides the overlay.
    HideOverlay,
    /// Shows or hides the overlay.
    ToggleOverlay,
    /// Ends one running job.
    CancelJob(JobId),
    /// Opens the main window.
    OpenSettings,
    /// Ends the agent.
    Quit,
}

impl Command {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToggleMonitoring => "toggle_monitoring",
            Self::SetMonitoring(_) => "set_monitoring",
            Self::StopTts => "stop_tts",
            Self::SetVolume(_) => "set_volume",
            Self::ShowOverlay => "show_overlay",
            Self::HideOverlay => "hide_overlay",
            Self::ToggleOverlay => "toggle_overlay",
            Self::CancelJob(_) => "cancel_job",
            Self::OpenSettings => "open_settings",
            Self::Quit => "quit",
        }
    }

    /// Its arguments on the wire.
    #[must_use]
    pub fn args(self) -> CommandArgs {
        let none = CommandArgs::default();
        match self {
            Self::SetMonitoring(on) => CommandArgs {
                on: Some(on),
                ..none
            },
            Self::CancelJob(job) => CommandArgs {
                job: Some(job),
                ..none
            },
            Self::SetVolume(volume) => CommandArgs {
                volume: Some(volume.into()),
                ..none
            },
            Self::ToggleMonitoring
            | Self::StopTts
            | Self::ShowOverlay
            | Self::HideOverlay
            | Self::ToggleOverlay
            | Self::OpenSettings
            | Self::Quit => none,
        }
    }

    /// Reads a command message's word and arguments.
    ///
    /// # Errors
    /// `unknown_command` for a word not listed here, `bad_request` for a missing argument or one out of bounds.
    pub fn parse(word: &str, args: &CommandArgs) -> Result<Self, (ErrorCode, String)> {
        let missing = |what: &str| (ErrorCode::BadRequest, format!("{word} needs args.{what}"));
        Ok(match word {
            "toggle_monitoring" => Self::ToggleMonitoring,
            "set_monitoring" => Self::SetMonitoring(args.on.ok_or_else(|| missing("on"))?),
            "stop_tts" => Self::StopTts,
            "set_volume" => {
                let volume = args.volume.ok_or_else(|| missing("volume"))?;
                Self::SetVolume(percent(volume)?)
            }
            "show_overlay" => Self::ShowOverlay,
            "hide_overlay" => Self::HideOverlay,
            "toggle_overlay" => Self::ToggleOverlay,
            "cancel_job" => Self::CancelJob(args.job.ok_or_else(|| missing("job"))?),
            "open_settings" => Self::OpenSettings,
            "quit" => Self::Quit,
            _ => {
                return Err((
                    ErrorCode::UnknownCommand,
                    format!("no command is called {word:?}"),
                ));
            }
        })
    }
}

fn percent(volume: i64) -> Result<u8, (ErrorCode, String)> {
    let percent = u8::try_from(volume).ok().filter(|volume| *volume <= 100);
    percent.ok_or_else(|| {
        let message = format!("args.volume is 0 to 100, not {volume}");
        (ErrorCode::BadRequest, message)
    })
}

/// The one word that says how the agent is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Coming up; nothing has been confirmed yet.
    #[default]
    Starting,
    /// Relay and engine were both confirmed; waiting for work.
    Ready,
    /// At least one job is running.
    Working,
    /// A voice assistant is recording a command.
    Listening,
    /// Somebody is speaking.
    Speaking,
    /// The owner paused it.
    Paused,
    /// The link to the relay is being made.
    Connecting,
    /// The relay cannot be reached.
    RelayOffline,
    /// The engine cannot be reached.
    EngineOffline,
    /// Something needs the owner.
    Error,
    /// Going down.
    Stopping,
}

/// How one hop is: confirmed, not yet known, or broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum HopState {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// The last exchange with it succeeded.
    Up,
    /// The last exchange with it failed.
    Down,
}

/// One hop between requester and model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Hop {
    /// Whether it was confirmed.
    pub state: HopState,
    /// Its address or name, without secrets.
    pub name: String,
    /// What is wrong, in a sentence; empty while it is up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// How the agent talks to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum CarrierKind {
    /// One WebSocket.
    Websocket,
    /// Held HTTP requests.
    LongPoll,
    /// Plain HTTP requests at an interval.
    Poll,
}

/// A job that is running now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LiveJob {
    /// The job.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: JobId,
    /// The name of the key that asked.
    pub who: String,
    /// The model.
    #[cfg_attr(test, ts(type = "string"))]
    pub model: ModelName,
    /// The operation.
    pub op: Op,
    /// When this machine began with it.
    #[cfg_attr(test, ts(type = "number"))]
    pub started_at: Timestamp,
    /// Tokens (log lines) so far; 0 where a client chose not to be told.
    #[serde(default)]
    pub tokens: u64,
    /// Tokens per second since the first token; 0 before it.
    #[serde(default)]
    pub tokens_per_second: f32,
}

/// One snapshot of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Status {
    /// How the agent is.
    pub status: Phase,
    /// The same in the owner's language.
    pub text: String,
    /// A command is being recorded.
    pub is_listening: bool,
    /// Somebody is speaking.
    pub is_speaking: bool,
    /// The wake word was heard.
    pub wake_word_detected: bool,
    /// The owner wants the overlay shown.
    pub overlay_visible: bool,
    /// `false` exactly while paused.
    pub monitoring: bool,
    /// What is running now.
    #[serde(default)]
    pub jobs: Vec<LiveJob>,
    /// The hop to the relay.
    #[serde(default)]
    pub relay: Hop,
    /// The hop to the engine.
    #[serde(default)]
    pub engine: Hop,
    /// How the agent talks to the relay, while it does.
    #[serde(default)]
    pub carrier: Option<CarrierKind>,
    /// Other programs, and which of these fields are theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publishers: Vec<Publisher>,
    /// Rises with each change.
    #[serde(default)]
    pub seq: u64,
}

/// Another local program that publishes fields of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Publisher {
    /// What it calls itself.
    pub name: String,
    /// The fields that are its own now.
    pub fields: Vec<String>,
    /// Where it is read from, if it did not come to the hub itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Nothing was heard of it for a while, not even an answer to a ping: its fields may be wrong.
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
    fn every_command_is_parsed_from_its_own_word() {
        let job = JobId([1; 16]);
        for command in [
            Command::ToggleMonitoring,
            Command::SetMonitoring(true),
            Command::StopTts,
            Command::SetVolume(0),
            Command::SetVolume(100),
            Command::ShowOverlay,
            Command::HideOverlay,
            Command::ToggleOverlay,
            Command::CancelJob(job),
            Command::OpenSettings,
            Command::Quit,
        ] {
            let parsed = Command::parse(command.as_str(), &command.args());
            assert_eq!(parsed, Ok(command));
        }
        for volume in [-1, 101, 256, i64::MAX] {
            let args = CommandArgs {
                volume: Some(volume),
                ..CommandArgs::default()
            };
            let (code, _) = Command::parse("set_volume", &args).unwrap_err();
            assert_eq!(code, ErrorCode::BadRequest, "{volume}");
        }
        let (code, message) = Command::parse("cancel_job", &CommandArgs::default()).unwrap_err();
        assert_eq!(code, ErrorCode::BadRequest);
        assert!(message.contains("args.job"), "{message}");
    }
}
