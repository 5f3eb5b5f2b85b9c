//! [`Clock`]: the wall clock as an argument.

use std::{fmt, sync::Arc, time::SystemTime};

use proto::Timestamp;

/// Source of the current wall-clock time; tests provide their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that calls `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    /// The system clock.
    fn default() -> Self {
        Self::new(|| {
            #[expect(clippy::disallowed_methods, reason = "this is the edge")]
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let millis = now.map_or(0, |since| since.as_millis());
            Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
