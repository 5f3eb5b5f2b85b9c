//! The layout of the queue file: opening connections, upgrades, and the integrity check.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::{OpenError, files, files::Lock, reserve};

/// The upgrade steps, each from one layout to the next. A file's `user_version` is the number of
/// steps it has. A released step is never changed, only followed by another.
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
    include_str!("schema/15_erasures.sql"),
    include_str!("schema/16_past.sql"),
];
const VERSION: i64 = STEPS.len() as i64;
/// Number of pages in the write-ahead log that triggers a checkpoint.
pub(crate) const PAGES: u32 = 4000;
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// Opens a connection for writing; creates the file and its tables if they do not exist. Only the
/// holder of the lock upgrades the layout, because no relay is running on the file then.
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

/// Opens a read-only connection to a file that was opened before.
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
    // A file of a newer version must not be modified, so the journal mode is set after the check.
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
        // Another process may have upgraded it in the meantime.
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

/// Copies the file before an upgrade, for example to `queue.db.layout-1`. The reserve is not used
/// for it: it is meant for running jobs, and the copy stays for days.
fn back_up(conn: &Connection, path: &Path, layout: i64) -> Result<(), OpenError> {
    let copy = files::beside(path, &format!("{}{layout}", files::COPY));
    let unfinished = files::beside(&copy, ".new");
    let journal = files::beside(&unfinished, "-journal");
    for left in [&unfinished, &journal] {
        files::remove(left)?;
    }
    let needs = size_of_copy(conn).map_err(|error| explain(path, error))?;
    let no_room = || OpenError::NoRoomToUpgrade {
        path: path.into(),
        needs_mib: needs.div_ceil(1024 * 1024),
    };
    let older = copy.metadata().map_or(0, |copy| copy.len());
    let free = reserve::free(path);
    if free.is_some_and(|free| free.saturating_add(older) < needs) {
        return Err(no_room());
    }
    // The copy of an upgrade that was rolled back is replaced at the end, unless its space is
    // needed.
    if free.is_some_and(|free| free < needs) {
        files::remove(&copy)?;
    }
    // SQLite accepts an empty file; it is created here with permissions for this user only.
    files::make(&unfinished)?;
    let name = unfinished.to_string_lossy();
    if let Err(error) = conn.execute("VACUUM INTO ?1", [&*name]) {
        files::remove(&unfinished)?;
        files::remove(&journal)?;
        let error = explain(path, error);
        return Err(if error.wants_room() { no_room() } else { error });
    }
    std::fs::rename(&unfinished, &copy).map_err(|source| OpenError::File {
        path: unfinished.clone(),
        source,
    })?;
    tracing::info!(
        copy = %copy.display(),
        "the queue file is upgraded; this is a backup of the old one"
    );
    Ok(())
}

/// Space in bytes to make free for a copy of the file, and for what is written meanwhile.
fn size_of_copy(conn: &Connection) -> rusqlite::Result<u64> {
    const BESIDE: u64 = 1024 * 1024;
    let pragma =
        |name| conn.pragma_query_value(None, name, |row| row.get(0).map(i64::cast_unsigned));
    let used = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(used * pragma("page_size")? + BESIDE)
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
    let reason = format!("its journal mode is {mode:?}, not \"wal\"");
    Err(OpenError::Damaged {
        path: path.into(),
        reason,
    })
}

/// Size in bytes above which a cleanly closed file is not checked in full, which would take
/// seconds.
const CHECKED_MAX: u64 = 64 * 1024 * 1024;

/// Whether to check the file: the last relay did not close it, or it is small.
pub(crate) fn wants_check(path: &Path) -> bool {
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    size(&files::beside(path, "-wal")) > 0 || size(path) <= CHECKED_MAX
}

/// Checks the whole file before it is served. Takes about a second per gigabyte, plus the time to
/// read it from disk.
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
            reason: proto::causes(&source),
        }
    } else {
        OpenError::Sqlite {
            path: path.into(),
            source,
        }
    }
}
