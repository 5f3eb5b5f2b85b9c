use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::{OpenError, files, files::Lock};

/// Each makes the next layout from the one before; a file's `user_version` counts those it has.
/// One that was released is never changed, only followed.
pub(crate) const STEPS: &[&str] = &[
    include_str!("schema/1_queue.sql"),
    include_str!("schema/2_submissions.sql"),
    include_str!("schema/3_webhooks.sql"),
    include_str!("schema/4_users.sql"),
    include_str!("schema/5_batches.sql"),
    include_str!("schema/6_queries.sql"),
    include_str!("schema/7_worker.sql"),
    include_str!("schema/8_ceilings.sql"),
    include_str!("schema/9_dead.sql"),
    include_str!("schema/10_erasure.sql"),
    include_str!("schema/11_sessions.sql"),
    include_str!("schema/12_kept.sql"),
    include_str!("schema/13_lists.sql"),
    include_str!("schema/14_ends.sql"),
];
const VERSION: i64 = STEPS.len() as i64;
/// How many pages the log has before it is taken into the file.
pub(crate) const PAGES: u32 = 4000;
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// A connection that may write; makes the file and its tables if they are not there. Only the
/// holder of the lock gives a file another layout: no relay is running on it then.
pub(crate) fn open(path: &Path, held: Option<&Lock>) -> Result<Connection, OpenError> {
    files::make(path)?;
    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let explained = |error| explain(path, error);
    lay_out(&mut conn, path, held)?;
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         PRAGMA checkpoint_fullfsync = ON;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;",
    )
    .and_then(|()| conn.pragma_update(None, "wal_autocheckpoint", PAGES))
    .map_err(explained)?;
    Ok(conn)
}

/// A connection that only reads, for a file that was opened before.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.pragma_update(None, "query_only", true)
        .map_err(|error| explain(path, error))?;
    Ok(conn)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, OpenError> {
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|error| explain(path, error))?;
    conn.set_prepared_statement_cache_capacity(64);
    let settings = conn
        .busy_timeout(BUSY)
        .and_then(|()| conn.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA mmap_size = 0;"));
    settings.map_err(|error| explain(path, error))?;
    Ok(conn)
}

fn lay_out(conn: &mut Connection, path: &Path, held: Option<&Lock>) -> Result<(), OpenError> {
    let explained = |error| explain(path, error);
    let found = version(conn).map_err(explained)?;
    if found == VERSION {
        return expect_wal(conn, path);
    }
    // A file of another version must not be touched, so the journal comes after the check.
    let empty = tables(conn).map_err(explained)? == 0;
    let found = version(conn).map_err(explained)?;
    if !(0..=VERSION).contains(&found) {
        return Err(OpenError::Version {
            path: path.into(),
            found,
            known: VERSION,
        });
    }
    if found == 0 && !empty {
        let reason = "it holds tables of another program".into();
        return Err(OpenError::Damaged {
            path: path.into(),
            reason,
        });
    }
    expect_wal(conn, path)?;
    let mut taken = None;
    if (1..VERSION).contains(&found) {
        if held.is_none() {
            taken = Some(Lock::take(path)?);
        }
        back_up(conn, path, found)?;
    }
    let made = (|| {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Somebody else may have been faster.
        let from = usize::try_from(version(&tx)?).unwrap_or(0);
        for step in STEPS.iter().skip(from) {
            tx.execute_batch(step)?;
        }
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()
    })();
    drop(taken);
    made.map_err(explained)
}

/// The file as it was before it is given a later layout, beside it: `queue.db.layout-1`.
fn back_up(conn: &Connection, path: &Path, layout: i64) -> Result<(), OpenError> {
    let copy = files::beside(path, &format!("{}{layout}", files::COPY));
    let unfinished = files::beside(&copy, ".new");
    let failed = |source| OpenError::File {
        path: unfinished.clone(),
        source,
    };
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(failed)?;
    }
    // SQLite takes an empty file, which is made here for nobody else's eyes.
    files::make(&unfinished)?;
    let name = unfinished.to_string_lossy();
    conn.execute("VACUUM INTO ?1", [&*name])
        .map_err(|error| explain(path, error))?;
    std::fs::rename(&unfinished, &copy).map_err(failed)?;
    tracing::info!(copy = %copy.display(), "the queue file gets a new layout; this is the old one");
    Ok(())
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn tables(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
}

fn expect_wal(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let mode = conn.query_row("PRAGMA journal_mode = WAL", [], |row| {
        row.get::<_, String>(0)
    });
    let mode = mode.map_err(|error| explain(path, error))?;
    if mode == "wal" {
        return Ok(());
    }
    let reason = format!("it keeps its journal as {mode:?}, not as \"wal\"");
    Err(OpenError::Damaged {
        path: path.into(),
        reason,
    })
}

/// A clean file larger than this is not looked at as a whole: that would take seconds.
const CHECKED_MAX: u64 = 64 * 1024 * 1024;

/// Whether the last relay on this file ended without closing it, or looking costs nothing.
pub(crate) fn wants_check(path: &Path) -> bool {
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    size(&files::beside(path, "-wal")) > 0 || size(path) <= CHECKED_MAX
}

/// Looks at the whole file, before anything in it is served: about a second for each gigabyte, and
/// what the disk takes to read it.
pub(crate) fn check(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let found = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let found = found.map_err(|error| explain(path, error))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(OpenError::Damaged {
            path: path.into(),
            reason: found,
        })
    }
}

pub(crate) fn explain(path: &Path, source: rusqlite::Error) -> OpenError {
    let unreadable = matches!(
        source,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    );
    let damaged = matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    );
    if unreadable || damaged {
        OpenError::Damaged {
            path: path.into(),
            reason: source.to_string(),
        }
    } else {
        OpenError::Sqlite {
            path: path.into(),
            source,
        }
    }
}
