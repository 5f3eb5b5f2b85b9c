//! What the pages may ask for. Each command is a mailbox: it hands the wish on and answers.

use proto::status::{Command, CommandArgs};
use tauri::State;

use crate::{
    shell::TauriShell,
    view::{View, Views},
};

/// The view of this moment.
#[tauri::command]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a command is handed its state by value"
)]
pub(crate) fn snapshot(views: State<'_, Views>) -> View {
    views.latest()
}

/// Any command of the hub's protocol, in its own words.
#[tauri::command]
pub(crate) async fn act(
    shell: State<'_, TauriShell>,
    command: String,
    args: CommandArgs,
) -> Result<(), String> {
    let command = Command::parse(&command, &args).map_err(|(_, message)| message)?;
    agent(&shell)?
        .command(command)
        .await
        .map_err(|(_, message)| message)
}

/// Starts the app at login, or no longer; says why if that did not come about.
#[tauri::command]
pub(crate) async fn set_autostart(shell: State<'_, TauriShell>, on: bool) -> Result<(), String> {
    agent(&shell)?.set_autostart(on).await
}

fn agent(shell: &TauriShell) -> Result<agent::AgentHandle, String> {
    shell
        .agent()
        .ok_or_else(|| "Hearth is still starting; try again in a moment".to_owned())
}
