use std::{
    fmt,
    time::{Duration, SystemTime},
};

use proto::{Timestamp, status::Status};
use serde_json::{Value, json};

/// What the hub takes from outside: the time, and chance.
pub struct World {
    /// The wall clock, of which `ping` tells.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// 256 bits at a time, for challenges.
    pub random: Box<dyn Fn() -> [u8; 32] + Send + Sync>,
}

impl World {
    /// What `ping` gives, in both modes.
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
