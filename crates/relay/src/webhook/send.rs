//! Sends one webhook. The connection goes to the address that was checked.

use std::{error::Error, net::SocketAddr, sync::OnceLock, time::Duration};

use bytes::Bytes;
use proto::{JobId, Timestamp, cause};
use queue::NewWebhook;
use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    header::CONTENT_TYPE,
    redirect::Policy,
};

use super::{
    sign::signature,
    target::{Allowed, NOT_PUBLIC, check, is_public},
};

/// Maximum time of a try, from name resolution to the head of the response.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Reason why a webhook was not delivered. The message never contains the URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Temporary: another try may succeed.
    Passing(String),
    /// Permanent: another try would fail too.
    Final(String),
}

/// Sender of webhooks. Its HTTP clients are created on first use.
#[derive(Debug)]
pub(super) struct Sender {
    allowed: Vec<Allowed>,
    guarded: OnceLock<Client>,
    trusting: OnceLock<Client>,
}

impl Sender {
    pub(super) fn new(allowed: &[Allowed]) -> Self {
        Self {
            allowed: allowed.to_vec(),
            guarded: OnceLock::new(),
            trusting: OnceLock::new(),
        }
    }

    pub(super) async fn send(
        &self,
        to: &NewWebhook,
        job: JobId,
        now: Timestamp,
        body: Bytes,
    ) -> Result<(), Failure> {
        // The allowed targets may have changed since the webhook was accepted.
        let target = check(&to.url, &self.allowed).map_err(|why| Failure::Final(why.into()))?;
        let (id, seconds) = (format!("msg_{job}"), now.0 / 1000);
        let signed = signature(&to.secret, &id, seconds, &body);
        let signed = signed.ok_or_else(|| Failure::Final("the secret is invalid".into()))?;
        let request = self
            .client(target.is_allowed)?
            .post(target.url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signed)
            .body(body);
        // Only the head of the response is read; dropping the rest closes the connection.
        let status = match request.send().await {
            Ok(answer) => answer.status(),
            Err(error) => return Err(Failure::Passing(cause(&error.without_url()))),
        };
        if status.is_success() {
            Ok(())
        } else if status == http::StatusCode::GONE {
            Err(Failure::Final("the receiver answered 410 (gone)".into()))
        } else {
            let said = format!("the receiver answered {}", status.as_u16());
            Err(Failure::Passing(said))
        }
    }

    fn client(&self, is_allowed: bool) -> Result<&Client, Failure> {
        let place = if is_allowed {
            &self.trusting
        } else {
            &self.guarded
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let mut builder = client(PATIENCE);
        if !is_allowed {
            builder = builder.dns_resolver(PublicOnly);
        }
        let client = builder
            .build()
            .map_err(|error| Failure::Passing(cause(&error)))?;
        Ok(place.get_or_init(|| client))
    }
}

/// Returns a builder for a client that follows no redirects, uses no proxy, and keeps no
/// connections.
pub(crate) fn client(patience: Duration) -> ClientBuilder {
    // Fails if it is already installed; every caller installs the same provider.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .timeout(patience)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
}

/// A DNS resolver that refuses names with any address that is not public, even if others are.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found = all_public(found)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn all_public(
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
    let found: Vec<_> = found.collect();
    if found.iter().all(|address| is_public(address.ip())) {
        Ok(found)
    } else {
        Err(NOT_PUBLIC.into())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn one_address_inside_shuts_the_name() {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
        assert!(all_public([at("1.1.1.1"), at("2606:4700::1111")].into_iter()).is_ok());
        assert!(all_public([at("1.1.1.1"), at("127.0.0.1")].into_iter()).is_err());
        assert!(all_public([at("::ffff:10.0.0.1")].into_iter()).is_err());
    }

    /// The client's resolver refuses the name, so that no connection is made.
    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_when_it_is_resolved() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sender = Sender::new(&[]);
        let client = sender.client(false).unwrap();
        let error = client
            .post(format!("http://localhost:{port}/"))
            .send()
            .await
            .unwrap_err();
        assert_eq!(cause(&error), NOT_PUBLIC);
        let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "somebody connected");
    }
}
