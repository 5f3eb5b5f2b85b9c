//! The agent: the whole desktop program except its user interface.

mod agent;
mod args;
mod at_login;
mod file;
mod fixed;
mod folders;
mod handle;
mod headless;
mod host_name;
mod http;
mod language;
mod opening;
mod origin;
mod preferences;
mod question;
mod relay;
mod settings;
mod shell;
mod start;
mod tasks;
mod times;
mod tray;
mod view;
#[cfg(target_os = "linux")]
mod waking;

pub use agent::Agent;
pub use args::Args;
pub use at_login::AtLogin;
pub use folders::{Folders, NoFolders};
pub use handle::AgentHandle;
pub use headless::Headless;
pub use language::Language;
pub use origin::Origin;
pub use preferences::Preferences;
pub use question::{Question, questions};
pub use relay::Relay;
pub use settings::{HTTP_PORTS, Settings, SettingsError};
pub use shell::{Shell, Tray, TrayAct, TrayIcon, TrayItem};
pub use start::StartError;
pub use status::Consent;
