//! The commands that pages may call. Each passes its request to the agent and returns the result.

use agent::Consent;
use proto::status::{Command, CommandArgs};
use tauri::State;

use crate::{
    shell::TauriShell,
    view::{View, Views},
};

/// The current view.
#[tauri::command]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a command is handed its state by value"
)]
pub(crate) fn snapshot(views: State<'_, Views>) -> View {
    views.latest()
}

/// Sends a command of the hub's protocol to the agent.
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

/// Enables or disables the start at login; the error is the reason for the owner.
#[tauri::command]
pub(crate) async fn set_autostart(shell: State<'_, TauriShell>, on: bool) -> Result<(), String> {
    agent(&shell)?.set_autostart(on).await
}

/// Decides a pending approval: `once`, `always` or `no`.
#[tauri::command]
pub(crate) async fn decide(
    shell: State<'_, TauriShell>,
    approval: String,
    word: Word,
) -> Result<(), String> {
    let approvals = agent(&shell)?.approvals();
    let answer = match word {
        Word::Once => approvals.approve(&approval, Consent::Once).await,
        Word::Always => approvals.approve(&approval, Consent::Always).await,
        Word::No => approvals.deny(&approval),
    };
    answer.map_err(|(_, message)| message)
}

/// Revokes a program's permanent grant.
#[tauri::command]
pub(crate) async fn revoke(shell: State<'_, TauriShell>, grant: String) -> Result<(), String> {
    let revoked = agent(&shell)?.approvals().revoke(&grant).await;
    revoked.map_err(|(_, message)| message)
}

/// The owner's decision about a program.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    Once,
    Always,
    No,
}

fn agent(shell: &TauriShell) -> Result<agent::AgentHandle, String> {
    shell
        .agent()
        .ok_or_else(|| "Hearth is still starting; try again in a moment".to_owned())
}
