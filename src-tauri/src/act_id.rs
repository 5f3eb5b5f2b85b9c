//! Ids of menu items. An id encodes the action, so that a click counts as what the item showed,
//! even if the menu was redrawn meanwhile.

use agent::{Consent, TrayAct};
use proto::status::{Command, CommandArgs};

const AUTOSTART: &str = "autostart";
const WINDOW: &str = "open_window";
const ONCE: &str = "approve_once";
const ALWAYS: &str = "approve_always";
const DENY: &str = "deny";

/// The id of an item with this action.
pub(crate) fn of(act: TrayAct) -> String {
    match act {
        TrayAct::OpenWindow => WINDOW.to_owned(),
        TrayAct::ToggleAutostart => AUTOSTART.to_owned(),
        TrayAct::Approve { approval, consent } => {
            let word = match consent {
                Consent::Once => ONCE,
                Consent::Always => ALWAYS,
            };
            format!("{word} {approval}")
        }
        TrayAct::Deny { approval } => format!("{DENY} {approval}"),
        TrayAct::Command(Command::SetMonitoring(on)) => format!("set_monitoring {on}"),
        TrayAct::Command(Command::CancelJob(job)) => format!("cancel_job {job}"),
        TrayAct::Command(Command::SetVolume(volume)) => format!("set_volume {volume}"),
        TrayAct::Command(command) => command.as_str().to_owned(),
    }
}

/// The action of an item with this id; `None` for a line of text.
pub(crate) fn act(id: &str) -> Option<TrayAct> {
    match id {
        AUTOSTART => return Some(TrayAct::ToggleAutostart),
        WINDOW => return Some(TrayAct::OpenWindow),
        _ => {}
    }
    let (word, argument) = id.split_once(' ').unwrap_or((id, ""));
    let number = argument.parse().ok();
    let approve = |approval, consent| Some(TrayAct::Approve { approval, consent });
    match (word, number) {
        (ONCE, Some(approval)) => return approve(approval, Consent::Once),
        (ALWAYS, Some(approval)) => return approve(approval, Consent::Always),
        (DENY, Some(approval)) => return Some(TrayAct::Deny { approval }),
        _ => {}
    }
    let args = CommandArgs {
        on: argument.parse().ok(),
        job: argument.parse().ok(),
        volume: argument.parse().ok(),
        ..CommandArgs::default()
    };
    Command::parse(word, &args).ok().map(TrayAct::Command)
}

#[cfg(test)]
mod tests {
    use proto::JobId;

    use super::*;

    #[test]
    fn every_act_is_found_again_by_its_name() {
        for command in [
            Command::ToggleMonitoring,
            Command::SetMonitoring(true),
            Command::SetMonitoring(false),
            Command::StopTts,
            Command::SetVolume(30),
            Command::ShowOverlay,
            Command::HideOverlay,
            Command::ToggleOverlay,
            Command::CancelJob(JobId([0xab; 16])),
            Command::OpenSettings,
            Command::Quit,
        ] {
            let wanted = TrayAct::Command(command);
            assert_eq!(act(&of(wanted)), Some(wanted));
        }
        let approval = u64::MAX;
        for wanted in [
            TrayAct::OpenWindow,
            TrayAct::ToggleAutostart,
            TrayAct::Approve {
                approval,
                consent: Consent::Always,
            },
            TrayAct::Approve {
                approval,
                consent: Consent::Once,
            },
            TrayAct::Deny { approval },
        ] {
            assert_eq!(act(&of(wanted)), Some(wanted));
        }
        for nothing in [
            "",
            "deny",
            "deny x",
            "approve_always",
            "line 0",
            "set_monitoring",
            "cancel_job x",
            "dance",
        ] {
            assert_eq!(act(nothing), None, "{nothing}");
        }
    }
}
