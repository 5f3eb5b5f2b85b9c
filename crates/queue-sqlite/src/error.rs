use std::path::PathBuf;

use queue::QueueError;

/// Why a queue file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be made or read.
    #[error("cannot use {path}: {source}; check that the folder exists and is writable")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Two writers would undo each other's work.
    #[error("{path} is in use by another relay; stop that one, or give this one another --store")]
    InUse {
        /// The queue file.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error(
        "{path} has layout {found}, this version knows only {known}; \
         start the version that wrote it, or give another --store"
    )]
    Version {
        /// The queue file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It is not ours, or it is damaged.
    #[error(
        "{path} is damaged or not a queue of Hearth: {reason}; \
         move it away and restore a backup, or start with a new file"
    )]
    Damaged {
        /// The queue file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Anything else SQLite says.
    #[error("cannot open {path}: {source}")]
    Sqlite {
        /// The queue file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl From<OpenError> for QueueError {
    fn from(error: OpenError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Why a decision was not made: the group's other decisions stand, or they fall with it.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The caller asked for what cannot be.
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

/// A group could not be committed; everybody in it is told the same.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the queue file could not be written: {reason}")]
pub(crate) struct NotWritten {
    reason: String,
    pub(crate) cure: Cure,
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Trying again.
    Again,
    /// Room on the disk.
    Room,
    /// Nothing while this process lives: what the system said was written may not be, or the file
    /// is damaged.
    Restart,
}

impl NotWritten {
    /// The thread that writes has panicked.
    pub(crate) fn broke_down() -> Self {
        Self {
            reason: "its writer broke down".into(),
            cure: Cure::Restart,
        }
    }
}

impl From<rusqlite::Error> for NotWritten {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase, SystemIoFailure};
        let extended = error
            .sqlite_error()
            .map(|error| error.extended_code)
            .unwrap_or_default();
        let cure = match error.sqlite_error_code() {
            Some(DiskFull) => Cure::Room,
            // The index of the log could not grow.
            Some(SystemIoFailure) if extended == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => Cure::Room,
            Some(SystemIoFailure | DatabaseCorrupt | NotADatabase) => Cure::Restart,
            Some(_) | None => Cure::Again,
        };
        Self {
            reason: error.to_string(),
            cure,
        }
    }
}

impl From<NotWritten> for QueueError {
    fn from(error: NotWritten) -> Self {
        match error.cure {
            Cure::Room => Self::DiskFull,
            Cure::Again | Cure::Restart => Self::Store(Box::new(error)),
        }
    }
}

pub(crate) fn not_read(error: rusqlite::Error) -> QueueError {
    QueueError::Store(Box::new(error))
}
