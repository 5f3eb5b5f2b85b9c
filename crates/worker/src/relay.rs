//! The connection to a relay, by WebSocket or by HTTP.

mod http;
mod long_poll;
mod route;
pub(crate) mod websocket;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use engine::Url;
use proto::{WorkerId, status::CarrierKind};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::{http::Endpoint, route::Route};
use crate::{JobTable, LinkEnd, Source, Tuning, WorkerSettings};

/// A connection to a relay: over a WebSocket if possible, otherwise by long polls.
pub(crate) struct Relay {
    name: String,
    worker: WorkerId,
    endpoint: Endpoint,
    tuning: Tuning,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({})", self.name)
    }
}

impl Relay {
    pub(crate) fn new(settings: &WorkerSettings) -> anyhow::Result<Self> {
        Ok(Self {
            name: display_url(&settings.relay),
            worker: settings.worker.clone(),
            endpoint: Endpoint::new(&settings.relay, &settings.key, &settings.tuning)?,
            tuning: settings.tuning.clone(),
        })
    }

    async fn session(
        &self,
        carrier: CarrierKind,
        table: &Arc<JobTable>,
        route: &Route,
        stop: &CancellationToken,
    ) -> LinkEnd {
        match carrier {
            CarrierKind::Websocket => websocket::session(self, table, stop).await,
            CarrierKind::LongPoll | CarrierKind::Poll => {
                long_poll::session(self, table, route.websocket_after(), stop).await
            }
        }
    }
}

#[async_trait]
impl Source for Relay {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn serve(&mut self, table: &Arc<JobTable>, stop: &CancellationToken) {
        let mut route = Route::new(&self.tuning);
        // The first message to the relay contains the engine's report.
        stop.run_until_cancelled(table.probed()).await;
        while !stop.is_cancelled() {
            let carrier = route.carrier(Instant::now());
            let end = self.session(carrier, table, &route, stop).await;
            let proven = *table.link().borrow();
            let is_failed_trial = route.is_failed_trial(proven, &end);
            let wait = route.ended(
                carrier,
                proven,
                &end,
                Instant::now(),
                self.tuning.random.draw(),
            );
            if let LinkEnd::Restarting { .. } = end {
                tracing::info!(
                    relay = self.name,
                    carrier = carrier.as_str(),
                    ?wait,
                    "the relay restarts"
                );
            } else if is_failed_trial {
                tracing::info!(relay = self.name, %end, "the WebSocket failed; back to long polling");
            } else if !matches!(end, LinkEnd::Stopped) {
                tracing::warn!(relay = self.name, carrier = carrier.as_str(), %end, ?wait, "link ended");
            }
            match end {
                LinkEnd::Lost { .. } if is_failed_trial => table.link_changes(),
                LinkEnd::Woken | LinkEnd::Upgrade | LinkEnd::Blocked(_) => table.link_changes(),
                LinkEnd::Restarting { .. } => table.link_down(""),
                LinkEnd::Unauthorized(_) => table.link_refused(&end.to_string()),
                LinkEnd::Stopped
                | LinkEnd::Lost { .. }
                | LinkEnd::Later { .. }
                | LinkEnd::NotTheRelay(_) => table.link_down(&end.to_string()),
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = table.woken() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Returns the address without credentials, query and fragment.
pub(crate) fn display_url(url: &Url) -> String {
    let mut shown = url.clone();
    // These fail for URLs without a host, which contain neither.
    let _ = (shown.set_username(""), shown.set_password(None));
    shown.set_query(None);
    shown.set_fragment(None);
    shown.as_str().trim_end_matches('/').to_owned()
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => Ok(()),
            Self::Woken => {
                f.write_str("reconnecting because the machine resumed or its network changed")
            }
            Self::Upgrade => f.write_str("trying the WebSocket again"),
            Self::Lost { problem, .. } => f.write_str(problem),
            Self::Blocked(problem) => {
                write!(
                    f,
                    "the WebSocket is blocked ({problem}); using long polling"
                )
            }
            Self::Later { problem, .. } => write!(f, "the relay asked to wait: {problem}"),
            Self::Restarting { .. } => f.write_str("the relay restarts"),
            Self::Unauthorized(problem) => write!(
                f,
                "the relay refused the key ({problem}): create one on the relay's server with \
                 `hearth key create --name NAME --scope work`, name its file with --key-file, \
                 and restart the agent"
            ),
            Self::NotTheRelay(problem) => write!(
                f,
                "no Hearth relay of this agent's version answers at this address ({problem}): \
                 check the address, sign in to the network, or update relay and agent"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let url = Url::parse("https://me:word@relay.example/base/?token=x#y").unwrap();
        assert_eq!(display_url(&url), "https://relay.example/base");
    }
}
