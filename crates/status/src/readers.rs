//! All who are shown the status: each change is written to every one of them from one place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::watch,
    task::yield_now,
    time::{Duration, Instant, sleep_until},
};

use crate::{Snapshot, frames::Frames, line::Line};

/// Written to before others have their turn: about a millisecond.
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

    /// Shows the latest status to all, no sooner than `pace` after the one before: however often
    /// it changes meanwhile, it is one. Ends with the hub.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line that statuses are shown on.
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
