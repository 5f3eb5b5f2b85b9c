//! Slots for open sockets.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::token_check::Grant;

/// A limit on open sockets, of which some are reserved for clients with a token: clients without
/// one cannot keep out the owner's programs.
#[derive(Debug)]
pub(crate) struct SocketSlots {
    any: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// One connection slot; released when dropped.
#[derive(Debug)]
pub(crate) struct SocketSlot(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl SocketSlots {
    pub(crate) fn new(any: usize, kept: usize) -> Self {
        Self {
            any: Arc::new(Semaphore::new(any)),
            kept: Arc::new(Semaphore::new(kept)),
        }
    }

    /// Takes a slot for a connection with these rights; `None` if none is free.
    pub(crate) fn take(&self, grant: Grant) -> Option<SocketSlot> {
        let of = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().ok();
        let kept = || match grant {
            Grant::Read => None,
            Grant::Guest(_) | Grant::Command => of(&self.kept),
        };
        of(&self.any).or_else(kept).map(SocketSlot)
    }
}
