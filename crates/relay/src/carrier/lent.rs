//! Leases on their way to a worker.

use futures_util::future::join_all;
use proto::{Dialect, ErrorCode, JobError, LeaseToken, Timestamp, worker::Retry};
use queue::Lease;

use crate::Relay;

/// Leases that no worker has heard of yet. Dropped, they are given back at once instead of
/// waiting for their time to be over.
#[derive(Debug)]
pub(crate) struct Lent {
    relay: Relay,
    leases: Vec<Lease>,
}

impl Lent {
    pub(crate) fn new(relay: Relay, leases: Vec<Lease>) -> Self {
        Self { relay, leases }
    }

    /// Those that are queries.
    pub(super) fn queries(&self) -> Vec<LeaseToken> {
        let leases = self.leases.iter();
        let queries = leases.filter(|lease| lease.job.dialect == Dialect::Queries);
        queries.map(|lease| lease.token).collect()
    }

    pub(crate) fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// Nobody is to have this one.
    pub(crate) fn forget(&mut self, token: LeaseToken) {
        self.leases.retain(|lease| lease.token != token);
    }

    /// Somebody answers for them from now on.
    pub(crate) fn take(mut self) -> Vec<Lease> {
        std::mem::take(&mut self.leases)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        if !leases.is_empty() {
            let relay = self.relay.clone();
            let give_back = async move { relay.give_back(leases).await };
            self.relay.tasks.spawn(give_back);
        }
    }
}

impl Relay {
    /// Renews what is on its way to a worker, if a part of the lease's time has passed.
    pub(super) async fn renew_unheard(
        &self,
        renewed: &mut Timestamp,
        tokens: impl FnOnce() -> Vec<LeaseToken>,
    ) {
        let (now, length) = (self.now(), self.settings.lease);
        if now.since(*renewed) < length / 4 {
            return;
        }
        *renewed = now;
        for token in tokens() {
            // Whoever ended the lease tells this connection himself.
            let _ = self.store.extend(now, token, length).await;
        }
    }

    /// Gives back leases that no worker has heard of, all in one group.
    pub(super) async fn give_back(&self, leases: Vec<Lease>) {
        let back = leases.into_iter().map(|lease| async move {
            let why = JobError::new(ErrorCode::WorkerLost, "the worker left before it began");
            let token = lease.token;
            if let Err(error) = self.store.nack(self.now(), token, Retry::Now, why).await {
                tracing::warn!(job.id = %token.job, %error, "not given back");
            }
        });
        join_all(back).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use queue::{
        MemoryQueue, Queue as _,
        conformance::sample::{anyone, job},
    };

    use crate::{RelaySettings, world::System};

    use super::*;

    #[tokio::test]
    async fn what_was_lent_and_never_taken_is_given_back_at_once() {
        let store = Arc::new(MemoryQueue::default());
        let world = Arc::new(System);
        let relay = Relay::new(store.clone(), RelaySettings::default(), world);
        store.enqueue(relay.now(), job(1)).await.unwrap();
        let lent = relay.lease_many(anyone(), Duration::from_secs(60), 1);
        assert_eq!(store.counts().leased, 1, "lent before it is asked for");
        drop(lent);
        relay.tasks.close();
        relay.tasks.wait().await;
        assert_eq!((store.counts().leased, store.counts().queued), (0, 1));
    }
}
