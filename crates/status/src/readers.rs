//! All readers of the status: one task writes each change to every one of them.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Duration, Instant, sleep_until},
};

use crate::{Snapshot, connection::Connection, frames::Frames};

/// Number of readers written to before the task yields; about a millisecond of work.
const AT_ONCE: usize = 256;

/// The connections of a hub. A list that is being shown to is not changed but copied.
#[derive(Default)]
pub(crate) struct Readers(Mutex<Arc<Vec<Arc<Connection>>>>);

impl Readers {
    /// Shows every change on this connection until the guard is dropped.
    pub(crate) fn join(&self, connection: Arc<Connection>) -> Joined<'_> {
        Arc::make_mut(&mut self.connections()).push(connection.clone());
        Joined {
            readers: self,
            connection,
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
            let connections = Arc::clone(&self.connections());
            for (at, some) in connections.chunks(AT_ONCE).enumerate() {
                if at > 0 {
                    yield_now().await;
                }
                for connection in some {
                    connection.show(&mut frames);
                }
            }
        }
    }

    fn connections(&self) -> MutexGuard<'_, Arc<Vec<Arc<Connection>>>> {
        self.0.lock()
    }
}

/// Removes the connection from the readers when dropped.
pub(crate) struct Joined<'a> {
    readers: &'a Readers,
    connection: Arc<Connection>,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut connections = self.readers.connections();
        let place = connections
            .iter()
            .position(|connection| Arc::ptr_eq(connection, &self.connection));
        if let Some(place) = place {
            Arc::make_mut(&mut connections).swap_remove(place);
        }
    }
}
