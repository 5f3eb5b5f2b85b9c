//! `hearth relay`: its options, and a relay made from them.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use proto::{ModelName, limits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    Network, PublicUrl, PushUrl, Relay, RelaySettings, System, TlsFiles, WebhookAllowed,
    World as _,
    bounds::BoundsArgs,
    metrics, open, serve, serve_metrics,
    terms::{TermsArgs, at_least_one},
    tls::Tls,
};

/// `hearth relay [--listen ADDRESS] [--store URL]`. Each option may also stand in the settings
/// file, see [`crate::Config`].
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes any that is free.
    #[arg(
        long,
        env = "HEARTH_LISTEN",
        default_value = "127.0.0.1:8787",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// Where jobs and keys are kept: sqlite:PATH.
    #[arg(
        long,
        env = "HEARTH_STORE",
        default_value = "sqlite:hearth-relay.db",
        value_name = "URL"
    )]
    pub store: String,
    /// The model of requests that name none; else the first of an agent online.
    #[arg(long, env = "HEARTH_DEFAULT_MODEL", value_name = "NAME")]
    pub default_model: Option<ModelName>,
    /// Seconds after which a job is taken from an agent that fell silent. Agents renew at least
    /// every 15 s.
    #[arg(
        long,
        env = "HEARTH_LEASE",
        default_value_t = limits::LEASE.as_secs(),
        value_parser = clap::value_parser!(u64).range(20..=3600),
        value_name = "SECONDS"
    )]
    pub lease: u64,
    /// Seconds of silence after which a requester who waits gets a sign of life. Proxies cut at
    /// 60 s or more.
    #[arg(
        long,
        env = "HEARTH_HEARTBEAT",
        default_value_t = limits::STREAM_HEARTBEAT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=55),
        value_name = "SECONDS"
    )]
    pub heartbeat: u64,
    /// Seconds after which an answer in one piece is preceded by white space, so that no proxy
    /// cuts it; a failure after that has the status 200. 0 is never.
    #[arg(
        long,
        env = "HEARTH_PAD_AFTER",
        default_value_t = limits::PAD_AFTER.as_secs(),
        value_name = "SECONDS"
    )]
    pub pad_after: u64,
    /// Seconds that running jobs and their answers may go on when the relay is asked to stop; what
    /// still runs then goes on after the restart. A second signal ends it at once.
    #[arg(
        long,
        env = "HEARTH_DRAIN",
        default_value_t = 25,
        value_parser = clap::value_parser!(u64).range(0..=600),
        value_name = "SECONDS"
    )]
    pub drain: u64,
    /// Let webhooks go to this host too, also over http and on any address or port of it.
    #[arg(
        long,
        env = "HEARTH_WEBHOOK_ALLOW",
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    pub webhook_allow: Vec<WebhookAllowed>,
    /// Tell this worker of the query service of each new query, so that it claims it at once. A
    /// URL without a path is told at /api/process-query.
    #[arg(long, env = "HEARTH_PUSH_URL", value_name = "URL")]
    pub push_url: Option<PushUrl>,
    /// Believe this proxy, or all of this network, when it says for whom a request is
    /// (X-Forwarded-For and -Proto). Several are allowed.
    #[arg(
        long,
        env = "HEARTH_BEHIND_PROXY",
        value_name = "ADDRESS[/BITS]",
        value_delimiter = ','
    )]
    pub behind_proxy: Vec<Network>,
    /// Speak TLS with this certificate, and those that issued it, as PEM. Changed files are read
    /// when somebody connects and on SIGHUP.
    #[arg(
        long,
        env = "HEARTH_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, as PEM.
    #[arg(
        long,
        env = "HEARTH_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// What clients call this relay, where it tells its own address: `https://relay.example`.
    #[arg(long, env = "HEARTH_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,
    /// Requests a second with one key; 0 is no limit.
    #[arg(long, env = "HEARTH_KEY_RATE", default_value_t = 200, value_name = "N")]
    pub key_rate: u32,
    /// How many of them may come at once.
    #[arg(
        long,
        env = "HEARTH_KEY_BURST",
        default_value_t = 1000,
        value_name = "N"
    )]
    pub key_burst: u32,
    /// How often an address may show a bad key or password in a minute; 0 is no limit.
    #[arg(
        long,
        env = "HEARTH_FAILURES_PER_MINUTE",
        default_value_t = 5,
        value_name = "N"
    )]
    pub failures_per_minute: u32,
    /// Most requests at work at once; those that wait for a worker are not. While more come than
    /// are done, a quarter of that.
    #[arg(
        long,
        env = "HEARTH_AT_WORK_MAX",
        value_parser = at_least_one,
        default_value_t = 512,
        value_name = "N"
    )]
    pub at_work_max: usize,
    /// Most connections at once.
    #[arg(
        long,
        env = "HEARTH_CONNECTIONS_MAX",
        value_parser = at_least_one,
        default_value_t = 4096,
        value_name = "N"
    )]
    pub connections_max: usize,
    /// Most connections of one address that have shown no good key; 64, and on this machine no
    /// limit, unless a number is given.
    #[arg(
        long,
        env = "HEARTH_CONNECTIONS_PER_ADDRESS",
        value_parser = at_least_one,
        value_name = "N"
    )]
    pub connections_per_address: Option<usize>,
    /// Most connections with one key; 0 is no limit.
    #[arg(
        long,
        env = "HEARTH_CONNECTIONS_PER_KEY",
        default_value_t = 256,
        value_name = "N"
    )]
    pub connections_per_key: usize,
    /// How long connections are waited for, and how much of theirs is held.
    #[command(flatten)]
    pub bounds: BoundsArgs,
    /// How much the queue takes.
    #[command(flatten)]
    pub terms: TermsArgs,
    /// Show metrics to a scraper at /metrics there, 127.0.0.1:9464 say. Off unless given.
    #[arg(long, env = "HEARTH_METRICS", value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Let --metrics listen where others than this machine reach it.
    #[arg(long)]
    pub metrics_to_all: bool,
    /// Serve everybody on this machine without a key. Refused off loopback.
    #[arg(long)]
    pub insecure_dev: bool,
    /// The settings file: these options by their names, as `lease = 90`. Without it relay.toml in
    /// the user's configuration folder, if there is one.
    #[arg(long, env = "HEARTH_RELAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print every setting and where it came from, then end.
    #[arg(long)]
    pub print_config: bool,
}

impl Args {
    /// Serves until `stop`, and prints where it listens.
    ///
    /// # Errors
    /// One sentence: the address is taken, the store cannot be opened, or nobody has a key.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        telemetry::cores::forbid();
        let store = open(&self.store, System.now(), self.terms.terms()).await?;
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
        let relay = Relay::new(store, settings, Arc::new(System));
        let permitted = relay.permitted(address).await;
        permitted.with_context(|| format!("the relay on {}", self.store))?;
        if let Some(files) = &relay.settings.tls {
            // Who is told that it listens may rely on it.
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
