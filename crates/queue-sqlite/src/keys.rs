//! API keys in the queue file, and the connections for keys, users and sessions.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{Account, Timestamp};
use queue::{KeyRecord, Keys, QueueError};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use tokio::task::spawn_blocking;

use crate::{
    error::{Fault, not_read},
    files,
    reader::Reader,
    row::{text, wrong},
    schema,
    sqlite::Shared,
};

/// The API keys, users and sessions of a queue file, whether or not a relay is running on it.
#[derive(Debug)]
pub struct SqliteKeys {
    /// Separate connection, so that a lookup never waits for a list or a change.
    find: Mutex<Connection>,
    pub(crate) lists: Reader,
    changes: Changes,
}

/// Access of changes to the file.
#[derive(Debug)]
enum Changes {
    /// By a process beside the relay, or before it starts.
    Beside(Arc<Mutex<Connection>>),
    /// By the relay's writer thread: two writers in one process would delay each other.
    Writer(Arc<Shared>),
}

impl SqliteKeys {
    /// Opens the keys and users of a file; creates the file if it does not exist.
    ///
    /// # Errors
    /// [`QueueError::Store`] with a [`crate::OpenError`].
    pub fn open(path: &Path) -> Result<Self, QueueError> {
        files::make(path)?;
        let path = &*files::real(path)?;
        let conn = schema::open(path, None)?;
        Self::with(path, Changes::Beside(Arc::new(Mutex::new(conn))))
    }

    /// Opens the keys and users of a file that the relay has open.
    pub(crate) fn of(path: &Path, shared: Arc<Shared>) -> Result<Self, QueueError> {
        Self::with(path, Changes::Writer(shared))
    }

    fn with(path: &Path, changes: Changes) -> Result<Self, QueueError> {
        Ok(Self {
            find: Mutex::new(schema::open_reader(path)?),
            lists: Reader::open(path, 1)?,
            changes,
        })
    }

    /// Makes a change in one transaction. `change` must check before it writes, because a refusal
    /// does not undo what it wrote.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        mut change: impl FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, QueueError> {
        let conn = match &self.changes {
            Changes::Writer(shared) => return shared.ask(move |group| change(group.conn)).await,
            Changes::Beside(conn) => conn.clone(),
        };
        let done = spawn_blocking(move || {
            let mut conn = conn.lock();
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = change(&tx)?;
            tx.commit()?;
            Ok(answer)
        });
        done.await
            .map_err(|_| QueueError::closed())?
            .map_err(|fault| match fault {
                Fault::Refused(error) => error,
                Fault::Broken(error) => not_read(error),
            })
    }

    /// Reads on the calling thread: a lookup reads one page from memory, which is not worth a
    /// thread.
    pub(crate) fn find<T>(
        &self,
        find: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, QueueError> {
        let conn = self.find.lock();
        find(&conn).map_err(not_read)
    }
}

#[async_trait]
impl Keys for SqliteKeys {
    async fn create_key(&self, key: KeyRecord) -> Result<(), QueueError> {
        self.change(move |conn| {
            if let Some(taken) = all(conn)?.iter().find_map(|had| had.taken(&key)) {
                return Err(QueueError::Exists(taken).into());
            }
            Ok(insert(conn, &key)?)
        })
        .await
    }

    /// Changes by other processes are visible at once.
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, QueueError> {
        self.find(|conn| {
            let mut select = conn.prepare_cached("SELECT * FROM keys WHERE id = ?1")?;
            select.query_row([id], key).optional()
        })
    }

    async fn list_keys(&self) -> Result<Vec<KeyRecord>, QueueError> {
        self.lists.read(all).await
    }

    async fn revoke_key(&self, now: Timestamp, id_or_name: &str) -> Result<bool, QueueError> {
        let id_or_name = id_or_name.to_owned();
        self.change(move |conn| {
            let revoked = conn.execute(
                "UPDATE keys SET revoked_at = ?1 WHERE seq = (SELECT seq FROM keys
                 WHERE revoked_at IS NULL AND ?2 IN (id, name) ORDER BY seq LIMIT 1)",
                (now.0, &id_or_name),
            )?;
            Ok(revoked > 0)
        })
        .await
    }

    async fn note_key_used(&self, now: Timestamp, id: &str) -> Result<(), QueueError> {
        let id = id.to_owned();
        self.change(move |conn| {
            let update = "UPDATE keys SET last_used_at = ?1 WHERE id = ?2";
            conn.execute(update, (now.0, &id))?;
            Ok(())
        })
        .await
    }
}

fn all(conn: &Connection) -> rusqlite::Result<Vec<KeyRecord>> {
    conn.prepare("SELECT * FROM keys ORDER BY seq")?
        .query_map([], key)?
        .collect()
}

fn insert(conn: &Connection, key: &KeyRecord) -> rusqlite::Result<()> {
    let mut insert = conn.prepare(
        "INSERT INTO keys (id, name, account, scopes, serve, secret_sha256, created_at, revoked_at,
             ceiling, expires_at, last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let inserted = insert.execute((
        &key.id,
        &key.name,
        key.account.as_str(),
        text(&key.scopes)?,
        text(&key.serve)?,
        key.secret_sha256,
        key.created_at.0,
        key.revoked_at.map(|at| at.0),
        text(&key.ceiling)?,
        key.expires_at.map(|at| at.0),
        key.last_used_at.map(|at| at.0),
    ));
    inserted.map(drop)
}

fn key(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let name = |column: &str| row.get::<_, String>(column);
    let moment = |column: &str| row.get(column).map(|at: Option<i64>| at.map(Timestamp));
    let serve = name("serve")?;
    // `all` is stored as the bare word used on the wire.
    let serve = if serve == "all" {
        "\"all\"".to_owned()
    } else {
        serve
    };
    Ok(KeyRecord {
        id: name("id")?,
        name: name("name")?,
        account: Account::new(name("account")?).map_err(|error| wrong("account", error))?,
        scopes: serde_json::from_str(&name("scopes")?).map_err(|error| wrong("scopes", error))?,
        serve: serde_json::from_str(&serve).map_err(|error| wrong("serve", error))?,
        secret_sha256: row.get("secret_sha256")?,
        created_at: Timestamp(row.get("created_at")?),
        revoked_at: moment("revoked_at")?,
        ceiling: serde_json::from_str(&name("ceiling")?)
            .map_err(|error| wrong("ceiling", error))?,
        expires_at: moment("expires_at")?,
        last_used_at: moment("last_used_at")?,
    })
}
