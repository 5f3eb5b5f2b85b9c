//! `GET /api/admin/events`: the overview as server-sent events, at once and after each change.
//!
//! ```text
//! event: overview    jobs and workers, see `GET /api/admin/overview`; without the minutes
//! event: minutes     statistics of the last hour, when they changed
//! : ping             heartbeat without a change
//! ```
//!
//! The overview is computed after a change, at most four times a second, and with each heartbeat.

use std::convert::Infallible;

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures_util::stream;
use proto::{
    Timestamp,
    admin::{MinuteView, Overview},
};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{Relay, auth::MayAdmin, error::ApiError, stream::streaming};

/// `GET /api/admin/events`.
pub(super) async fn events(State(relay): State<Relay>, MayAdmin(_): MayAdmin) -> Response {
    let watcher = Watcher::new(relay);
    let body = stream::unfold(watcher, |mut watcher| async {
        let said = watcher.next().await?;
        Some((Ok::<_, Infallible>(said), watcher))
    });
    streaming("text/event-stream", None, Body::from_stream(body))
}

struct Watcher {
    relay: Relay,
    queue: watch::Receiver<u64>,
    workers: watch::Receiver<u64>,
    /// State that the client was last sent.
    overview: Option<Overview>,
    minutes: Option<Vec<MinuteView>>,
    /// Time before which the overview is not computed again.
    look_at: Instant,
    beat_at: Instant,
}

/// Reason for computing the overview.
enum Look {
    Changed,
    Beat,
}

impl Watcher {
    fn new(relay: Relay) -> Self {
        Self {
            queue: relay.store.changes(),
            workers: relay.workers.changes(),
            overview: None,
            minutes: None,
            look_at: Instant::now(),
            beat_at: Instant::now(),
            relay,
        }
    }

    /// Returns the next bytes to send; `None` when the relay stops or its store fails, upon which
    /// the client reconnects.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let look = if self.overview.is_none() {
                Look::Changed
            } else {
                self.wait().await?
            };
            let now = Instant::now();
            self.look_at = now + self.relay.settings.watch_every;
            let news = self.news().await.ok()?;
            if !news.is_empty() || matches!(look, Look::Beat) {
                self.beat_at = now + self.relay.settings.heartbeat;
            }
            match look {
                _ if !news.is_empty() => return Some(news.into()),
                Look::Beat => return Some(Bytes::from_static(b": ping\n\n")),
                Look::Changed => {}
            }
        }
    }

    async fn wait(&mut self) -> Option<Look> {
        let Self { queue, workers, .. } = self;
        let changed = async {
            sleep_until(self.look_at).await;
            tokio::select! {
                () = told(queue) => {}
                () = told(workers) => {}
            }
        };
        tokio::select! {
            biased;
            () = self.relay.drain.cancelled() => None,
            () = changed => Some(Look::Changed),
            // Time alone turns a polling worker offline, without a change notification.
            () = sleep_until(self.beat_at) => Some(Look::Beat),
        }
    }

    /// Returns events for everything that differs from what the client was last sent.
    async fn news(&mut self) -> Result<Vec<u8>, ApiError> {
        self.queue.borrow_and_update();
        self.workers.borrow_and_update();
        let overview = self.relay.overview().await?;
        let minutes = self.relay.minutes();
        let mut news = Vec::new();
        if self.minutes.as_ref() != Some(&minutes) {
            news.extend(event("minutes", &minutes));
            self.minutes = Some(minutes);
        }
        let seen = timeless(&overview);
        if self.overview.as_ref() != Some(&seen) {
            news.extend(event("overview", &overview));
            self.overview = Some(seen);
        }
        Ok(news)
    }
}

/// Removes the values that differ on each call although nothing has changed.
fn timeless(overview: &Overview) -> Overview {
    let mut seen = overview.clone();
    seen.now = Timestamp(0);
    for worker in seen.workers.iter_mut().filter(|worker| worker.online) {
        worker.last_seen = Timestamp(0);
    }
    seen
}

async fn told(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
}

fn event(name: &str, data: &impl Serialize) -> Vec<u8> {
    let data = serde_json::to_vec(data).unwrap_or_default();
    [b"event: ", name.as_bytes(), b"\ndata: ", &data, b"\n\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use proto::{Account, Dialect, JobId, ModelName, Op, Priority};
    use queue::{MemoryQueue, NewJob, Queue as _};
    use tokio::time::timeout;

    use super::*;
    use crate::{RelaySettings, SystemWorld};

    fn job(n: u8) -> NewJob {
        NewJob {
            id: JobId([n; 16]),
            account: Account::new("a").unwrap(),
            who: "a".into(),
            op: Op::Chat,
            model: ModelName::new("m").unwrap(),
            priority: Priority::DEFAULT,
            body: Bytes::from_static(b"{}").into(),
            dialect: Dialect::Native,
            deadline: None,
            attended: false,
            worker: None,
        }
    }

    async fn watched(settings: RelaySettings) -> (Arc<MemoryQueue>, Watcher) {
        let store = Arc::new(MemoryQueue::default());
        let relay = Relay::new(store.clone(), settings, Arc::new(SystemWorld));
        let mut watcher = Watcher::new(relay);
        let first = watcher.next().await.unwrap();
        assert!(first.starts_with(b"event: minutes\ndata: []\n\nevent: overview\n"));
        (store, watcher)
    }

    async fn accept(store: &MemoryQueue, n: u8) {
        store.enqueue(Timestamp(1), job(n)).await.unwrap();
    }

    fn says(said: &Bytes, part: &str) -> bool {
        std::str::from_utf8(said).unwrap().contains(part)
    }

    #[tokio::test]
    async fn changes_are_told_no_more_often_than_they_may_and_many_as_one() {
        let every = Duration::from_millis(20);
        let settings = RelaySettings {
            watch_every: every,
            ..RelaySettings::default()
        };
        // Before the first event is sent, because it may be received much later.
        let began = Instant::now();
        let (store, mut watcher) = watched(settings).await;
        for n in 1..=5 {
            accept(&store, n).await;
            let said = watcher.next().await.unwrap();
            assert!(says(&said, &format!(r#""queued":{n},"#)), "{said:?}");
        }
        assert!(began.elapsed() >= every * 5);
        for n in 6..=50 {
            accept(&store, n).await;
        }
        let said = watcher.next().await.unwrap();
        assert!(says(&said, r#""queued":50,"#), "{said:?}");
    }

    #[tokio::test]
    async fn while_nothing_changes_only_a_sign_of_life_is_sent() {
        let settings = RelaySettings {
            heartbeat: Duration::from_millis(10),
            ..RelaySettings::default()
        };
        let (_store, mut watcher) = watched(settings).await;
        for _ in 0..3 {
            assert_eq!(watcher.next().await.unwrap(), ": ping\n\n");
        }
    }

    #[tokio::test]
    async fn the_first_change_after_a_rest_is_told_at_once() {
        let settings = RelaySettings {
            watch_every: Duration::from_secs(3600),
            ..RelaySettings::default()
        };
        let (store, mut watcher) = watched(settings).await;
        watcher.look_at = Instant::now();
        accept(&store, 1).await;
        let said = timeout(Duration::from_secs(10), watcher.next()).await;
        assert!(says(&said.unwrap().unwrap(), r#""queued":1,"#));
    }
}
