//! Errors of opening a queue file, and of groups of decisions that could not be written.

use std::path::PathBuf;

use queue::QueueError;

/// Reasons why a queue file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file cannot be created or read.
    #[error("cannot use {path}: {source}; check that the folder exists and is writable")]
    File {
        /// Path of the directory or file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Another relay has the file open; two writers would corrupt each other's work.
    #[error("{path} is in use by another relay; stop that one, or give this one another --store")]
    InUse {
        /// The queue file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error(
        "{path} has layout {found}, this version knows only {known}; \
         start the version that wrote it, or give another --store"
    )]
    Version {
        /// The queue file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The latest layout this version knows.
        known: i64,
    },
    /// The file is damaged, or is not a queue file.
    #[error(
        "{path} is damaged or not a queue of Hearth: {reason}; \
         move it away and restore a backup, or start with a new file"
    )]
    Damaged {
        /// The queue file.
        path: PathBuf,
        /// Result of the check.
        reason: String,
    },
    /// There is no space for the copy that is made before an upgrade.
    #[error(
        "before {path} is upgraded it is copied, and the disk has no space for that; \
         make {needs_mib} MiB free beside it and start again; nothing was changed"
    )]
    NoRoomToUpgrade {
        /// The queue file.
        path: PathBuf,
        /// Space needed for the copy, in MiB.
        needs_mib: u64,
    },
    /// Any other SQLite error.
    #[error(
        "cannot open {path}: {source}; check that this user may read and write the file and its \
         folder, and that the disk has room"
    )]
    Sqlite {
        /// The queue file.
        path: PathBuf,
        /// Cause.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether the disk was full.
    pub(crate) fn wants_room(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if Cure::from(source) == Cure::Room)
    }
}

impl From<OpenError> for QueueError {
    fn from(error: OpenError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Reasons why a decision failed: alone, or with its whole group.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The call was refused; the other decisions of the group stand.
    Refused(QueueError),
    /// SQLite failed, and with it the whole group.
    Broken(rusqlite::Error),
}

impl From<QueueError> for Fault {
    fn from(error: QueueError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Broken(error)
    }
}

/// A group could not be committed. All its callers get this error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the queue file could not be written: {reason}")]
pub(crate) struct NotWritten {
    reason: String,
    pub(crate) cure: Cure,
}

/// Condition for writing to succeed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Another attempt.
    Again,
    /// Space on the disk.
    Room,
    /// A restart of the process: data that the system reported as written may not be on disk, or
    /// the file is damaged.
    Restart,
}

impl NotWritten {
    /// The writer had stopped before.
    pub(crate) fn not_tried() -> Self {
        Self {
            reason: "its writer has stopped; start the relay again".into(),
            cure: Cure::Again,
        }
    }

    /// The writer thread panicked.
    pub(crate) fn broke_down() -> Self {
        Self {
            reason: "its writer thread failed".into(),
            cure: Cure::Restart,
        }
    }
}

impl From<&rusqlite::Error> for Cure {
    fn from(error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase, SystemIoFailure};
        let extended = error
            .sqlite_error()
            .map(|error| error.extended_code)
            .unwrap_or_default();
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::Room,
            // SQLite could not extend the shared-memory index of the write-ahead log.
            Some(SystemIoFailure) if extended == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => Self::Room,
            Some(SystemIoFailure | DatabaseCorrupt | NotADatabase) => Self::Restart,
            Some(_) | None => Self::Again,
        }
    }
}

impl From<rusqlite::Error> for NotWritten {
    fn from(error: rusqlite::Error) -> Self {
        Self {
            reason: proto::causes(&error),
            cure: Cure::from(&error),
        }
    }
}

impl From<NotWritten> for QueueError {
    fn from(error: NotWritten) -> Self {
        match error.cure {
            Cure::Room => Self::DiskFull,
            Cure::Again => Self::Store(Box::new(error)),
            Cure::Restart => Self::Unconfirmed(Box::new(error)),
        }
    }
}

pub(crate) fn not_read(error: rusqlite::Error) -> QueueError {
    QueueError::Store(Box::new(error))
}
