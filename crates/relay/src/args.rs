//! Command-line options of `hearth relay`, and starting a relay from them.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use proto::{ModelName, limits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Network, PublicUrl, PushUrl, Relay, RelaySettings, SystemWorld, TlsFiles, WebhookAllowed,
    World as _,
    bounds::BoundsArgs,
    metrics, open,
    queue_limits::{QueueLimitArgs, at_least_one},
    serve, serve_metrics,
    tls::Tls,
};

/// Options of `hearth relay`. Each can also be set in the settings file, see [`crate::Config`].
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; port 0 picks a free port.
    #[arg(
        long,
        env = "HEARTH_LISTEN",
        default_value = "127.0.0.1:8787",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// Where jobs and keys are stored: sqlite:PATH.
    #[arg(
        long,
        env = "HEARTH_STORE",
        default_value = "sqlite:hearth-relay.db",
        value_name = "URL"
    )]
    pub store: String,
    /// Model for requests that name none. Default: the first model of an online agent.
    #[arg(long, env = "HEARTH_DEFAULT_MODEL", value_name = "NAME")]
    pub default_model: Option<ModelName>,
    /// Seconds without a sign of life from an agent after which its jobs are queued again. Agents
    /// renew their leases at least every 15 s.
    #[arg(
        long,
        env = "HEARTH_LEASE",
        default_value_t = limits::LEASE.as_secs(),
        value_parser = clap::value_parser!(u64).range(20..=3600),
        value_name = "SECONDS"
    )]
    pub lease: u64,
    /// Seconds of silence after which a waiting client is sent a heartbeat. Proxies usually cut
    /// idle connections after 60 s.
    #[arg(
        long,
        env = "HEARTH_HEARTBEAT",
        default_value_t = limits::STREAM_HEARTBEAT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=55),
        value_name = "SECONDS"
    )]
    pub heartbeat: u64,
    /// If a non-streaming answer takes longer than this many seconds, send whitespace so that
    /// proxies keep the connection; a later failure then has status 200. 0 disables it.
    #[arg(
        long,
        env = "HEARTH_PAD_AFTER",
        default_value_t = limits::PAD_AFTER.as_secs(),
        value_name = "SECONDS"
    )]
    pub pad_after: u64,
    /// Seconds that running jobs and their answers may take to finish when the relay is asked to
    /// stop; unfinished jobs continue after the restart. A second signal ends the relay at once.
    #[arg(
        long,
        env = "HEARTH_DRAIN",
        default_value_t = 25,
        value_parser = clap::value_parser!(u64).range(0..=600),
        value_name = "SECONDS"
    )]
    pub drain: u64,
    /// Also allow webhooks to this host: over http or https, on any address, and on any port unless
    /// one is given.
    #[arg(
        long,
        env = "HEARTH_WEBHOOK_ALLOW",
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    pub webhook_allow: Vec<WebhookAllowed>,
    /// Notify this worker of the query service of each new query, so that it claims it at once. If
    /// the URL has no path, /api/process-query is used.
    #[arg(long, env = "HEARTH_PUSH_URL", value_name = "URL")]
    pub push_url: Option<PushUrl>,
    /// Trust the X-Forwarded-For and X-Forwarded-Proto headers of this proxy or network. May be
    /// given several times.
    #[arg(
        long,
        env = "HEARTH_BEHIND_PROXY",
        value_name = "ADDRESS[/BITS]",
        value_delimiter = ','
    )]
    pub behind_proxy: Vec<Network>,
    /// Serve TLS with this certificate chain (PEM). Changed files are reloaded on the next
    /// connection and on SIGHUP.
    #[arg(
        long,
        env = "HEARTH_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(
        long,
        env = "HEARTH_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// Base URL for links that the relay returns, for example `https://relay.example`.
    #[arg(long, env = "HEARTH_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,
    /// Requests per second for each key; 0 disables the limit.
    #[arg(long, env = "HEARTH_KEY_RATE", default_value_t = 200, value_name = "N")]
    pub key_rate: u32,
    /// Requests that a key may send in one burst.
    #[arg(
        long,
        env = "HEARTH_KEY_BURST",
        default_value_t = 1000,
        value_name = "N"
    )]
    pub key_burst: u32,
    /// Invalid keys, and failed logins, accepted from one address per minute; 0 disables the limit.
    #[arg(
        long,
        env = "HEARTH_FAILURES_PER_MINUTE",
        default_value_t = 5,
        value_name = "N"
    )]
    pub failures_per_minute: u32,
    /// Maximum number of requests processed at once, not counting those that wait for a worker.
    /// Under sustained overload a quarter of it.
    #[arg(
        long,
        env = "HEARTH_AT_WORK_MAX",
        value_parser = at_least_one,
        default_value_t = 512,
        value_name = "N"
    )]
    pub at_work_max: usize,
    /// Maximum number of connections.
    #[arg(
        long,
        env = "HEARTH_CONNECTIONS_MAX",
        value_parser = at_least_one,
        default_value_t = 4096,
        value_name = "N"
    )]
    pub connections_max: usize,
    /// Maximum number of connections from one address that have not yet shown a valid key; behind a
    /// proxy, of requests without a valid key whose bodies are arriving. Default: 64, and no limit
    /// for those from this machine.
    #[arg(
        long,
        env = "HEARTH_CONNECTIONS_PER_ADDRESS",
        value_parser = at_least_one,
        value_name = "N"
    )]
    pub connections_per_address: Option<usize>,
    /// Maximum number of connections with one key; 0 disables the limit.
    #[arg(
        long,
        env = "HEARTH_CONNECTIONS_PER_KEY",
        default_value_t = 256,
        value_name = "N"
    )]
    pub connections_per_key: usize,
    /// Timeouts of connections, and memory budgets of requests and answers.
    #[command(flatten)]
    pub bounds: BoundsArgs,
    /// Limits of the queue.
    #[command(flatten)]
    pub queue_limits: QueueLimitArgs,
    /// Serve metrics for a scraper on /metrics at this address, for example 127.0.0.1:9464. Off by
    /// default.
    #[arg(long, env = "HEARTH_METRICS", value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Allow --metrics on an address that other machines can reach.
    #[arg(long)]
    pub metrics_to_all: bool,
    /// Serve every program on this machine without a key. Refused on other than loopback addresses.
    #[arg(long)]
    pub insecure_dev: bool,
    /// Settings file with these options by name, for example `lease = 90`. Default: relay.toml in
    /// the user's configuration folder, if it exists.
    #[arg(long, env = "HEARTH_RELAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print every setting and its source, and the main fixed limits, then exit.
    #[arg(long)]
    pub print_config: bool,
}

impl Args {
    /// Serves until `stop` is cancelled, and prints the address it listens on.
    ///
    /// # Errors
    /// One sentence: the address is in use, the store cannot be opened, or there is no key yet.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        telemetry::cores::forbid();
        let store = open(&self.store, SystemWorld.now(), self.queue_limits.limits()).await?;
        telemetry::files::allow(self.connections_max);
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}; give another --listen", self.listen))?;
        let address = listener.local_addr()?;
        let tls = self.tls_cert.zip(self.tls_key);
        let tls = tls.map(|(cert, key)| TlsFiles { cert, key });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let settings = RelaySettings {
            insecure_dev: self.insecure_dev,
            default_model: self.default_model,
            lease: Duration::from_secs(self.lease),
            heartbeat: Duration::from_secs(self.heartbeat),
            pad_after: Duration::from_secs(self.pad_after),
            drain: Duration::from_secs(self.drain),
            webhook_allow: self.webhook_allow,
            push_url: self.push_url,
            behind_proxy: self.behind_proxy,
            tls,
            public_url: self.public_url,
            key_rate: self.key_rate,
            key_burst: self.key_burst,
            failures_per_minute: self.failures_per_minute,
            at_work_max: self.at_work_max,
            connections_max: self.connections_max,
            connections_per_address: self.connections_per_address,
            connections_per_key: self.connections_per_key,
            ..self.bounds.bound(RelaySettings::default())
        };
        let relay = Relay::new(store, settings, Arc::new(SystemWorld));
        let permitted = relay.permitted(address).await;
        permitted.with_context(|| format!("the relay with the store {}", self.store))?;
        if let Some(files) = &relay.settings.tls {
            // The certificate is checked before the address is announced.
            Tls::open(files.clone())?;
        }
        if let Some(at) = self.metrics {
            metrics::permitted(at, self.metrics_to_all)?;
            let listener = TcpListener::bind(at)
                .await
                .with_context(|| format!("cannot listen on {at}; give another --metrics"))?;
            let at = listener.local_addr()?;
            relay.run_part("metrics", serve_metrics(listener, relay.clone()));
            writeln!(std::io::stdout(), "metrics on http://{at}/metrics")?;
        }
        writeln!(std::io::stdout(), "listening on {scheme}://{address}")?;
        serve(listener, relay, stop).await?;
        Ok(())
    }
}
