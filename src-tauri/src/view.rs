//! The data for the pages: the hub's status and the desktop's own state.

use std::{sync::Arc, time::Duration};

use proto::status::{Status, pair::Pairs};
use serde::Serialize;
use status::Link;
use tauri::{AppHandle, Emitter as _};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// The event that carries a [`View`].
const EVENT: &str = "view";
/// Minimum interval between updates that change only figures; a change of state is sent at once.
const PACE: Duration = Duration::from_millis(250);

/// Everything that a page needs: `View` in ui/src/lib/protocol.ts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct View {
    link: PageLink,
    /// The owner's language.
    pub(crate) language: &'static str,
    /// Whether the app starts at login.
    pub(crate) autostart: bool,
    /// Why there is no tray, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_tray: Option<String>,
    /// Why a click in the tray was refused; cleared when the window that shows it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// How often the settings were asked for since the window was opened: with each time, the page
    /// goes there.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<u32>,
    /// The pending approvals and the permanent grants.
    pairs: Arc<Pairs>,
}

/// [`Link`] in the pages' format.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum PageLink {
    Live {
        status: Arc<Status>,
    },
    #[default]
    Lost,
}

impl From<&Link> for PageLink {
    fn from(link: &Link) -> Self {
        match link {
            // The hub is the app's own, and sends nothing while nothing changes.
            Link::Live(status) | Link::Stale { last: status, .. } => Self::Live {
                status: status.clone(),
            },
            Link::Lost { .. } => Self::Lost,
        }
    }
}

impl View {
    /// Lets the page of the window go to its settings.
    pub(crate) fn go_to_settings(&mut self) {
        self.settings = Some(self.settings.map_or(1, |times| times.wrapping_add(1)));
    }

    /// Forgets what was meant for the window that was closed.
    pub(crate) fn window_closed(&mut self) {
        self.refused = None;
        self.settings = None;
    }

    /// Whether nothing but figures (tokens, speed) changed since `shown`.
    fn differs_in_figures_only(&self, shown: &Self) -> bool {
        let (PageLink::Live { status: new }, PageLink::Live { status: old }) =
            (&self.link, &shown.link)
        else {
            return false;
        };
        let same_jobs = new
            .jobs
            .iter()
            .map(|job| job.id)
            .eq(old.jobs.iter().map(|job| job.id));
        let mut calm = Status::clone(new);
        calm.jobs.clone_from(&old.jobs);
        calm.seq = old.seq;
        same_jobs
            && calm == **old
            && self.autostart == shown.autostart
            && self.no_tray == shown.no_tray
            && self.refused == shown.refused
            && self.settings == shown.settings
            && self.pairs == shown.pairs
    }
}

/// The latest view, with its followers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Views(watch::Sender<View>);

impl Views {
    /// The current view.
    pub(crate) fn latest(&self) -> View {
        self.0.borrow().clone()
    }

    /// Changes the view; followers are notified if it differs.
    pub(crate) fn update(&self, change: impl FnOnce(&mut View)) {
        self.0.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            *view != before
        });
    }

    /// Copies the hub's state into the view, until `stop`.
    pub(crate) async fn follow(&self, mut link: watch::Receiver<Link>, stop: CancellationToken) {
        loop {
            let latest = PageLink::from(&*link.borrow_and_update());
            self.update(|view| view.link = latest);
            match stop.run_until_cancelled(link.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => break,
            }
        }
    }

    /// Copies the approvals into the view, until `stop`.
    pub(crate) async fn watch(
        &self,
        mut pairs: watch::Receiver<Arc<Pairs>>,
        stop: CancellationToken,
    ) {
        loop {
            let latest = pairs.borrow_and_update().clone();
            self.update(|view| view.pairs = latest);
            match stop.run_until_cancelled(pairs.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => break,
            }
        }
    }

    /// Sends each new view to the pages, until `stop`.
    pub(crate) async fn tell(&self, app: AppHandle, stop: CancellationToken) {
        let mut views = self.0.subscribe();
        let tell = |view: &View| {
            if let Err(error) = app.emit(EVENT, view) {
                tracing::warn!(%error, "the pages cannot be updated");
            }
        };
        let _ = stop.run_until_cancelled(pace(&mut views, tell)).await;
    }
}

/// Calls `tell` at once with each change of state, and at most once per [`PACE`] with changed
/// figures.
async fn pace(views: &mut watch::Receiver<View>, mut tell: impl FnMut(&View)) {
    let mut shown = views.borrow_and_update().clone();
    tell(&shown);
    let mut told = Instant::now();
    while views.changed().await.is_ok() {
        let mut view = views.borrow_and_update().clone();
        while view.differs_in_figures_only(&shown) {
            let due = tokio::select! {
                () = sleep_until(told + PACE) => true,
                changed = views.changed() => changed.is_err(),
            };
            if due {
                break;
            }
            view = views.borrow_and_update().clone();
        }
        tell(&view);
        told = Instant::now();
        shown = view;
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        JobId, ModelName, Op, Timestamp,
        status::{LiveJob, Phase},
    };
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    fn working(tokens: u64) -> View {
        let job = LiveJob {
            id: JobId([1; 16]),
            who: "laptop".into(),
            model: ModelName::new("m").unwrap(),
            op: Op::Chat,
            started_at: Timestamp(0),
            tokens,
            tokens_per_second: 1.0,
        };
        let status = Status {
            status: Phase::Working,
            jobs: vec![job],
            seq: tokens,
            ..Status::default()
        };
        View {
            link: PageLink::Live {
                status: Arc::new(status),
            },
            ..View::default()
        }
    }

    #[test]
    fn a_page_reads_a_link_by_its_kind() {
        let lost = serde_json::to_value(View::default()).unwrap();
        assert_eq!(
            lost,
            serde_json::json!({"link": {"kind": "lost"}, "language": "", "autostart": false,
                "pairs": {"waiting": [], "allowed": []}})
        );
        let live = serde_json::to_value(working(3)).unwrap();
        assert_eq!(live["link"]["kind"], "live");
        assert_eq!(live["link"]["status"]["jobs"][0]["tokens"], 3);
    }

    #[test]
    fn only_figures_may_wait() {
        assert!(working(2).differs_in_figures_only(&working(1)));
        assert!(!View::default().differs_in_figures_only(&working(1)));
        let paused = View {
            autostart: true,
            ..working(2)
        };
        assert!(!paused.differs_in_figures_only(&working(1)));
        let mut asked = working(2);
        asked.go_to_settings();
        assert!(!asked.differs_in_figures_only(&working(1)));
    }

    #[test]
    fn each_request_for_the_settings_is_told_and_none_outlives_the_window() {
        let mut view = View::default();
        let mut told = |change: fn(&mut View)| {
            change(&mut view);
            serde_json::to_value(&view).unwrap()["settings"].as_u64()
        };
        assert_eq!(told(View::go_to_settings), Some(1));
        assert_eq!(told(View::go_to_settings), Some(2));
        assert_eq!(told(View::window_closed), None);
        assert_eq!(told(View::go_to_settings), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn figures_are_told_four_times_a_second_and_a_state_at_once() {
        let views = Views::default();
        let (told, mut heard) = mpsc::channel(64);
        let mut receiver = views.0.subscribe();
        let mut pacing = std::pin::pin!(pace(&mut receiver, |view| {
            told.try_send((Instant::now(), view.clone())).unwrap();
        }));
        let began = Instant::now();

        let script = async {
            for tokens in 1..=99 {
                views.update(|view| *view = working(tokens));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            views.update(|view| *view = View::default());
        };
        let _ = timeout(Duration::from_secs(2), async {
            tokio::join!(&mut pacing, script)
        })
        .await;

        let mut all = Vec::new();
        while let Ok(one) = heard.try_recv() {
            all.push(one);
        }
        // The empty view, the first token, almost 1 s of figures, and the final state.
        assert_eq!(all.len(), 2 + 3 + 1);
        let (at, last) = all.last().unwrap();
        assert_eq!(*last, View::default());
        assert_eq!(*at - began, Duration::from_millis(990));
    }
}
