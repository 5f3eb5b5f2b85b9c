//! `/status/stream`: the status as server-sent events.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse as _, Response},
};
use engine::Clock;
use futures_util::stream;
use parking_lot::Mutex;
use status::{Arrival, IdentifiedGuard, Snapshot, StatusHub};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Limits, fields::Streamed};

/// A comment: overlays of the original protocol would take an event without a status for an empty
/// one.
const SIGN_OF_LIFE: Bytes = Bytes::from_static(b":\n\n");

/// A status and its encoded event.
type Written = (Arc<Snapshot>, Bytes);

/// Sends the status to all stream readers; each event is encoded once.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    hub: StatusHub,
    clock: Clock,
    limits: Limits,
    seats: Arc<Semaphore>,
    written: Arc<Mutex<Option<Written>>>,
    stop: CancellationToken,
}

impl Events {
    /// The events of `hub`, until `stop`.
    pub(crate) fn new(
        hub: StatusHub,
        clock: Clock,
        limits: Limits,
        stop: CancellationToken,
    ) -> Self {
        Self {
            hub,
            clock,
            limits,
            seats: Arc::new(Semaphore::new(limits.streams)),
            written: Arc::default(),
            stop,
        }
    }

    /// A response that streams until the reader leaves; `None` if the maximum number of readers is
    /// reached.
    pub(crate) fn follow(&self, arrival: &Arc<Arrival>) -> Option<Response> {
        let reader = Reader {
            latest: self.hub.subscribe(),
            is_behind: true,
            send_from: Instant::now(),
            _seat: self.seats.clone().try_acquire_owned().ok()?,
            _stay: arrival.stay(),
            events: self.clone(),
        };
        let told = stream::unfold(reader, async |mut reader| {
            let event = reader.next().await?;
            Some((Ok::<_, std::convert::Infallible>(event), reader))
        });
        let kind = [(header::CONTENT_TYPE, "text/event-stream")];
        Some((kind, Body::from_stream(told)).into_response())
    }

    fn write(&self, latest: &Arc<Snapshot>) -> Bytes {
        let mut written = self.written.lock();
        if let Some((_, event)) = written.as_ref().filter(|(of, _)| Arc::ptr_eq(of, latest)) {
            return event.clone();
        }
        let fields = Streamed::new(latest.status(), self.clock.now());
        // A status is strings, numbers and lists, so serializing cannot fail.
        let json = serde_json::to_string(&fields).unwrap_or_default();
        let event = Bytes::from(format!("data: {json}\n\n"));
        *written = Some((latest.clone(), event.clone()));
        event
    }
}

/// A stream reader. A slow one skips to the latest status.
struct Reader {
    latest: watch::Receiver<Arc<Snapshot>>,
    is_behind: bool,
    send_from: Instant,
    events: Events,
    _seat: OwnedSemaphorePermit,
    _stay: IdentifiedGuard,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        let limits = self.events.limits;
        loop {
            tokio::select! {
                biased;
                () = self.events.stop.cancelled() => {
                    let is_news = self.is_behind || self.latest.has_changed().unwrap_or(false);
                    self.is_behind = false;
                    return is_news.then(|| self.newest());
                }
                () = sleep_until(self.send_from), if self.is_behind => {
                    (self.is_behind, self.send_from) = (false, Instant::now() + limits.pace);
                    return Some(self.newest());
                }
                changed = self.latest.changed(), if !self.is_behind => match changed {
                    Ok(()) => self.is_behind = true,
                    Err(_) => return None,
                },
                () = sleep(limits.heartbeat), if !self.is_behind => return Some(SIGN_OF_LIFE),
            }
        }
    }

    fn newest(&mut self) -> Bytes {
        let latest = self.latest.borrow_and_update().clone();
        self.events.write(&latest)
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use axum::extract::State;
    use futures_util::StreamExt as _;
    use proto::{Timestamp, status::Phase};
    use serde_json::Value;
    use status::Arrivals;

    use super::*;

    fn events(limits: Limits) -> Events {
        let clock = Clock::new(|| Timestamp(1_790_000_000_500));
        Events::new(
            StatusHub::default(),
            clock,
            limits,
            CancellationToken::new(),
        )
    }

    fn arrival() -> Arc<Arrival> {
        Arc::new(Arrivals::new(1).enter())
    }

    fn read(event: &Bytes) -> Value {
        let text = std::str::from_utf8(event).unwrap();
        let json = text.strip_prefix("data: ").unwrap();
        assert_eq!(json.find('\n'), Some(json.len() - 2), "one line: {text}");
        serde_json::from_str(json).unwrap()
    }

    #[tokio::test]
    async fn every_event_is_whole_and_between_them_come_comments() {
        let heartbeat = Duration::from_millis(20);
        let events = events(Limits {
            heartbeat,
            ..Limits::default()
        });
        let mut told = events
            .follow(&arrival())
            .unwrap()
            .into_body()
            .into_data_stream();
        let first = read(&told.next().await.unwrap().unwrap());
        for flag in [
            "is_listening",
            "is_speaking",
            "wake_word_detected",
            "overlay_visible",
            "monitoring",
            "show_content",
            "show_just_orb",
            "critical",
        ] {
            assert!(first[flag].is_boolean(), "{flag} in {first}");
        }
        assert_eq!(first["overlay_enabled"], true);
        assert_eq!(first["timestamp"], 1_790_000_000.5);

        let begin = Instant::now();
        assert_eq!(told.next().await.unwrap().unwrap(), SIGN_OF_LIFE);
        assert!(begin.elapsed() >= heartbeat);

        events.hub.update(|status| status.wake_word_detected = true);
        let mut next = told.next().await.unwrap().unwrap();
        while next == SIGN_OF_LIFE {
            next = told.next().await.unwrap().unwrap();
        }
        let next = read(&next);
        assert_eq!(
            (&next["show_just_orb"], &next["show_content"], &next["seq"]),
            (&true.into(), &false.into(), &1.into())
        );
    }

    #[tokio::test]
    async fn both_pages_say_what_the_fixtures_show_byte_for_byte() {
        let fixture = |name: &str| {
            let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/fixtures");
            let text = std::fs::read_to_string(fixtures.join(name)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let status = fixture("status.json")["data"].clone();
        let hub = StatusHub::new(serde_json::from_value(status).unwrap());
        let events = Events {
            hub: hub.clone(),
            ..events(Limits::default())
        };
        let mut told = events
            .follow(&arrival())
            .unwrap()
            .into_body()
            .into_data_stream();
        let event = told.next().await.unwrap().unwrap();
        let wanted = format!("data: {}\n\n", fixture("http/event.json"));
        assert_eq!(event, wanted.as_bytes());

        let page = super::super::api_status(State(hub)).await;
        let page = page.into_body().into_data_stream().next().await;
        let wanted = fixture("http/status.json").to_string();
        assert_eq!(page.unwrap().unwrap(), wanted.as_bytes());
    }

    #[tokio::test]
    async fn who_was_away_reads_only_the_newest_and_nobody_more_than_the_pace() {
        let events = events(Limits::default());
        let mut told = events
            .follow(&arrival())
            .unwrap()
            .into_body()
            .into_data_stream();
        let first = told.next().await.unwrap().unwrap();
        let begin = Instant::now();
        for n in 0..1_000 {
            events.hub.update(|status| status.text = n.to_string());
        }
        let next = told.next().await.unwrap().unwrap();
        assert_eq!(read(&next)["text"], "999");
        assert!(begin.elapsed() >= Duration::from_millis(50));
        assert_ne!(first, next);
    }

    #[tokio::test]
    async fn one_event_is_written_for_all_and_the_last_seat_is_the_last() {
        let events = events(Limits {
            streams: 2,
            ..Limits::default()
        });
        let mut bodies = [(); 2].map(|()| {
            events
                .follow(&arrival())
                .unwrap()
                .into_body()
                .into_data_stream()
        });
        let one = bodies[0].next().await.unwrap().unwrap();
        let two = bodies[1].next().await.unwrap().unwrap();
        assert_eq!(one.as_ptr(), two.as_ptr());
        assert!(events.follow(&arrival()).is_none());
        drop(bodies);
        assert!(events.follow(&arrival()).is_some());
    }

    #[tokio::test]
    async fn at_the_end_the_last_status_is_told_and_then_no_more() {
        let events = events(Limits::default());
        let mut told = events
            .follow(&arrival())
            .unwrap()
            .into_body()
            .into_data_stream();
        told.next().await.unwrap().unwrap();
        events.hub.update(|status| status.status = Phase::Stopping);
        events.stop.cancel();
        let last = read(&told.next().await.unwrap().unwrap());
        assert_eq!(last["status"], "stopping");
        assert!(told.next().await.is_none());
    }
}
