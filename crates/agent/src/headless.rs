use proto::status::Phase;

use crate::{Shell, Tray, TrayAct, TrayItem};

/// The shell of `hearth agent`: without a desktop, the log shows the agent's state. It contains
/// nothing that other programs publish, and no requester.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headless {
    phase: Option<Phase>,
    /// The number of the last approval that was logged.
    asked: u64,
}

impl Shell for Headless {
    fn set_tray(&mut self, tray: Tray) {
        if self.phase.replace(tray.phase) != Some(tray.phase) {
            tracing::info!(phase = tray.phase.as_str(), "the status changed");
        }
        let asked = tray.items.iter().filter_map(asks).max();
        if let Some(approval) = asked.filter(|asked| *asked > self.asked) {
            self.asked = approval;
            tracing::info!(
                approval,
                "a program asks for approval of a command; see `hearth pair list`"
            );
        }
    }

    fn show_overlay(&mut self, _visible: bool) {}

    fn has_window(&self) -> bool {
        false
    }

    fn open_window(&mut self) {}

    fn open_settings(&mut self) {}

    fn set_autostart(&mut self, _on: bool) -> Result<(), String> {
        Err("this agent has no desktop to start at login; start `hearth agent` with a system service".to_owned())
    }

    fn autostart(&self) -> bool {
        false
    }

    fn quit(&mut self) {}
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of all that stands in a tray only this is a question"
)]
fn asks(item: &TrayItem) -> Option<u64> {
    match item {
        TrayItem::Action {
            act: TrayAct::Deny { approval },
            ..
        } => Some(*approval),
        _ => None,
    }
}
