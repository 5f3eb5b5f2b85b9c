//! Settings of a relay, with their defaults.

use std::time::Duration;

use proto::{ModelName, limits};

use crate::{Network, PublicUrl, PushUrl, TlsFiles, WebhookAllowed, webhook};

/// Settings of a relay. The defaults are those of `hearth relay`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelaySettings {
    /// Serve without keys, on loopback only.
    pub insecure_dev: bool,
    /// Model for requests that name none; `None` is the first model of an online worker.
    pub default_model: Option<ModelName>,
    /// Time after which a lease expires unless it is renewed.
    pub lease: Duration,
    /// Time after which a lease of a worker that cannot renew expires.
    pub legacy_lease: Duration,
    /// Maximum time that a native long poll is held.
    pub poll_hold: Duration,
    /// Maximum time that a long poll of the polling protocol is held.
    pub legacy_poll_hold: Duration,
    /// Time for which a polling worker counts as online after its last poll.
    pub online_after_poll: Duration,
    /// Maximum time until the first message of a worker on a WebSocket.
    pub hello_patience: Duration,
    /// Time without any frame after which a worker's WebSocket counts as dead.
    pub carrier_patience: Duration,
    /// Interval between messages of a worker that no lease pays for, after a burst; those of one
    /// WebSocket, or of the polling workers of one key. What comes faster is read later.
    pub unpaid_every: Duration,
    /// Number of such messages in a burst.
    pub unpaid_burst: u32,
    /// Time of silence after which a stream sends a heartbeat, and maximum time that the status
    /// line waits for the first token.
    pub heartbeat: Duration,
    /// Maximum time for the head of a request to arrive.
    pub head_patience: Duration,
    /// Maximum time until the response to a request begins, not counting the wait for a worker or
    /// for the request body.
    pub work_patience: Duration,
    /// Maximum idle time of a connection between two requests.
    pub idle_patience: Duration,
    /// Maximum time that a request body may stall or arrive at less than 1 KiB/s. The whole body
    /// may take six times as long, plus 1 s per 64 KiB.
    pub body_patience: Duration,
    /// Time after which a client that reads nothing of what is sent to it is disconnected.
    pub write_patience: Duration,
    /// Minimum interval between queue-position updates to one client.
    pub place_every: Duration,
    /// Minimum interval between updates to a client that follows the overview.
    pub watch_every: Duration,
    /// Time after which a non-streaming answer begins with whitespace; zero disables it. A later
    /// failure then has status 200.
    pub pad_after: Duration,
    /// Time that a synchronous requester has to come back for its job after a restart.
    pub come_back: Duration,
    /// Maximum time of a shutdown for running jobs and their answers to finish.
    pub drain: Duration,
    /// Interval at which keys and tokens of open requests and connections are checked again.
    pub key_check: Duration,
    /// Webhook targets allowed besides public addresses over https.
    pub webhook_allow: Vec<WebhookAllowed>,
    /// Maximum pauses between the tries of a webhook; there is one more try than pauses.
    pub webhook_pauses: Vec<Duration>,
    /// Worker of the query service to notify of new queries.
    pub push_url: Option<PushUrl>,
    /// Timeout of such a notification.
    pub push_patience: Duration,
    /// Maximum number of connections; further ones wait to be accepted.
    pub connections_max: usize,
    /// Maximum number of connections from one address that have not yet shown a valid key. `None`
    /// is 64, and no limit on this machine, where agents and proxies connect from.
    pub connections_per_address: Option<usize>,
    /// Maximum number of connections with one key; 0 means no limit.
    pub connections_per_key: usize,
    /// Maximum number of requests processed at once, not counting those that wait for a worker.
    /// Further ones are refused; under sustained overload those beyond a quarter.
    pub at_work_max: usize,
    /// Memory budget of request bodies that are still arriving, in bytes. A large body is refused
    /// if the budget, or a quarter of it for one key, is used up.
    pub arriving_max: usize,
    /// Memory budget of answers that are buffered whole, in bytes. A large answer is refused if the
    /// budget, or a quarter of it for one key, is used up.
    pub gathered_max: usize,
    /// Memory for requests on their way to workers, in bytes. No further large one is leased while
    /// it, or a quarter of it for one key, is used up.
    pub sending_max: usize,
    /// Requests per second with one key; 0 means no limit.
    pub key_rate: u32,
    /// Requests that one key may send in a burst.
    pub key_burst: u32,
    /// Overload refusals sent in a burst; further ones are delayed, at most by the time that a
    /// burst takes.
    pub refusals_at_once: u32,
    /// Interval between delayed refusals; zero means no delay.
    pub refusal_every: Duration,
    /// Invalid keys, and failed logins, accepted from one address per minute; 0 means no limit.
    pub failures_per_minute: u32,
    /// Proxies whose `X-Forwarded-*` headers are trusted.
    pub behind_proxy: Vec<Network>,
    /// Certificate and key for TLS.
    pub tls: Option<TlsFiles>,
    /// Maximum time of a TLS handshake.
    pub tls_patience: Duration,
    /// Base URL for links that the relay returns.
    pub public_url: Option<PublicUrl>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            insecure_dev: false,
            default_model: None,
            lease: limits::LEASE,
            legacy_lease: limits::LEGACY_LEASE,
            poll_hold: limits::POLL_HOLD,
            legacy_poll_hold: limits::LEGACY_POLL_HOLD,
            online_after_poll: Duration::from_secs(60),
            hello_patience: Duration::from_secs(5),
            carrier_patience: limits::CARRIER_DEAD,
            unpaid_every: Duration::from_millis(10),
            unpaid_burst: 500,
            heartbeat: limits::STREAM_HEARTBEAT,
            head_patience: Duration::from_secs(10),
            idle_patience: Duration::from_secs(75),
            work_patience: Duration::from_secs(30),
            body_patience: Duration::from_secs(5),
            write_patience: Duration::from_secs(10),
            place_every: Duration::from_secs(1),
            watch_every: Duration::from_millis(250),
            pad_after: limits::PAD_AFTER,
            come_back: Duration::from_secs(30),
            drain: Duration::from_secs(25),
            key_check: Duration::from_secs(4),
            webhook_allow: Vec::new(),
            webhook_pauses: webhook::PAUSES.into(),
            push_url: None,
            push_patience: Duration::from_secs(2),
            connections_max: 4096,
            connections_per_address: None,
            connections_per_key: 256,
            at_work_max: 512,
            arriving_max: limits::ARRIVING_MAX,
            gathered_max: limits::LOGS_MAX,
            sending_max: limits::SENDING_MAX,
            key_rate: 200,
            key_burst: 1000,
            refusals_at_once: 1000,
            refusal_every: Duration::from_millis(1),
            failures_per_minute: 5,
            behind_proxy: Vec::new(),
            tls: None,
            tls_patience: Duration::from_secs(10),
            public_url: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_revoked_is_shut_within_five_seconds() {
        assert!(RelaySettings::default().key_check < Duration::from_secs(5));
    }
}
