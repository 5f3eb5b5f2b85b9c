//! Desktop notifications for programs that wait for approval, because the owner may see neither
//! tray nor window. Implements the Desktop Notifications Specification 1.2 on the session bus.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use agent::{Language, Question, TrayAct};
use futures_util::{Stream, StreamExt as _};
use proto::status::pair::Pairs;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zbus::{
    Proxy,
    connection::Builder,
    proxy::{CacheProperties, SignalStream},
    zvariant::Value,
};

use crate::act_id;

const SERVER: &str = "org.freedesktop.Notifications";
/// The action of a click on the notification itself.
const CLICK: &str = "default";
/// The notification stays until the approval is decided.
const NEVER_EXPIRES: i32 = 0;

/// Timeout of each call on the bus.
const PATIENCE: Duration = Duration::from_secs(10);

/// The owner's reaction to a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clicked {
    /// An answer button.
    Answer(TrayAct),
    /// A click on the notification: open the window.
    Open,
}

/// Shows a notification for each pending approval. On a desktop without notifications, only the
/// tray and the window show them.
pub(crate) async fn show(
    mut pairs: watch::Receiver<Arc<Pairs>>,
    language: Language,
    stop: CancellationToken,
    clicked: impl Fn(Clicked),
) {
    loop {
        // Connects to the bus only when there is an approval to show.
        let asked = pairs.wait_for(|pairs| !pairs.waiting.is_empty());
        let Some(Ok(_)) = stop.run_until_cancelled(asked).await else {
            return;
        };
        if let Err(error) = serve(&mut pairs, language, &stop, &clicked).await {
            tracing::debug!(%error, "the desktop shows no notifications");
        }
        // Retries only when the approvals change.
        let Some(Ok(())) = stop.run_until_cancelled(pairs.changed()).await else {
            return;
        };
    }
}

/// Shows notifications until no approval is pending, or `stop`; then closes them.
async fn serve(
    pairs: &mut watch::Receiver<Arc<Pairs>>,
    language: Language,
    stop: &CancellationToken,
    clicked: &impl Fn(Clicked),
) -> zbus::Result<()> {
    let mut board = Board::open().await?;
    let mut clicks = board.clicks().await?;
    loop {
        let asked = agent::questions(&pairs.borrow_and_update().waiting, language);
        board.show(&asked).await;
        if asked.is_empty() {
            return Ok(());
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = pairs.changed() => if changed.is_err() { break },
            Some((id, action)) = clicks.next() => {
                let asked = board.shown.iter().find(|(_, shown)| **shown == id);
                if let Some(click) = asked.and_then(|(approval, _)| read(&action, *approval)) {
                    clicked(click);
                }
            }
        }
    }
    board.show(&[]).await;
    Ok(())
}

/// The meaning of a click on the notification of `asked`; actions of other approvals are ignored.
fn read(action: &str, asked: u64) -> Option<Clicked> {
    if action == CLICK {
        return Some(Clicked::Open);
    }
    match act_id::act(action)? {
        act @ (TrayAct::Approve { approval, .. } | TrayAct::Deny { approval }) => {
            (approval == asked).then_some(Clicked::Answer(act))
        }
        TrayAct::Command(_) | TrayAct::OpenWindow | TrayAct::ToggleAutostart => None,
    }
}

struct Board {
    server: Proxy<'static>,
    /// The notification's id, by the number of the approval.
    shown: BTreeMap<u64, u32>,
}

impl Board {
    async fn open() -> zbus::Result<Self> {
        let connection = Builder::session()?.method_timeout(PATIENCE).build().await?;
        let server = zbus::proxy::Builder::new(&connection)
            .destination(SERVER)?
            .path("/org/freedesktop/Notifications")?
            .interface(SERVER)?
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self {
            server,
            shown: BTreeMap::new(),
        })
    }

    /// The clicks on notifications: the notification's id and the action.
    async fn clicks(&self) -> zbus::Result<impl Stream<Item = (u32, String)> + use<>> {
        let clicks: SignalStream<'static> = self.server.receive_signal("ActionInvoked").await?;
        Ok(Box::pin(clicks.filter_map(|signal| async move {
            signal.body().deserialize().ok()
        })))
    }

    /// Updates the notifications. A refused one is retried at the next change; the others stay.
    async fn show(&mut self, now: &[Question]) {
        let is_over = |approval: &u64| now.iter().all(|asked| asked.approval != *approval);
        let over: Vec<_> = self.shown.keys().copied().filter(is_over).collect();
        for approval in over {
            if let Some(id) = self.shown.remove(&approval) {
                // The owner may have closed it already.
                let closed = self.server.call_method("CloseNotification", &id).await;
                closed.map_or_else(
                    |error| tracing::debug!(%error, "the notification was closed already"),
                    drop,
                );
            }
        }
        for asked in now {
            if !self.shown.contains_key(&asked.approval) {
                match self.put(asked).await {
                    Ok(id) => drop(self.shown.insert(asked.approval, id)),
                    Err(error) => tracing::debug!(%error, "the desktop refused a notification"),
                }
            }
        }
    }

    async fn put(&self, asked: &Question) -> zbus::Result<u32> {
        let mut actions = vec![CLICK.to_owned(), "Hearth".to_owned()];
        for (act, label) in &asked.answers {
            actions.extend([act_id::of(*act), (*label).to_owned()]);
        }
        let body = [&asked.what, &asked.from].map(|line| escaped(line));
        let hints = HashMap::from([("urgency", Value::U8(1)), ("resident", Value::Bool(true))]);
        let said = (
            "Hearth",
            0_u32,
            "dialog-question",
            asked.who.as_str(),
            body.join("\n").trim_end().to_owned(),
            actions,
            hints,
            NEVER_EXPIRES,
        );
        self.server.call("Notify", &said).await
    }
}

/// Escapes markup, which some desktops interpret: the program chose its own name and path.
fn escaped(text: &str) -> String {
    let escaped = text.replace('&', "&amp;");
    escaped.replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use agent::Consent;

    use super::*;

    #[test]
    fn a_click_is_read_and_what_is_none_is_not() {
        let approval = 7;
        let once = TrayAct::Approve {
            approval,
            consent: Consent::Once,
        };
        let once_said = act_id::of(once);
        assert_eq!(read(&once_said, 7), Some(Clicked::Answer(once)));
        assert_eq!(read(&once_said, 8), None, "of another question");
        assert_eq!(read("default", 7), Some(Clicked::Open));
        for other in ["inline-reply", "quit", "autostart", "toggle_monitoring", ""] {
            assert_eq!(read(other, 7), None, "{other}");
        }
    }

    #[test]
    fn no_program_writes_markup_into_its_notice() {
        assert_eq!(escaped("<b>a & b</b>"), "&lt;b&gt;a &amp; b&lt;/b&gt;");
    }
}
