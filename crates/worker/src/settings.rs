use std::{fmt, sync::Arc, time::Duration};

use engine::{Clock, Url};
use proto::{WorkerId, limits};
use secrecy::SecretString;

/// What a worker must be told. [`WorkerSettings::new`] fills in all that has a default.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The relay's address; `/api/worker/v1` is added to its path.
    pub relay: Url,
    /// The worker's key.
    pub key: SecretString,
    /// The worker's name.
    pub worker: WorkerId,
    /// How many jobs may run at once, 1 to 64.
    pub slots: u32,
    /// Begin paused.
    pub start_paused: bool,
    /// Allow those who may to pull, copy, delete and create models of the engine.
    pub allow_model_changes: bool,
    /// Allow `http://` to another machine, where anyone on the way can read the key.
    pub plain_http: bool,
    /// How long running jobs may go on once the worker is asked to stop.
    pub drain: Duration,
    /// Everything that rarely needs another value.
    pub tuning: Tuning,
}

impl WorkerSettings {
    /// One job at a time, not paused, models as they are, 25 s to drain.
    #[must_use]
    pub fn new(relay: Url, key: SecretString, worker: WorkerId) -> Self {
        Self {
            relay,
            key,
            worker,
            slots: 1,
            start_paused: false,
            allow_model_changes: false,
            plain_http: false,
            drain: Duration::from_secs(25),
            tuning: Tuning::default(),
        }
    }
}

/// Times, and where time and chance come from.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Longest wait for the link to stand, and then for the relay's first word.
    pub connect: Duration,
    /// Time between pings.
    pub ping: Duration,
    /// Silence after which a link is dead.
    pub dead: Duration,
    /// Time after which a silent lease is renewed.
    pub heartbeat: Duration,
    /// How long the relay is asked to hold a poll.
    pub poll_hold: Duration,
    /// Longest wait for the peer to take what is written.
    pub write_stall: Duration,
    /// Shortest and longest wait before a link is tried again.
    pub reconnect: (Duration, Duration),
    /// Wait before something that will not heal by itself is tried again: a refused key, an
    /// address where something else than a relay answers.
    pub refused: (Duration, Duration),
    /// How long the worker stays with long polls before it tries the WebSocket again.
    pub upgrade_again: Duration,
    /// Time between looks at the engine's models while a link is up.
    pub probe: Duration,
    /// Shortest and longest wait before an engine that is down is looked at again.
    pub engine_retry: (Duration, Duration),
    /// Shortest and longest time without leasing after the engine failed too often.
    pub breaker: (Duration, Duration),
    /// Least time between two updates of the running jobs in `Activity`.
    pub activity: Duration,
    /// The time of day.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
}

impl Default for Tuning {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connect: secs(10),
            ping: limits::CARRIER_PING,
            dead: limits::CARRIER_DEAD,
            heartbeat: limits::HEARTBEAT,
            poll_hold: limits::POLL_HOLD,
            write_stall: secs(30),
            reconnect: (Duration::from_millis(500), secs(60)),
            refused: (secs(60), secs(600)),
            upgrade_again: secs(300),
            probe: secs(60),
            engine_retry: (Duration::from_millis(500), secs(30)),
            breaker: (secs(15), secs(120)),
            activity: Duration::from_millis(350),
            clock: Clock::default(),
            random: Random::default(),
        }
    }
}

/// Where chance comes from; tests bring their own.
#[derive(Clone)]
pub struct Random(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Random {
    /// Chance that asks `draw` for a number from 0 up to 1.
    pub fn new(draw: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// A number from 0 up to 1.
    #[must_use]
    pub fn draw(&self) -> f64 {
        (self.0)()
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new(rand::random::<f64>)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}
