//! Push notifications to a worker of the query service, so that it claims a new query at once.
//!
//! ```text
//! POST URL/api/process-query   {"query_id": 7, "webbuddy_url": "http://127.0.0.1:8787"}
//! ```
//!
//! A notification is only a hint, because such workers also poll. It is sent once and without
//! credentials; while one is being sent, only the latest query is kept for the next.

use std::{net::SocketAddr, str::FromStr};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use queue::QueryId;
use reqwest::{Client, Url};
use tokio::sync::watch;

use crate::{Relay, webhook};

/// Path to which the query service notifies its worker, unless the URL has a path.
const PATH: &str = "/api/process-query";

/// URL at which a worker receives notifications of new queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushUrl(Url);

impl FromStr for PushUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut url =
            Url::parse(text).map_err(|_| "use a URL, for example http://127.0.0.1:8001")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the URL must begin with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "the URL must not contain a user name or password; only the query's number is sent",
            );
        }
        if url.path() == "/" {
            url.set_path(PATH);
        }
        Ok(Self(url))
    }
}

/// Channel that holds the latest query to notify of.
#[derive(Debug)]
pub(crate) struct Latest(watch::Sender<Option<QueryId>>);

impl Default for Latest {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Latest {
    pub(crate) fn tell(&self, query: QueryId) {
        self.0.send_replace(Some(query));
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Option<QueryId>> {
        self.0.subscribe()
    }
}

/// Sends notifications until the relay stops, one at a time.
pub(crate) async fn deliver(
    relay: Relay,
    to: PushUrl,
    mut latest: watch::Receiver<Option<QueryId>>,
    address: SocketAddr,
) {
    let client = match webhook::client(relay.settings.push_patience).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "cannot create the client for query notifications; none will be sent");
            return;
        }
    };
    let settings = &relay.settings;
    let from = match &settings.public_url {
        Some(url) => url.to_string(),
        None => seen_from_here(address, settings.tls.is_some()),
    };
    let work = async {
        while latest.changed().await.is_ok() {
            let query = *latest.borrow_and_update();
            if let Some(query) = query {
                tell(&client, &to, query, &from).await;
            }
        }
    };
    relay.stop.run_until_cancelled(work).await;
}

async fn tell(client: &Client, to: &PushUrl, query: QueryId, from: &str) {
    let body = serde_json::json!({"query_id": query, "webbuddy_url": from}).to_string();
    let request = client.post(to.0.clone());
    let request = request.header(CONTENT_TYPE, "application/json");
    // The response body is ignored.
    match request.body(Bytes::from(body)).send().await {
        Ok(answer) if answer.status().is_success() => tracing::debug!(query, "worker notified"),
        Ok(answer) => {
            let status = answer.status().as_u16();
            tracing::warn!(
                query,
                status,
                "the worker refused the notification of a query"
            );
        }
        Err(error) => {
            let error = proto::cause(&error.without_url());
            tracing::warn!(query, error, "cannot notify the worker of a query");
        }
    }
}

/// Returns the relay's URL for a worker on this machine, used without `--public-url`. It never
/// comes from a request's headers, because the worker may log in at it.
fn seen_from_here(mut address: SocketAddr, is_secure: bool) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let scheme = if is_secure { "https" } else { "http" };
    format!("{scheme}://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_is_the_services_own() {
        let read = |text: &str| text.parse::<PushUrl>().map(|url| url.0.to_string());
        let own = Ok("http://127.0.0.1:8001/api/process-query".to_owned());
        assert_eq!(read("http://127.0.0.1:8001"), own);
        let other = "https://w.example/wake?x=1";
        assert_eq!(read(other), Ok(other.to_owned()));
        for wrong in ["127.0.0.1:8001", "ftp://w/", "http://a:b@w/", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_relay_that_listens_everywhere_is_called_on_loopback() {
        let seen = |address: &str| seen_from_here(address.parse().unwrap(), false);
        assert_eq!(seen("0.0.0.0:8787"), "http://127.0.0.1:8787");
        assert_eq!(seen("[::1]:1"), "http://[::1]:1");
    }
}
