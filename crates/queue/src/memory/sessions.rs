//! Sessions of the store in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use proto::Timestamp;

use super::MemoryQueue;
use crate::{QueueError, Renewal, Renewed, SESSIONS_MAX, Session, SessionId, Sessions};

/// Open sessions, oldest first.
#[derive(Default)]
pub(super) struct Opened {
    last: u64,
    sessions: BTreeMap<SessionId, (u64, Session)>,
}

impl Opened {
    /// Ends all sessions.
    pub(super) fn clear(&mut self) {
        self.sessions.clear();
    }
}

#[async_trait]
impl Sessions for MemoryQueue {
    async fn open_session(&self, now: Timestamp, session: Session) -> Result<(), QueueError> {
        let mut inner = self.open()?;
        let Opened { last, sessions } = &mut inner.opened;
        *last += 1;
        sessions.retain(|_, (_, session)| session.until > now);
        let user = session.user;
        sessions.insert(session.id, (*last, session));
        let own = sessions.iter().filter(|(_, (_, had))| had.user == user);
        let mut own: Vec<_> = own.map(|(id, (number, _))| (*number, *id)).collect();
        own.sort_unstable();
        let over = own.len().saturating_sub(SESSIONS_MAX);
        for (_, id) in own.into_iter().take(over) {
            sessions.remove(&id);
        }
        Ok(())
    }

    async fn find_session(&self, id: SessionId) -> Result<Option<Session>, QueueError> {
        let inner = self.open()?;
        Ok(inner.opened.sessions.get(&id).map(|(_, had)| had.clone()))
    }

    async fn renew_session(&self, id: SessionId, renewal: Renewal) -> Result<Renewed, QueueError> {
        let mut inner = self.open()?;
        let sessions = &mut inner.opened.sessions;
        let Some((_, session)) = sessions.get_mut(&id) else {
            return Ok(Renewed::Gone);
        };
        if session.renewal != renewal.from {
            sessions.remove(&id);
            return Ok(Renewed::Reused);
        }
        session.renewal = renewal.to;
        session.until = renewal.until;
        Ok(Renewed::Done(session.clone()))
    }

    async fn end_session(&self, id: SessionId) -> Result<bool, QueueError> {
        Ok(self.open()?.opened.sessions.remove(&id).is_some())
    }
}
