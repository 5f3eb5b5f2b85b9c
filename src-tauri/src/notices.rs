//! Notices of the desktop for programs that wait for the owner's word: he may see neither tray nor
//! window just then. As the desktop notifications specification 1.2 has it, on the session bus.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use agent::{Language, Question, TrayAct};
use futures_util::{Stream, StreamExt as _};
use proto::status::pair::Pairs;
use tokio::sync::watch;
use zbus::{
    Proxy,
    connection::Builder,
    proxy::{CacheProperties, SignalStream},
    zvariant::Value,
};

use crate::act_id;

const SERVER: &str = "org.freedesktop.Notifications";
/// The action of a click on the notice itself.
const CLICK: &str = "default";
/// It stays until the owner, or somebody else, has decided.
const NEVER_EXPIRES: i32 = 0;

/// How long the desktop may take for each call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the owner did with a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clicked {
    /// He answered.
    Answer(TrayAct),
    /// He wants to see more.
    Open,
}

/// Shows a notice for each question as long as it waits. Where no desktop shows notices, the tray
/// and the window ask alone.
pub(crate) async fn show(
    mut pairs: watch::Receiver<Arc<Pairs>>,
    language: Language,
    clicked: impl Fn(Clicked),
) {
    // Nobody is bothered before there is something to ask.
    while pairs
        .wait_for(|pairs| !pairs.waiting.is_empty())
        .await
        .is_ok()
    {
        if let Err(error) = serve(&mut pairs, language, &clicked).await {
            tracing::debug!(%error, "the desktop shows no notices");
        }
        // Not again before something else is asked.
        if pairs.changed().await.is_err() {
            return;
        }
    }
}

/// Until nothing is asked any more.
async fn serve(
    pairs: &mut watch::Receiver<Arc<Pairs>>,
    language: Language,
    clicked: &impl Fn(Clicked),
) -> zbus::Result<()> {
    let mut board = Board::open().await?;
    let mut clicks = board.clicks().await?;
    loop {
        let asked = agent::questions(&pairs.borrow_and_update().waiting, language);
        board.show(&asked).await?;
        if asked.is_empty() {
            return Ok(());
        }
        tokio::select! {
            changed = pairs.changed() => if changed.is_err() { return Ok(()) },
            Some((id, action)) = clicks.next() => {
                if board.shown.values().any(|shown| *shown == id)
                    && let Some(click) = read(&action)
                {
                    clicked(click);
                }
            }
        }
    }
}

fn read(action: &str) -> Option<Clicked> {
    if action == CLICK {
        return Some(Clicked::Open);
    }
    act_id::act(action).map(Clicked::Answer)
}

struct Board {
    server: Proxy<'static>,
    /// The notice of each question.
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

    /// Which notice was clicked, and where.
    async fn clicks(&self) -> zbus::Result<impl Stream<Item = (u32, String)> + use<>> {
        let clicks: SignalStream<'static> = self.server.receive_signal("ActionInvoked").await?;
        Ok(Box::pin(clicks.filter_map(|signal| async move {
            signal.body().deserialize().ok()
        })))
    }

    async fn show(&mut self, now: &[Question]) -> zbus::Result<()> {
        let is_over = |approval: &u64| now.iter().all(|asked| asked.approval != *approval);
        let over: Vec<_> = self.shown.keys().copied().filter(is_over).collect();
        for approval in over {
            if let Some(id) = self.shown.remove(&approval) {
                // The owner may have closed it himself.
                let closed = self.server.call_method("CloseNotification", &id).await;
                closed.map_or_else(|error| tracing::debug!(%error, "a notice is gone"), drop);
            }
        }
        for asked in now {
            if !self.shown.contains_key(&asked.approval) {
                let id = self.put(asked).await?;
                self.shown.insert(asked.approval, id);
            }
        }
        Ok(())
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

/// Some desktops read the text as markup, and a program chose its own name and path.
fn escaped(text: &str) -> String {
    let escaped = text.replace('&', "&amp;");
    escaped.replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_is_read_and_what_is_none_is_not() {
        let approval = 7;
        let once = TrayAct::Approve {
            approval,
            always: false,
        };
        assert_eq!(read(&act_id::of(once)), Some(Clicked::Answer(once)));
        assert_eq!(read("default"), Some(Clicked::Open));
        assert_eq!(read("inline-reply"), None);
    }

    #[test]
    fn no_program_writes_markup_into_its_notice() {
        assert_eq!(escaped("<b>a & b</b>"), "&lt;b&gt;a &amp; b&lt;/b&gt;");
    }
}
