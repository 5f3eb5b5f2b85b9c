use std::{
    fmt,
    time::{Duration, SystemTime},
};

use proto::{Timestamp, status::Status};
use serde_json::{Value, json};

/// The hub's sources of time and randomness.
pub struct World {
    /// The wall clock, used in the answer to `ping`.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Returns 256 random bits, for challenges.
    pub random: Box<dyn Fn() -> [u8; 32] + Send + Sync>,
}

impl World {
    /// The result of `ping`, in both modes.
    pub(crate) fn pong(&self, status: &Status) -> Value {
        json!({ "time": (self.clock)(), "seq": status.seq })
    }
}

impl Default for World {
    fn default() -> Self {
        Self {
            clock: Box::new(system_clock),
            random: Box::new(rand::random),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the edge")]
fn system_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(0) + since.unwrap_or(Duration::ZERO)
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}
