//! The interface between the agent and a desktop, with the tray as plain data.

use proto::status::{Command, Phase};
use status::Consent;

/// The desktop as the agent sees it. Every call returns at once; an implementation with an event
/// loop queues the call.
pub trait Shell: Send + 'static {
    /// Replaces the tray.
    fn set_tray(&mut self, tray: Tray);
    /// Shows or hides the overlay window; never focuses it.
    fn show_overlay(&mut self, visible: bool);
    /// Whether there is a main window.
    fn has_window(&self) -> bool {
        true
    }
    /// Opens the main window, or brings it to the front.
    fn open_window(&mut self);
    /// Opens the main window, or brings it to the front, and goes to its settings.
    fn open_settings(&mut self);
    /// Enables or disables the start at login.
    ///
    /// # Errors
    /// What went wrong, for the owner.
    fn set_autostart(&mut self, on: bool) -> Result<(), String>;
    /// Whether the app starts at login.
    fn autostart(&self) -> bool;
    /// Tells the owner why a click outside of any window was refused.
    fn refuse(&mut self, _problem: &str) {}
    /// Ends the program; the agent has stopped already.
    fn quit(&mut self);
}

/// The content of the tray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tray {
    /// The icon.
    pub icon: TrayIcon,
    /// The phase alone, without text of other programs.
    pub phase: Phase,
    /// One line with the current state.
    pub tooltip: String,
    /// The menu items, from top to bottom.
    pub items: Vec<TrayItem>,
}

/// The tray icons. Each has its own shape, so that none depends on colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrayIcon {
    /// Everything is confirmed, and no job is running.
    Ready,
    /// A job is running.
    Working,
    /// The owner paused the agent.
    Paused,
    /// Nothing is confirmed yet.
    Connecting,
    /// The relay or the engine is down.
    Offline,
}

/// One item of the tray's menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrayItem {
    /// Text that cannot be clicked.
    Line(String),
    /// A separator.
    Separator,
    /// A clickable item.
    Action {
        /// The action of a click.
        act: TrayAct,
        /// The label.
        label: String,
    },
    /// A check box.
    Check {
        /// The action of a click.
        act: TrayAct,
        /// The label.
        label: String,
        /// Whether it is checked.
        checked: bool,
    },
}

/// The action of a click in the tray.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrayAct {
    /// A command, as on the hub.
    Command(Command),
    /// Opens the main window.
    OpenWindow,
    /// Toggles the start at login.
    ToggleAutostart,
    /// Approves the pending command of a program.
    Approve {
        /// The number of the approval.
        approval: u64,
        /// For how long.
        consent: Consent,
    },
    /// Denies the pending command of a program.
    Deny {
        /// The number of the approval.
        approval: u64,
    },
}
