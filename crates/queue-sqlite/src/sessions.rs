//! Sessions in the queue file.

use async_trait::async_trait;
use proto::Timestamp;
use queue::{QueueError, Renewal, Renewed, SESSIONS_MAX, Session, SessionId, Sessions};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    SqliteKeys, SqliteQueue,
    row::{count, number},
};

/// Deletes expired sessions.
pub(crate) const FORGET: &str = "DELETE FROM sessions WHERE until <= ?1";

#[async_trait]
impl Sessions for SqliteKeys {
    async fn open_session(&self, now: Timestamp, session: Session) -> Result<(), QueueError> {
        self.change(move |conn| {
            conn.execute(FORGET, [now.0])?;
            conn.execute(
                "INSERT INTO sessions (id, user, generation, renewal, until)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (
                    session.id.0,
                    number(session.user),
                    number(session.generation),
                    session.renewal,
                    session.until.0,
                ),
            )?;
            conn.execute(
                "DELETE FROM sessions WHERE number IN (SELECT number FROM sessions
                 WHERE user = ?1 ORDER BY number DESC LIMIT -1 OFFSET ?2)",
                (number(session.user), number(SESSIONS_MAX as u64)),
            )?;
            Ok(())
        })
        .await
    }

    async fn find_session(&self, id: SessionId) -> Result<Option<Session>, QueueError> {
        self.find(|conn| found(conn, id))
    }

    async fn renew_session(&self, id: SessionId, renewal: Renewal) -> Result<Renewed, QueueError> {
        self.change(move |conn| {
            let Some(session) = found(conn, id)? else {
                return Ok(Renewed::Gone);
            };
            if session.renewal != renewal.from {
                conn.execute("DELETE FROM sessions WHERE id = ?1", [id.0])?;
                return Ok(Renewed::Reused);
            }
            conn.execute(
                "UPDATE sessions SET renewal = ?2, until = ?3 WHERE id = ?1",
                (id.0, renewal.to, renewal.until.0),
            )?;
            Ok(Renewed::Done(Session {
                renewal: renewal.to,
                until: renewal.until,
                ..session
            }))
        })
        .await
    }

    async fn end_session(&self, id: SessionId) -> Result<bool, QueueError> {
        self.change(move |conn| Ok(conn.execute("DELETE FROM sessions WHERE id = ?1", [id.0])? > 0))
            .await
    }
}

fn found(conn: &Connection, id: SessionId) -> rusqlite::Result<Option<Session>> {
    let mut select = conn.prepare_cached("SELECT * FROM sessions WHERE id = ?1")?;
    select.query_row([id.0], session).optional()
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: SessionId(row.get("id")?),
        user: count(row, "user")?,
        generation: count(row, "generation")?,
        renewal: row.get("renewal")?,
        until: Timestamp(row.get("until")?),
    })
}

#[async_trait]
impl Sessions for SqliteQueue {
    async fn open_session(&self, now: Timestamp, session: Session) -> Result<(), QueueError> {
        self.keys.open_session(now, session).await
    }

    async fn find_session(&self, id: SessionId) -> Result<Option<Session>, QueueError> {
        self.keys.find_session(id).await
    }

    async fn renew_session(&self, id: SessionId, renewal: Renewal) -> Result<Renewed, QueueError> {
        self.keys.renew_session(id, renewal).await
    }

    async fn end_session(&self, id: SessionId) -> Result<bool, QueueError> {
        self.keys.end_session(id).await
    }
}
