//! The clock and the source of random bytes, as a trait. Wall-clock time and secret randomness are
//! arguments; timers use tokio's `Instant`, which tests can pause.

use std::{
    fmt, io,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proto::Timestamp;

/// The clock and the source of randomness.
pub trait World: fmt::Debug + Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns fresh random bytes.
    ///
    /// # Errors
    /// The operating system cannot provide any.
    fn random(&self) -> io::Result<[u8; 32]>;

    /// Returns wall-clock time, for comparison with other machines. It may step, and continues
    /// while this machine is suspended.
    fn wall(&self) -> Timestamp {
        self.now()
    }
}

/// The system's clock and randomness. `now` never steps: all calls of this process share one start.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemWorld;

static CLOCK: Clock = Clock(OnceLock::new());

impl World for SystemWorld {
    #[expect(clippy::disallowed_methods, reason = "this is the edge")]
    fn now(&self) -> Timestamp {
        CLOCK.read(SystemTime::now, Instant::now())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the edge")]
    fn wall(&self) -> Timestamp {
        timestamp(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// Wall-clock time at the first read, plus the time since. With a plain wall clock, setting it back
/// would keep all leases from expiring until it caught up.
#[derive(Debug)]
struct Clock(OnceLock<(Duration, Instant)>);

impl Clock {
    fn read(&self, wall: impl FnOnce() -> SystemTime, at: Instant) -> Timestamp {
        let (start, began) = *self.0.get_or_init(|| {
            let start = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            (start, at)
        });
        let now = start.saturating_add(at.saturating_duration_since(began));
        timestamp(now)
    }
}

fn timestamp(since: Duration) -> Timestamp {
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_moves_no_moment() {
        let clock = Clock(OnceLock::new());
        let began = Instant::now();
        let read = |wall, passed| {
            let wall = UNIX_EPOCH + Duration::from_secs(wall);
            clock.read(|| wall, began + Duration::from_secs(passed))
        };
        assert_eq!(read(1_000, 0), Timestamp(1_000_000));
        assert_eq!(read(400, 1), Timestamp(1_001_000), "set back");
        assert_eq!(read(9_000, 2), Timestamp(1_002_000), "set forward");
    }
}
