//! What the agent asks of whatever draws it, and the tray as plain data.

use proto::status::{Command, Phase};

/// The only door between the agent and a desktop. Every call returns at once; a desktop that
/// must wait for its own loop queues the call.
pub trait Shell: Send + 'static {
    /// Draws the tray anew.
    fn set_tray(&mut self, tray: Tray);
    /// Shows or hides the overlay window; never gives it the focus.
    fn show_overlay(&mut self, visible: bool);
    /// Whether there is a window to open.
    fn has_window(&self) -> bool {
        true
    }
    /// Opens the main window, or brings it to the front.
    fn open_window(&mut self);
    /// Starts the app at login, or no longer.
    ///
    /// # Errors
    /// What went wrong, for the owner.
    fn set_autostart(&mut self, on: bool) -> Result<(), String>;
    /// Whether the app starts at login.
    fn autostart(&self) -> bool;
    /// Tells the owner why a click of his, outside of any window, was refused.
    fn refuse(&mut self, _problem: &str) {}
    /// Ends the program; the agent has stopped already.
    fn quit(&mut self);
}

/// The tray, ready to be painted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tray {
    /// Which picture.
    pub icon: TrayIcon,
    /// What is going on, in a word of Hearth's own: the rest may hold words of other programs.
    pub phase: Phase,
    /// One line: what is going on.
    pub tooltip: String,
    /// From top to bottom.
    pub items: Vec<TrayItem>,
}

/// The tray's pictures; each has a shape of its own, so that colour is never all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrayIcon {
    /// Confirmed end to end, nothing to do.
    Ready,
    /// A job is running.
    Working,
    /// The owner paused it.
    Paused,
    /// Nothing confirmed yet.
    Connecting,
    /// A hop is broken.
    Offline,
}

/// One line of the tray's menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrayItem {
    /// Text that cannot be clicked.
    Line(String),
    /// A thin rule.
    Separator,
    /// Something to click.
    Action {
        /// What it does.
        act: TrayAct,
        /// What it says.
        label: String,
    },
    /// Something to switch on and off.
    Check {
        /// What it does.
        act: TrayAct,
        /// What it says.
        label: String,
        /// Whether it is on.
        checked: bool,
    },
}

/// What a click in the tray does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrayAct {
    /// The same as the command on the hub.
    Command(Command),
    /// Switches starting at login.
    ToggleAutostart,
    /// Lets the program that waits under this number give its command.
    Approve {
        /// Its number.
        approval: u64,
        /// For good.
        always: bool,
    },
    /// Refuses the program that waits under this number.
    Deny {
        /// Its number.
        approval: u64,
    },
}
