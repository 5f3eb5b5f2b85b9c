//! Memory of the requests that are on their way to workers. What a worker has not read yet is held
//! for it, so a key that reads slowly gets no further large request meanwhile.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::tally::{Part, Tally};

/// Maximum size of a request that is leased even if there is no memory, in bytes. The buffers of a
/// connection take as much anyway.
pub(crate) const SMALL: usize = 64 * 1024;
/// Divisor of the maximum: a key whose requests take more than a quarter gets no further large one.
const OF_HOLDER: usize = 4;

/// The requests that workers have not read in full, and the limit on their size.
#[derive(Debug)]
pub(crate) struct Sending {
    taken: Tally,
    max: usize,
    /// Holders that found no room and were not told of any since, each with an empty part. Locked
    /// while room is taken and released, so that no announcement is missed.
    waiting: Mutex<HashMap<String, Part>>,
    freed: watch::Sender<u64>,
}

/// Memory for leases that are being looked up, or for a request; released on drop.
#[derive(Debug)]
pub(crate) struct Room {
    sending: Arc<Sending>,
    part: Part,
}

struct CountedRequest {
    request: Bytes,
    _room: Room,
}

impl Sending {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: Tally::default(),
            max,
            waiting: Mutex::default(),
            freed: watch::Sender::default(),
        })
    }

    /// Takes room for what a lookup may find at most. `None` if this holder, or all together, have
    /// used up theirs: [`Self::freed`] then tells when to try again. While nothing is on its way,
    /// there is room for one lookup, however small the maximum.
    pub(crate) fn room(self: &Arc<Self>, holder: &str, most: usize) -> Option<Room> {
        let mut part = self.taken.part(holder);
        let mut waiting = self.waiting.lock();
        if self.is_used_up(&part) {
            waiting.insert(holder.to_owned(), part);
            return None;
        }
        part.set(most);
        drop(waiting);
        Some(Room {
            sending: self.clone(),
            part,
        })
    }

    /// Whether there is room for a lookup, see [`Self::room`].
    pub(crate) fn has_room(&self, holder: &str) -> bool {
        let part = self.taken.part(holder);
        let mut waiting = self.waiting.lock();
        let is_used_up = self.is_used_up(&part);
        if is_used_up {
            waiting.insert(holder.to_owned(), part);
        }
        !is_used_up
    }

    fn is_used_up(&self, part: &Part) -> bool {
        part.of_all() > self.max || part.of_holder() > self.max / OF_HOLDER
    }

    /// Counts a request for as long as it is in memory.
    pub(crate) fn counted(self: &Arc<Self>, holder: &str, request: Bytes) -> Bytes {
        let mut part = self.taken.part(holder);
        part.set(request.len());
        let sending = self.clone();
        Bytes::from_owner(CountedRequest {
            request,
            _room: Room { sending, part },
        })
    }

    /// Size of all, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.taken.bytes()
    }

    /// A counter that rises when there is room again for a holder that found none.
    pub(crate) fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut waiting = self.sending.waiting.lock();
        self.part.set(0);
        let holders = waiting.len();
        waiting.retain(|_, part| self.sending.is_used_up(part));
        if waiting.len() < holders {
            drop(waiting);
            self.sending.freed.send_modify(|count| *count += 1);
        }
    }
}

impl AsRef<[u8]> for CountedRequest {
    fn as_ref(&self) -> &[u8] {
        &self.request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn request(bytes: usize) -> Bytes {
        vec![b'x'; bytes].into()
    }

    #[test]
    fn a_key_that_has_not_read_its_quarter_gets_no_more_until_it_has() {
        let sending = Sending::new(16 * MIB);
        let mut freed = sending.freed();
        let unread = sending.counted("a", request(4 * MIB));
        assert!(sending.has_room("a"), "its quarter is not exceeded");
        let part = sending.counted("a", request(1)).slice(..1);
        assert!(!sending.has_room("a"));
        drop(sending.room("b", 1).expect("others have theirs"));
        assert!(!freed.has_changed().unwrap(), "it is not for this one");
        drop(part);
        assert!(freed.has_changed().unwrap());
        freed.mark_unchanged();
        assert!(sending.has_room("a"));
        drop(unread);
        assert!(!freed.has_changed().unwrap(), "nobody waits for it");
        assert_eq!(sending.bytes(), 0);
    }

    #[test]
    fn all_keys_together_have_a_bound_and_hear_when_there_is_room_again() {
        let sending = Sending::new(16 * MIB);
        let mut unread: Vec<_> = ["a", "b", "c", "d", "e"]
            .map(|holder| sending.counted(holder, request(4 * MIB)))
            .into();
        let freed = sending.freed();
        assert!(!sending.has_room("f"));
        unread.push(sending.counted("f", request(1)));
        unread.remove(0);
        assert!(!freed.has_changed().unwrap(), "one byte is too much");
        unread.pop();
        assert!(freed.has_changed().unwrap());
        assert!(sending.has_room("f"));
    }

    #[test]
    fn those_who_look_at_the_same_moment_do_not_take_the_same_room() {
        let sending = Sending::new(4 * MIB);
        let first = sending.room("a", 2 * MIB).unwrap();
        assert!(sending.room("a", 1).is_none());
        assert!(sending.room("b", 3 * MIB).is_some());
        let second = sending.room("b", 3 * MIB).unwrap();
        assert!(sending.room("c", 1).is_none());
        drop(first);
        assert!(sending.room("c", 1).is_some());
        drop(second);
        // However small the maximum, one lookup fits.
        let sending = Sending::new(1);
        let alone = sending.room("a", 30 * MIB).unwrap();
        assert!(sending.room("b", 1).is_none());
        drop(alone);
        assert!(sending.room("b", 1).is_some());
    }
}
