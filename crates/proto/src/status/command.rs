//! The commands of the status hub.

use serde::{Deserialize, Serialize};

use crate::{ErrorCode, JobId};

/// Arguments of a command; each command documents which it needs.
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
    /// For `approve` and `deny`: identifier of the question to the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// For `approve`: whether the approval is permanent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always: Option<bool>,
    /// For `revoke`: identifier of the permission to revoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
}

impl CommandArgs {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A command that an overlay, the tray or a script may send to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Pauses or resumes taking jobs.
    ToggleMonitoring,
    /// Resumes (`true`) or pauses (`false`) taking jobs.
    SetMonitoring(bool),
    /// Stops speech output.
    StopTts,
    /// Sets the volume of speech output, 0 to 100.
    SetVolume(u8),
    /// Shows the overlay.
    ShowOverlay,
    /// Hides the overlay.
    HideOverlay,
    /// Shows or hides the overlay.
    ToggleOverlay,
    /// Cancels one running job.
    CancelJob(JobId),
    /// Opens the main window at its settings.
    OpenSettings,
    /// Stops the agent.
    Quit,
}

impl Command {
    /// The name on the wire.
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

    /// The arguments on the wire.
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

    /// Parses the name and the arguments of a command.
    ///
    /// # Errors
    /// `unknown_command` for an unknown name, `bad_request` for a missing argument or one out of
    /// range.
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
                    format!("unknown command {word:?}"),
                ));
            }
        })
    }
}

fn percent(volume: i64) -> Result<u8, (ErrorCode, String)> {
    let percent = u8::try_from(volume).ok().filter(|volume| *volume <= 100);
    percent.ok_or_else(|| {
        let message = format!("args.volume must be 0 to 100, not {volume}");
        (ErrorCode::BadRequest, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
