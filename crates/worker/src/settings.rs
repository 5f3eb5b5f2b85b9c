//! Settings of a worker, with its timeouts, clock and source of randomness.

use std::{fmt, sync::Arc, time::Duration};

use engine::{Clock, Url};
use proto::{WorkerId, limits};
use secrecy::SecretString;

/// Default time for running jobs to end after the worker is told to stop.
pub const DRAIN: Duration = Duration::from_secs(25);

/// Settings of a worker. [`WorkerSettings::new`] sets the defaults.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// URL of the relay; `/api/worker/v1` is appended to its path.
    pub relay: Url,
    /// Key of the worker.
    pub key: SecretString,
    /// Name of the worker.
    pub worker: WorkerId,
    /// Maximum number of concurrent jobs, 1 to 64.
    pub slots: u32,
    /// Whether to start paused.
    pub start_paused: bool,
    /// Whether requesters with permission may pull, copy, delete and create models of the engine.
    pub allow_model_changes: bool,
    /// Whether to allow `http://` to another machine, where anyone on the network path can read the
    /// key.
    pub plain_http: bool,
    /// Maximum time for running jobs to end after the worker is told to stop.
    pub drain: Duration,
    /// Settings that rarely need another value.
    pub tuning: Tuning,
}

impl WorkerSettings {
    /// Creates settings with the defaults: one job at a time, not paused, no changes of models, 25
    /// s to drain.
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
            drain: DRAIN,
            tuning: Tuning::default(),
        }
    }
}

/// Timeouts and intervals, clock, and source of randomness.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Timeout of connecting, and of the relay's first message.
    pub connect: Duration,
    /// Interval of pings.
    pub ping: Duration,
    /// Time without any message after which a link is dead.
    pub dead: Duration,
    /// Interval of renewing leases without output.
    pub heartbeat: Duration,
    /// Time for which the relay is asked to hold a poll.
    pub poll_hold: Duration,
    /// Timeout of writes.
    pub write_stall: Duration,
    /// Shortest and longest wait before reconnecting.
    pub reconnect: (Duration, Duration),
    /// Shortest and longest wait after an error that will not go away by itself: a refused key, or
    /// an address at which something other than a relay answers.
    pub refused: (Duration, Duration),
    /// Time of using long polls before the WebSocket is tried again.
    pub upgrade_again: Duration,
    /// Interval of engine probes while a link is up.
    pub probe: Duration,
    /// Shortest and longest wait before an engine that is down is probed again.
    pub engine_retry: (Duration, Duration),
    /// Shortest and longest pause of leasing after the engine failed too often.
    pub breaker: (Duration, Duration),
    /// Minimum interval between two updates of the running jobs in `Activity`.
    pub activity: Duration,
    /// Maximum time of one job on the engine, after which it fails; `None` for no limit. Changes of
    /// models are not limited by it.
    pub job_limit: Option<Duration>,
    /// Wall clock.
    pub clock: Clock,
    /// Source of randomness.
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
            job_limit: Some(secs(30 * 60)),
            clock: Clock::default(),
            random: Random::default(),
        }
    }
}

/// Source of random numbers; tests provide their own.
#[derive(Clone)]
pub struct Random(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Random {
    /// A source that calls `draw` for a number in `0.0..1.0`.
    pub fn new(draw: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// Returns a number in `0.0..1.0`.
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
