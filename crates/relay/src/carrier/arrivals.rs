//! What those who wait for a job listen to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch::{Receiver, error::RecvError};

use crate::{
    Relay,
    sending::{Room, Sending},
};

/// Tells one who asks for jobs when to ask again: a job has become available, or there is memory
/// again for a large request, if there was none.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(super) holder: String,
    sending: Arc<Sending>,
    jobs: Receiver<u64>,
    room: Receiver<u64>,
    lacks_room: AtomicBool,
}

impl Arrivals {
    /// Creates the news for a worker of this holder.
    pub(crate) fn of(relay: &Relay, holder: String) -> Self {
        Self {
            holder,
            sending: relay.sending.clone(),
            jobs: relay.store.arrivals(),
            room: relay.sending.freed(),
            lacks_room: AtomicBool::new(false),
        }
    }

    /// Whether there is something new. An error says that the store is closed.
    pub(crate) fn has_changed(&self) -> Result<bool, RecvError> {
        let lacks_room = self.lacks_room.load(Ordering::Relaxed);
        Ok(self.jobs.has_changed()? || lacks_room && self.room.has_changed()?)
    }

    /// Marks everything so far as seen, before a request for jobs.
    pub(crate) fn mark_seen(&mut self) {
        self.jobs.mark_unchanged();
        self.room.mark_unchanged();
        self.lacks_room = AtomicBool::new(false);
    }

    /// Takes room for what a lookup may find at most, see [`Sending::room`].
    pub(super) fn take_room(&self, most: usize) -> Option<Room> {
        let room = self.sending.room(&self.holder, most);
        self.note(room.is_some());
        room
    }

    /// Whether there is room for a lookup.
    pub(super) fn has_room(&self) -> bool {
        self.note(self.sending.has_room(&self.holder))
    }

    fn note(&self, has_room: bool) -> bool {
        self.lacks_room.fetch_or(!has_room, Ordering::Relaxed);
        has_room
    }

    /// Waits for something new. Dropping a pending call loses nothing.
    pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
        tokio::select! {
            arrived = self.jobs.changed() => arrived,
            freed = self.room.changed(), if *self.lacks_room.get_mut() => freed,
        }
    }
}
