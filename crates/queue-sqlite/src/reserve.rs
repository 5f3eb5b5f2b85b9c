//! Room on the disk that is kept for what must go on when there is no other.

use std::{
    cell::Cell,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::files;

/// Enough for the ends of what is running, for the log between two checkpoints, and for the largest
/// piece that is erased at once: the draft of a query.
pub(crate) const RESERVE: u64 = 24 * 1024 * 1024;
/// How often it is tried to make the file again.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// A file of some size beside the queue. While it is there, there is room; when the disk is full
/// it is removed, and nothing new is taken until it could be made again.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_there: Cell<bool>,
    tried: Cell<Option<Instant>>,
}

impl Reserve {
    /// Makes the file, unless it is there.
    pub(crate) fn new(queue: &Path, bytes: u64) -> Self {
        let path = files::beside(queue, ".reserve");
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

    /// Whether the disk was full when it was last tried.
    pub(crate) const fn is_used(&self) -> bool {
        !self.is_there.get()
    }

    /// How much room beside what is kept there must be for new jobs to be taken: else the next one
    /// would find it full again.
    pub(crate) const fn margin(&self) -> u64 {
        self.bytes / 4
    }

    /// Gives the room away; false if it is gone already.
    pub(crate) fn give(&self, at: Instant) -> bool {
        if self.is_used() {
            return false;
        }
        tracing::error!("the disk is full: new jobs are refused until there is room again");
        self.is_there.set(false);
        self.tried.set(Some(at));
        self.remove();
        true
    }

    /// Takes the room back if there is any; answers after how long to try again.
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
                tracing::info!("there is room on the disk again: new jobs are taken");
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
                tracing::warn!(%error, bytes = self.bytes, "there is no room to be kept free");
                self.remove();
            }
        }
    }

    /// Where the system tells how much is free, the disk is not filled to find out.
    fn fill(&self) -> io::Result<()> {
        let wanted = self.bytes + self.margin();
        if free(&self.path).is_some_and(|free| free < wanted) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut file = files::private(&self.path).map_err(io::Error::other)?;
        file.set_len(0)?;
        // No zeroes: some file systems keep no room for those.
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
                tracing::error!(%error, "the room that was kept free cannot be used");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// How many bytes may be written beside this file, if the file system tells: some have no end.
#[cfg(unix)]
fn free(file: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(file.parent()?).ok()?;
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
const fn free(_: &Path) -> Option<u64> {
    None
}
