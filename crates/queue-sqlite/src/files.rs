//! The files beside a queue: the lock, the backups before an upgrade, and their permissions.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use proto::Timestamp;

use crate::OpenError;

/// An exclusive lock on the queue for the lifetime of the relay. The system releases it when the
/// process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Locks the queue at `path` for writing, through a lock file beside it.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let beside = beside(path, ".lock");
        let file = private(&beside)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(OpenError::File {
                path: beside,
                source,
            }),
        }
    }
}

impl Drop for Lock {
    /// Releases the lock itself. It belongs to the open file, which a child process that another
    /// thread starts shares until its program runs, so that closing the file here may not end it.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the lock on the queue could not be released");
        }
    }
}

/// Creates the file and its directory, readable by this user only, unless they exist.
pub(crate) fn make(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::File {
        path: path.into(),
        source,
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        make_folder(folder).map_err(failed)?;
    }
    private(path).map(drop)
}

/// Resolves `path` to the real file. SQLite keeps its write-ahead log beside that file, and the
/// lock must be there, too.
pub(crate) fn real(path: &Path) -> Result<PathBuf, OpenError> {
    if !path.is_symlink() {
        return Ok(path.into());
    }
    path.canonicalize().map_err(|source| OpenError::File {
        path: path.into(),
        source,
    })
}

/// Time for which the backup made before an upgrade is kept, so that one can go back. It contains
/// prompts.
const COPY_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Infix of a backup's name, between the name of the file and its layout number.
pub(crate) const COPY: &str = ".layout-";

/// Removes expired backups of earlier layouts.
pub(crate) fn remove_old_copies(path: &Path, now: Timestamp) {
    let Some(name) = path.file_name() else { return };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let start = format!("{}{COPY}", name.to_string_lossy());
    let Ok(files) = fs::read_dir(folder) else {
        return;
    };
    for file in files.flatten() {
        let is_copy = file.file_name().to_string_lossy().starts_with(&start);
        if !is_copy || !is_old(&file, now) {
            continue;
        }
        match fs::remove_file(file.path()) {
            Ok(()) => {
                tracing::info!(
                    copy = %file.path().display(),
                    "removed an old backup of the queue file"
                );
            }
            Err(error) => {
                tracing::warn!(
                    copy = %file.path().display(),
                    %error,
                    "an old backup of the queue file could not be removed"
                );
            }
        }
    }
}

fn is_old(file: &fs::DirEntry, now: Timestamp) -> bool {
    let made = file.metadata().and_then(|file| file.modified()).ok();
    let made = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    made.is_some_and(|made| Timestamp(0) + made + COPY_KEPT <= now)
}

/// Removes a file, if it exists.
pub(crate) fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(OpenError::File {
            path: path.into(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns `path` with `suffix` appended to its file name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

pub(crate) fn private(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| OpenError::File {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_queue_can_be_locked_again_though_a_child_process_shares_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let lock = Lock::take(&path).unwrap();
        // A forked process has the same open file as this, until it runs its program.
        let shared = lock.file.try_clone().unwrap();
        assert!(matches!(Lock::take(&path), Err(OpenError::InUse { .. })));
        drop(lock);
        drop(Lock::take(&path).unwrap());
        drop(shared);
    }
}
