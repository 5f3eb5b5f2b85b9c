//! Where the relay reads the clock and draws random bytes: nowhere else.

use std::{
    fmt, io,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proto::Timestamp;

/// The clock and the source of randomness.
pub trait World: fmt::Debug + Send + Sync {
    /// The moment it is.
    fn now(&self) -> Timestamp;

    /// Fresh random bytes.
    ///
    /// # Errors
    /// If the system has none to give.
    fn random(&self) -> io::Result<[u8; 32]>;

    /// What a clock on the wall shows: for what others compare with theirs. It may step, and
    /// goes on while this machine sleeps.
    fn wall(&self) -> Timestamp {
        self.now()
    }
}

/// The real ones. Its clock never steps: all who ask in this process share one start.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

static CLOCK: Clock = Clock(OnceLock::new());

impl World for System {
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

/// The wall clock as it stood when first read, and the time that has passed since. A wall clock
/// that is set back would stop all leases until it caught up with the latest moment seen.
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
