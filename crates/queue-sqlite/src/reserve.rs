//! A file that reserves disk space for running jobs, for the case that the disk is full.

use std::{
    cell::Cell,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::files;

/// Size of the reserve in bytes: enough for the ends of running jobs and for the write-ahead log
/// between two checkpoints. Erasing needs less: 512 KiB at a time, at most one line of an answer
/// (8 MiB), except for the draft of a query, which is erased as a whole.
pub(crate) const RESERVE: u64 = 24 * 1024 * 1024;
/// Interval between attempts to recreate the file.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// A file beside the queue that reserves space. When the disk is full it is removed, and new jobs
/// are refused until it could be created again.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_there: Cell<bool>,
    tried: Cell<Option<Instant>>,
}

impl Reserve {
    /// Creates the file unless it exists.
    pub(crate) fn new(queue: &Path, bytes: u64) -> Self {
        let path = beside(queue);
        let reserve = Self {
            is_there: Cell::new(path.metadata().is_ok_and(|file| file.len() == bytes)),
            tried: Cell::new(None),
            path,
            bytes,
        };
        if !reserve.is_there.get() {
            reserve.make();
        }
        reserve
    }

    /// Whether the reserve is in use, because the disk was full at the last attempt.
    pub(crate) const fn is_used(&self) -> bool {
        !self.is_there.get()
    }

    /// Free bytes needed in addition to the reserve before new jobs are accepted; otherwise the
    /// next job would fill the disk again.
    pub(crate) const fn margin(&self) -> u64 {
        self.bytes / 4
    }

    /// Releases the reserved space; returns `false` if it is already released.
    pub(crate) fn give(&self, at: Instant) -> bool {
        if self.is_used() {
            return false;
        }
        tracing::error!(
            path = %self.path.display(),
            "the disk is full: new jobs are refused until there is room again"
        );
        self.is_there.set(false);
        self.tried.set(Some(at));
        self.remove();
        true
    }

    /// Recreates the reserve if there is space; returns the time until the next attempt.
    pub(crate) fn take_back(&self, at: Instant) -> Option<Duration> {
        if self.is_there.get() {
            return None;
        }
        let rest = self.tried.get().map_or(Duration::ZERO, |tried| {
            TRY_EVERY.saturating_sub(at.saturating_duration_since(tried))
        });
        if rest.is_zero() {
            self.tried.set(Some(at));
            self.make();
            if self.is_there.get() {
                tracing::info!("the disk has space again: new jobs are accepted");
                return None;
            }
            return Some(TRY_EVERY);
        }
        Some(rest)
    }

    fn make(&self) {
        match self.fill() {
            Ok(()) => self.is_there.set(true),
            Err(error) => {
                // While the disk is full this is tried again and again.
                if self.tried.get().is_none() {
                    tracing::warn!(%error, bytes = self.bytes, "no disk space could be reserved");
                }
                self.remove();
            }
        }
    }

    /// Fills the file. If the system reports the free space, the disk is not filled to find out.
    fn fill(&self) -> io::Result<()> {
        let wanted = self.bytes + self.margin();
        if free(&self.path).is_some_and(|free| free < wanted) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut file = files::private(&self.path).map_err(io::Error::other)?;
        file.set_len(0)?;
        // Not zeros: some file systems do not allocate space for those.
        let part: Vec<u8> = (0..=u8::MAX).cycle().take(64 * 1024).collect();
        let mut left = wanted;
        while left > 0 {
            let some = usize::try_from(left).map_or(part.len(), |left| left.min(part.len()));
            file.write_all(&part[..some])?;
            left -= some as u64;
        }
        file.set_len(self.bytes)
    }

    fn remove(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "the reserved disk space could not be released");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn beside(queue: &Path) -> PathBuf {
    files::beside(queue, ".reserve")
}

/// Frees the reserved space for a start on a full disk. Returns false if there was none.
pub(crate) fn give_before_start(queue: &Path) -> bool {
    let given = fs::remove_file(beside(queue)).is_ok();
    if given {
        tracing::error!(path = %queue.display(), "the disk is full: the relay starts on the reserved space");
    }
    given
}

/// Returns the free space beside this file in bytes; `None` if the file system does not report it.
#[cfg(unix)]
pub(crate) fn free(file: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(file.parent()?).ok()?;
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
pub(crate) const fn free(_: &Path) -> Option<u64> {
    None
}
