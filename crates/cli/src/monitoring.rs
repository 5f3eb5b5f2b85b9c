//! `hearth pause` and `hearth resume`: the owner's switch where there is no tray.

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
/// If none is running, or it refuses.
pub(crate) async fn set(on: bool) -> anyhow::Result<()> {
    let folder = agent::Folders::of_user()?.data;
    // Only this user's own agent is asked: anybody on the usual ports could say that it paused.
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
        "resumed: it takes work"
    } else {
        "paused: it takes no new work"
    };
    writeln!(std::io::stdout(), "{word}")?;
    Ok(())
}
