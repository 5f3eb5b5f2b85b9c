//! Memory limits of the information that workers report: per key, and in total.

use proto::limits;

use crate::tally::{Part, Tally};

/// Maximum size of the information of one key's workers, including disconnected ones, in bytes.
pub(crate) const OF_KEY_MAX: usize = 4 * limits::SHOWS_MAX;
/// Maximum size of the information of all workers, in bytes.
pub(crate) const OF_ALL_MAX: usize = 32 * limits::SHOWS_MAX;

/// Counters of the stored bytes: in total, and for each key's workers.
#[derive(Debug, Default)]
pub(super) struct MemoryUse(Tally);

/// Limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryFull {
    Key,
    All,
}

impl MemoryUse {
    /// Returns the counter for a new worker of this key.
    pub(super) fn memory(&self, key: &str) -> WorkerMemory {
        WorkerMemory(self.0.part(key))
    }
}

/// Stored bytes of one worker, subtracted on drop; each clone counts again.
#[derive(Debug, Clone)]
pub(super) struct WorkerMemory(Part);

impl WorkerMemory {
    pub(super) fn set(&mut self, bytes: usize) {
        self.0.set(bytes);
    }

    /// Returns the limit that `more` bytes would exceed, if any.
    pub(super) fn full(&self, more: usize) -> Option<MemoryFull> {
        if self.0.of_holder() + more > OF_KEY_MAX {
            Some(MemoryFull::Key)
        } else {
            (self.0.of_all() + more > OF_ALL_MAX).then_some(MemoryFull::All)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_takes_no_room_and_each_key_has_its_own() {
        let memory_use = MemoryUse::default();
        let mut first = memory_use.memory("k");
        first.set(OF_KEY_MAX - 1);
        assert_eq!(first.full(1), None);
        let second = memory_use.memory("k");
        assert_eq!(second.full(2), Some(MemoryFull::Key));
        assert_eq!(memory_use.memory("other").full(2), None);
        let twice = first.clone();
        assert_eq!(second.full(0), Some(MemoryFull::Key));
        first.set(0);
        assert_eq!(
            (second.full(1), second.full(2)),
            (None, Some(MemoryFull::Key))
        );
        drop(twice);
        assert_eq!(second.full(OF_KEY_MAX), None);

        let many = OF_ALL_MAX / OF_KEY_MAX;
        let mut keys: Vec<WorkerMemory> = (0..many)
            .map(|n| memory_use.memory(&n.to_string()))
            .collect();
        keys.iter_mut().for_each(|memory| memory.set(OF_KEY_MAX));
        assert_eq!(second.full(1), Some(MemoryFull::All));
        keys.pop();
        assert_eq!(second.full(1), None);
        drop(keys);
        drop((first, second));
        drop(memory_use.memory("last"));
        assert_eq!(
            memory_use.0.holders(),
            1,
            "nothing is left of keys without workers"
        );
    }
}
