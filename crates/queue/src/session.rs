//! Login sessions of users, and the trait of a store that keeps them.

use std::fmt;

use async_trait::async_trait;
use proto::Timestamp;

use crate::{QueueError, UserId};

/// Maximum number of sessions per user; a further login ends the oldest one.
pub const SESSIONS_MAX: usize = 64;

/// Identifier of a session: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

/// A session that a login opened: the tokens derived from one another. `Debug` hides the identifier
/// of the valid one.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Identifier.
    pub id: SessionId,
    /// User who logged in.
    pub user: UserId,
    /// Token generation of the user at the login.
    pub generation: u64,
    /// Identifier of the one token that can renew the session.
    pub renewal: [u8; 16],
    /// Time at which the session ends unless it is renewed.
    pub until: Timestamp,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// The exchange of one refresh token for the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// Identifier of the token that was presented.
    pub from: [u8; 16],
    /// Identifier of the token that replaces it.
    pub to: [u8; 16],
    /// New end of the session.
    pub until: Timestamp,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// Outcome of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// The session was renewed.
    Done(Session),
    /// The token had been used before, so it may be stolen. The session has ended.
    Reused,
    /// The session does not exist or has ended.
    Gone,
}

/// Storage of sessions. Other processes may end sessions at any time.
///
/// Every method fails with [`QueueError::Store`] if the store cannot be read or written, and with
/// [`QueueError::Unconfirmed`] if it is not known whether it was written.
#[async_trait]
pub trait Sessions: fmt::Debug + Send + Sync {
    /// Stores a new session. Deletes expired sessions, and the user's oldest ones beyond
    /// [`SESSIONS_MAX`].
    async fn open_session(&self, now: Timestamp, session: Session) -> Result<(), QueueError>;

    /// Returns the session, even if it has expired.
    async fn find_session(&self, id: SessionId) -> Result<Option<Session>, QueueError>;

    /// Renews a session atomically: of several calls with the same token one succeeds, and the next
    /// one ends the session.
    async fn renew_session(&self, id: SessionId, renewal: Renewal) -> Result<Renewed, QueueError>;

    /// Ends a session. Returns `false` if it does not exist.
    async fn end_session(&self, id: SessionId) -> Result<bool, QueueError>;
}
