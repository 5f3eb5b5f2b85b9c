//! Where the relay reads the clock and draws random bytes: nowhere else.

use std::{
    fmt, io,
    time::{SystemTime, UNIX_EPOCH},
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
}

/// The real ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl World for System {
    #[expect(clippy::disallowed_methods, reason = "this is the edge")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        }))
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}
