use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use proto::status::HopState;
use status::StatusHub;
use telemetry::{
    agent::{AgentNow, render},
    metrics::CONTENT_TYPE,
};
use tokio::sync::watch;
use worker::{Activity, Totals};

/// The sources of the metrics, read at scrape time.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) activity: watch::Receiver<Activity>,
    /// Number of open sockets of the hub.
    pub(crate) subscribers: watch::Receiver<usize>,
}

impl Metrics {
    pub(super) fn text(&self, hub: &StatusHub) -> Response {
        let latest = hub.latest();
        let status = latest.status();
        let Totals {
            completed,
            failed,
            cancelled,
            given_back,
            tokens,
        } = self.activity.borrow().totals;
        let text = render(&AgentNow {
            completed,
            failed,
            cancelled,
            given_back,
            tokens,
            running: status.jobs.len(),
            relay_up: status.relay.state == HopState::Up,
            engine_up: status.engine.state == HopState::Up,
            paused: !status.monitoring,
            subscribers: *self.subscribers.borrow(),
            statuses: status.seq,
        });
        let kind = HeaderValue::from_static(CONTENT_TYPE);
        ([(header::CONTENT_TYPE, kind)], text).into_response()
    }
}
