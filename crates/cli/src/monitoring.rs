//! `hearth pause` and `hearth resume`: the tray's switch, for machines without a tray.

use std::{io::Write as _, time::Duration};

use proto::status::Command;
use status::{HubAddress, Places, Subscriber};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::status::{live, not_running};

const PATIENCE: Duration = Duration::from_secs(5);

/// Pauses (`false`) or resumes (`true`) the agent on this machine.
///
/// # Errors
/// If no agent is running, or it refuses.
pub(crate) async fn set(on: bool) -> anyhow::Result<()> {
    let folder = agent::Folders::of_user()?.data;
    // Asks only this user's own agent: any program on the default ports could claim that it paused.
    let hub = HubAddress::find(&folder).ok_or_else(not_running)?;
    let (subscriber, handle) = Subscriber::new(Places::At(hub));
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(subscriber.run(stop.clone()));
    let outcome = match timeout(PATIENCE, live(handle.link())).await {
        Ok(Some(_)) => handle
            .send(Command::SetMonitoring(on))
            .await
            .map_err(Into::into),
        Ok(None) | Err(_) => Err(not_running()),
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    outcome?;
    let word = if on {
        "resumed: the agent takes work"
    } else {
        "paused: the agent takes no new work"
    };
    writeln!(std::io::stdout(), "{word}")?;
    Ok(())
}
