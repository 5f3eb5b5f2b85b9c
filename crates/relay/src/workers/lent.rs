//! The leases that a worker's signs of life renew, because it does not name them.

use proto::{LeaseToken, Timestamp};

use super::{OnlineId, Workers};

/// Maximum number of leases that a worker renews without naming them.
pub(super) const LENT_MAX: usize = 16;

impl Workers {
    /// Records a lease given to a worker, whose signs of life renew it `until` then. If they renew
    /// [`LENT_MAX`] already, the oldest is forgotten.
    pub(crate) fn lend(&self, id: &OnlineId, token: LeaseToken, until: Timestamp) {
        if let Some((_, told)) = self.lock().online.get_mut(id) {
            if told.lent.len() >= LENT_MAX {
                told.lent.pop_front();
            }
            told.lent.push_back((token, until));
        }
    }

    /// Returns the leases that a sign of life of this worker renews.
    pub(crate) fn lent(&self, id: &OnlineId, now: Timestamp) -> Vec<LeaseToken> {
        let mut registry = self.lock();
        let Some((_, told)) = registry.online.get_mut(id) else {
            return Vec::new();
        };
        told.lent.retain(|(_, until)| *until > now);
        told.lent.iter().map(|(token, _)| *token).collect()
    }

    /// Records that a worker works on a job no more, so that it does not renew its lease.
    pub(crate) fn returned(&self, id: &OnlineId, token: LeaseToken) {
        if let Some((_, told)) = self.lock().online.get_mut(id) {
            told.lent.retain(|(lent, _)| *lent != token);
        }
    }
}
