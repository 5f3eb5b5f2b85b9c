//! A relay from its start to its graceful shutdown.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Relay, api, batch,
    listen::accept,
    pipeline::RequestContext,
    push,
    tls::{self, Tls},
    upkeep, webhook,
};

/// Time that connections have to close at the end of a shutdown.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// Serves until `stop` is cancelled, then drains running work for a limited time and closes the
/// store.
///
/// # Errors
/// The relay must not serve here (there is no key, or `--insecure-dev` is used off loopback), its
/// store cannot be read or closed, or one of its tasks panicked.
pub async fn serve(listener: TcpListener, relay: Relay, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    relay.permitted(address).await?;
    if relay.settings.insecure_dev {
        tracing::warn!(
            "--insecure-dev: every program on this machine has full access without a key"
        );
    }
    let tls = relay.settings.tls.clone().map(Tls::open).transpose()?;
    let tls = tls.map(Arc::new);
    if let Some(tls) = &tls {
        let reloading = tls::reload_on_hangup(tls.clone(), relay.stop.clone());
        relay.run_part("certificates", reloading);
    }
    tracing::info!(%address, "the relay listens");
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(url = %format_args!("{scheme}://{address}/"), "dashboard available");
    relay.run_part("leases", upkeep::reap(relay.clone()));
    relay.run_part("keys", upkeep::check_keys(relay.clone()));
    relay.run_part("orphans", upkeep::give_up_orphans(relay.clone()));
    relay.run_part("webhooks", webhook::deliver(relay.clone()));
    if let Some(to) = relay.settings.push_url.clone() {
        let latest = relay.pushes.follow();
        let told = push::deliver(relay.clone(), to, latest, address);
        relay.run_part("pushes", told);
    }
    relay.run_part("files", batch::expire_files(relay.clone()));
    batch::resume(relay.clone()).await;
    let open_at = relay.settings.insecure_dev.then_some(address);
    let context = RequestContext {
        router: api::routes(relay.clone()),
        relay: relay.clone(),
        open_at,
        tls,
    };
    let over = async {
        stop.cancelled().await;
        tracing::info!("shutting down");
        relay.drain_gracefully().await;
    };
    // During the drain new requests are refused, and workers still deliver what they have.
    let failed = tokio::select! {
        error = relay.store.failure() => Some(error),
        () = accept(&listener, &context) => None,
        () = relay.part_failed.cancelled() => None,
        () = over => None,
    };
    drop(listener);
    relay.drain.cancel();
    relay.stop.cancel();
    relay.tasks.close();
    if let Some(error) = failed {
        // The store can acknowledge nothing more, so clients should reach the next process soon.
        return Err(store_failure(&error));
    }

    if timeout(CLOSE_WITHIN, relay.tasks.wait()).await.is_err() {
        tracing::warn!("closing connections that are still open");
    }
    relay.store.close().await.map_err(io::Error::other)?;
    if relay.part_failed.is_cancelled() {
        return Err(io::Error::other(
            "a part of the relay failed (see its log), so the relay stopped; start it again",
        ));
    }
    Ok(())
}

/// Returns the reason why the relay ends by itself, as one line.
fn store_failure(error: &queue::QueueError) -> io::Error {
    let source = std::error::Error::source(error);
    let why = source.map_or_else(|| error.to_string(), ToString::to_string);
    io::Error::other(format!(
        "{why}; the relay stopped, so that its next start reads the true state from disk"
    ))
}

impl Relay {
    /// Checks that the relay may serve on this address: without a key only on loopback with
    /// `--insecure-dev`, and without TLS only on loopback or behind a proxy.
    pub(crate) async fn permitted(&self, address: SocketAddr) -> io::Result<()> {
        if self.settings.insecure_dev {
            if address.ip().is_loopback() {
                return Ok(());
            }
            return Err(io::Error::other(format!(
                "--insecure-dev serves on loopback only, not on {address}; \
                 leave it out, or listen on 127.0.0.1"
            )));
        }
        let settings = &self.settings;
        let is_plain = settings.tls.is_none() && settings.behind_proxy.is_empty();
        if is_plain && !address.ip().to_canonical().is_loopback() {
            return Err(io::Error::other(format!(
                "keys and prompts would be sent to {address} unencrypted; listen on 127.0.0.1, \
                 give a certificate with --tls-cert and --tls-key, or name the proxies that end \
                 TLS with --behind-proxy"
            )));
        }
        let keys = self.store.list_keys().await.map_err(io::Error::other)?;
        let now = self.wall_now();
        if keys.iter().any(|key| key.is_in_force(now)) {
            return Ok(());
        }
        let users = self.store.list_users().await.map_err(io::Error::other)?;
        if !users.is_empty() {
            return Ok(());
        }
        Err(io::Error::other(
            "the store contains no valid key and no user, so no client could use this relay; \
             create a key with `hearth key create --store STORE --name NAME --scope enqueue \
             --scope read`",
        ))
    }
}
