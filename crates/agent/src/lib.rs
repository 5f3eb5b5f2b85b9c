//! The whole desktop program without a desktop.

mod shell;

pub use shell::{Shell, Tray, TrayAct, TrayIcon, TrayItem};
