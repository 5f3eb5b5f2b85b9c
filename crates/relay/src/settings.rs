//! What can be chosen about a relay.

use std::time::Duration;

use proto::{ModelName, limits};

use crate::{Network, PublicUrl, PushUrl, TlsFiles, WebhookAllowed, webhook};

/// How a relay behaves. The defaults are what a user gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelaySettings {
    /// Serve without any key, on loopback only.
    pub insecure_dev: bool,
    /// For requests that name no model; else the first model of a worker online.
    pub default_model: Option<ModelName>,
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// The same for workers that cannot renew.
    pub legacy_lease: Duration,
    /// Longest hold of a native poll.
    pub poll_hold: Duration,
    /// Longest hold of a poll of the polling relay.
    pub legacy_poll_hold: Duration,
    /// How long a worker that polls counts as online after its last poll.
    pub online_after_poll: Duration,
    /// How long a stream is silent before the requester gets a sign of life, and how long the
    /// status line waits for the first token.
    pub heartbeat: Duration,
    /// How long the head of a request may take to arrive.
    pub head_patience: Duration,
    /// How long the work on a request may take until its answer begins; waits for a worker or for
    /// the body are not counted.
    pub work_patience: Duration,
    /// How long a connection may rest between two requests.
    pub idle_patience: Duration,
    /// How long a body may stand still, or come more slowly than 1 KiB a second; all of it may take
    /// six times as long, and longer as long as 64 KiB a second come.
    pub body_patience: Duration,
    /// How long a client may take nothing of what is written to it before its connection is cut.
    pub write_patience: Duration,
    /// How often somebody who waits is told at most that his place in the queue changed.
    pub place_every: Duration,
    /// How often whoever watches the overview is told of changes at most.
    pub watch_every: Duration,
    /// How long an answer in one piece is waited for before white space is sent ahead of it; zero
    /// is for ever. A failure after that has the status 200.
    pub pad_after: Duration,
    /// After a restart, how long a job whose requester was connected is kept for it.
    pub come_back: Duration,
    /// How long running jobs and their answers may go on when the relay is asked to stop.
    pub drain: Duration,
    /// How often the keys of connected workers are checked for revocation.
    pub key_check: Duration,
    /// Where webhooks may go besides public addresses over https.
    pub webhook_allow: Vec<WebhookAllowed>,
    /// Longest pauses between the tries of a webhook; one try more than there are.
    pub webhook_pauses: Vec<Duration>,
    /// Whom to tell of new queries.
    pub push_url: Option<PushUrl>,
    /// How long it may take until he answers.
    pub push_patience: Duration,
    /// Most connections at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// Most connections of one address that have shown no good key yet. `None` is 64, and no limit
    /// on this machine, where agents and proxies connect from.
    pub connections_per_address: Option<usize>,
    /// Most connections with one key; 0 is no limit.
    pub connections_per_key: usize,
    /// Most requests at work at once; those that wait for a worker are not. Further ones are
    /// refused; while more come than are done, those beyond a quarter.
    pub at_work_max: usize,
    /// Bytes of all request bodies that are not whole yet; a long one beyond them, or beyond a
    /// quarter of them with one key, is refused.
    pub arriving_max: usize,
    /// Bytes of all answers that are put together for readers who want them in one piece; a long
    /// one beyond them, or beyond a quarter of them with one key, is refused.
    pub gathered_max: usize,
    /// Requests a second with one key, and how many at once; 0 is no limit.
    pub key_rate: u32,
    /// See `key_rate`.
    pub key_burst: u32,
    /// Refusals for want of room that are told at once; further ones wait in turn, at most as long
    /// as so many take.
    pub refusals_at_once: u32,
    /// Between two of those that wait; zero is no wait.
    pub refusal_every: Duration,
    /// How often an address may show a bad key or password in a minute; 0 is no limit.
    pub failures_per_minute: u32,
    /// Proxies that are believed when they say for whom a request is.
    pub behind_proxy: Vec<Network>,
    /// Speak TLS with these.
    pub tls: Option<TlsFiles>,
    /// How long the TLS handshake may take.
    pub tls_patience: Duration,
    /// What the relay is called by those who reach it, where it tells its own address.
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
