//! All readers of the status: one task writes each change to every one of them.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Duration, Instant, sleep_until},
};

use crate::{Snapshot, frames::Frames, line::Line};

/// Number of readers written to before the task yields; about a millisecond of work.
const AT_ONCE: usize = 256;

/// The connections of a hub.
#[derive(Default)]
pub(crate) struct Readers(Mutex<Vec<Arc<Line>>>);

impl Readers {
    /// Shows every change on this line until the guard is dropped.
    pub(crate) fn join(&self, line: Arc<Line>) -> Joined<'_> {
        self.lines().push(line.clone());
        Joined {
            readers: self,
            line,
        }
    }

    /// Writes the latest status to all readers, at most once per `pace`; changes in between are
    /// merged. Ends with the hub.
    pub(crate) async fn show(&self, mut status: watch::Receiver<Arc<Snapshot>>, pace: Duration) {
        let mut from = Instant::now();
        while status.changed().await.is_ok() {
            if Instant::now() < from {
                sleep_until(from).await;
            }
            from = Instant::now() + pace;
            let mut frames = Frames::of(status.borrow_and_update().clone());
            let lines = self.lines().clone();
            for (at, some) in lines.chunks(AT_ONCE).enumerate() {
                if at > 0 {
                    yield_now().await;
                }
                for line in some {
                    line.show(&mut frames);
                }
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.0.lock()
    }
}

/// Removes the line from the readers when dropped.
pub(crate) struct Joined<'a> {
    readers: &'a Readers,
    line: Arc<Line>,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut lines = self.readers.lines();
        let place = lines.iter().position(|line| Arc::ptr_eq(line, &self.line));
        if let Some(place) = place {
            lines.swap_remove(place);
        }
    }
}
