//! The places of open sockets.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::door::Grant;

/// Most are for whoever comes, some for who proved a token: strangers who hold all that they can
/// keep no program of the owner's out.
#[derive(Debug)]
pub(crate) struct Room {
    any: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Room {
    pub(crate) fn new(any: usize, kept: usize) -> Self {
        Self {
            any: Arc::new(Semaphore::new(any)),
            kept: Arc::new(Semaphore::new(kept)),
        }
    }

    /// A place for one who may do this much, if there is one.
    pub(crate) fn take(&self, grant: Grant) -> Option<Place> {
        let of = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().ok();
        let kept = || match grant {
            Grant::Read => None,
            Grant::Guest(_) | Grant::Command => of(&self.kept),
        };
        of(&self.any).or_else(kept).map(Place)
    }
}
