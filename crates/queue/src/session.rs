use std::fmt;

use async_trait::async_trait;
use proto::Timestamp;

use crate::{QueueError, UserId};

/// Most sessions of one user; a further one ends the oldest.
pub const SESSIONS_MAX: usize = 64;

/// Names a session; 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

/// What a user opened by a login: all tokens that were made of each other. `Debug` hides the name
/// of the one in force.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Who logged in.
    pub user: UserId,
    /// The generation of his tokens then.
    pub generation: u64,
    /// Names the one token that renews it.
    pub renewal: [u8; 16],
    /// It ends then unless it is renewed.
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

/// One token that renews a session for the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The one that was shown.
    pub from: [u8; 16],
    /// The one that counts from now on.
    pub to: [u8; 16],
    /// Until then.
    pub until: Timestamp,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// The session goes on.
    Done(Session),
    /// The token was shown before: somebody else has it. The session has ended.
    Reused,
    /// There is no such session any more.
    Gone,
}

/// Where sessions are kept. Other processes may end them at any time.
#[async_trait]
pub trait Sessions: fmt::Debug + Send + Sync {
    /// Stores a new session, and forgets those whose time has passed and the user's oldest beyond
    /// [`SESSIONS_MAX`].
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn open_session(&self, now: Timestamp, session: Session) -> Result<(), QueueError>;

    /// The session, also one whose time has passed.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn find_session(&self, id: SessionId) -> Result<Option<Session>, QueueError>;

    /// Renews a session, in one decision: of several with the same token one goes well, and the
    /// next ends the session.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn renew_session(&self, id: SessionId, renewal: Renewal) -> Result<Renewed, QueueError>;

    /// Ends a session; `false` if there is none.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn end_session(&self, id: SessionId) -> Result<bool, QueueError>;
}
