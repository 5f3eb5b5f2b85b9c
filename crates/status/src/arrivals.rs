//! A bound on connections whose purpose is not known yet.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// Connections that have not sent a complete request yet. Every new one is accepted; above the
/// limit the oldest one is closed. So idle connections cannot keep out clients that send requests.
#[derive(Debug, Clone)]
pub struct Arrivals(Arc<Mutex<Waiting>>);

#[derive(Debug)]
struct Waiting {
    most: usize,
    next: u64,
    all: BTreeMap<u64, CancellationToken>,
}

/// A new connection; removed from the set when dropped.
#[derive(Debug)]
pub struct Arrival {
    among: Arrivals,
    number: u64,
    cut: CancellationToken,
}

/// Keeps a connection out of the set of [`Arrivals`] until dropped.
#[derive(Debug)]
pub struct IdentifiedGuard(Arc<Arrival>);

impl Arrivals {
    /// An empty set with room for `most` connections.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let (next, all) = (0, BTreeMap::new());
        Self(Arc::new(Mutex::new(Waiting { most, next, all })))
    }

    /// Adds a connection.
    #[must_use]
    pub fn enter(&self) -> Arrival {
        let cut = CancellationToken::new();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.add(number, cut.clone());
        drop(waiting);
        Arrival {
            among: self.clone(),
            number,
            cut,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock()
    }
}

impl Waiting {
    fn add(&mut self, number: u64, cut: CancellationToken) {
        self.all.insert(number, cut);
        while self.all.len() > self.most {
            let Some((_, oldest)) = self.all.pop_first() else {
                return;
            };
            oldest.cancel();
        }
    }
}

impl Arrival {
    /// Runs `doing` until the connection is closed to make room; `None` if it is.
    pub async fn unless_cut<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        self.cut.run_until_cancelled(doing).await
    }

    /// Takes the connection out of the set: its purpose is known, and it may stay.
    #[must_use]
    pub fn stay(self: &Arc<Self>) -> IdentifiedGuard {
        self.among.waiting().all.remove(&self.number);
        IdentifiedGuard(self.clone())
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.among.waiting().all.remove(&self.number);
    }
}

impl Drop for IdentifiedGuard {
    fn drop(&mut self) {
        let (number, cut) = (self.0.number, self.0.cut.clone());
        self.0.among.waiting().add(number, cut);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_cut(arrival: &Arrival) -> bool {
        let waits = arrival.unless_cut(std::future::pending::<()>());
        waits.now_or_never().is_some()
    }

    #[test]
    fn the_oldest_makes_room_and_who_left_or_stays_is_not_counted() {
        let arrivals = Arrivals::new(2);
        let (one, two) = (Arc::new(arrivals.enter()), arrivals.enter());
        let stays = one.stay();
        drop(two);
        let (three, four) = (arrivals.enter(), arrivals.enter());
        assert!(!is_cut(&one) && !is_cut(&three) && !is_cut(&four));
        let five = arrivals.enter();
        assert!(is_cut(&three) && !is_cut(&one) && !is_cut(&four) && !is_cut(&five));
        // Back in the set, it has its old number and is the oldest.
        drop(stays);
        assert!(is_cut(&one) && !is_cut(&four) && !is_cut(&five));
        drop((one, three, four, five));
        assert!(arrivals.waiting().all.is_empty());
    }
}
