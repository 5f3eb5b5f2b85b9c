//! Byte counters: per holder of a key, and in total.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use queue::KeyId;

type Count = Arc<AtomicUsize>;

/// Counters of bytes in use, shared by all clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    all: Count,
    holders: Arc<Mutex<HashMap<KeyId, Count>>>,
}

impl Tally {
    /// Returns an empty part for this holder.
    pub(crate) fn part(&self, holder: &str) -> Part {
        let mut holders = self.holders.lock();
        if !holders.contains_key(holder) {
            holders.retain(|_, count| Arc::strong_count(count) > 1);
            holders.insert(holder.to_owned(), Count::default());
        }
        Part {
            own: 0,
            of_holder: holders.get(holder).cloned().unwrap_or_default(),
            of_all: self.all.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        self.holders.lock().len()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

/// Bytes of one item, subtracted on drop; each clone counts again.
#[derive(Debug)]
pub(crate) struct Part {
    own: usize,
    of_holder: Count,
    of_all: Count,
}

impl Part {
    pub(crate) const fn bytes(&self) -> usize {
        self.own
    }

    pub(crate) fn of_holder(&self) -> usize {
        self.of_holder.load(Ordering::Relaxed)
    }

    pub(crate) fn of_all(&self) -> usize {
        self.of_all.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        for count in [&self.of_holder, &self.of_all] {
            if bytes >= self.own {
                count.fetch_add(bytes - self.own, Ordering::Relaxed);
            } else {
                count.fetch_sub(self.own - bytes, Ordering::Relaxed);
            }
        }
        self.own = bytes;
    }
}

impl Clone for Part {
    fn clone(&self) -> Self {
        let mut clone = Self {
            own: 0,
            of_holder: self.of_holder.clone(),
            of_all: self.of_all.clone(),
        };
        clone.set(self.own);
        clone
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}
