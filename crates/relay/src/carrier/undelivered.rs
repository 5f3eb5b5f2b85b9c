//! Leases that were granted but have not reached a worker.

use std::time::Duration;

use futures_util::future::join_all;
use proto::{Body, Dialect, ErrorCode, JobError, LeaseToken, Timestamp, worker::Retry};
use queue::Lease;

use crate::Relay;

/// Leases that no worker knows of yet. Dropping them gives them back at once, so that their jobs do
/// not wait for the leases to expire.
#[derive(Debug)]
pub(crate) struct UndeliveredLeases {
    relay: Relay,
    leases: Vec<Lease>,
}

impl UndeliveredLeases {
    pub(crate) fn new(relay: Relay, leases: Vec<Lease>) -> Self {
        Self { relay, leases }
    }

    /// Returns the leases of queries.
    pub(super) fn queries(&self) -> Vec<LeaseToken> {
        let leases = self.leases.iter();
        let queries = leases.filter(|lease| lease.job.dialect == Dialect::Queries);
        queries.map(|lease| lease.token).collect()
    }

    pub(crate) fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// Drops the requests, whose text is sent otherwise.
    pub(crate) fn drop_requests(&mut self) {
        for lease in &mut self.leases {
            // Clearing the bytes would free neither their memory nor their share of the limit.
            lease.job.body = Body::default();
        }
    }

    /// Removes a lease without giving it back.
    pub(crate) fn forget(&mut self, token: LeaseToken) {
        self.leases.retain(|lease| lease.token != token);
    }

    /// Takes the leases out; the caller is responsible for them from now on.
    pub(crate) fn take(mut self) -> Vec<Lease> {
        std::mem::take(&mut self.leases)
    }
}

impl Drop for UndeliveredLeases {
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
    /// Renews leases of this length that have not reached a worker, once a quarter of it has
    /// passed.
    pub(super) async fn renew_unheard(
        &self,
        renewed: &mut Timestamp,
        length: Duration,
        tokens: impl FnOnce() -> Vec<LeaseToken>,
    ) {
        let now = self.now();
        if now.since(*renewed) < length / 4 {
            return;
        }
        *renewed = now;
        for token in tokens() {
            // If the lease has ended, this connection is notified separately.
            let _ = self.store.extend(now, token, length).await;
        }
    }

    /// Gives back leases that no worker knows of, all in one group commit.
    pub(super) async fn give_back(&self, leases: Vec<Lease>) {
        let back = leases.into_iter().map(|lease| async move {
            let why = JobError::new(ErrorCode::WorkerLost,
                "the worker disconnected before it started the job");
            let token = lease.token;
            if let Err(error) = self.store.nack(self.now(), token, Retry::Now, why).await {
                tracing::warn!(job.id = %token.job, error = proto::causes(&error), "cannot give back a lease; it expires instead");
            }
        });
        join_all(back).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use queue::{
        MemoryQueue, Queue as _,
        conformance::sample::{anyone, job},
    };

    use crate::{RelaySettings, carrier::arrivals::Arrivals, world::SystemWorld};

    use super::*;

    #[tokio::test]
    async fn what_was_lent_and_never_taken_is_given_back_at_once() {
        let store = Arc::new(MemoryQueue::default());
        let world = Arc::new(SystemWorld);
        let relay = Relay::new(store.clone(), RelaySettings::default(), world);
        store.enqueue(relay.now(), job(1)).await.unwrap();
        let lent = relay.lease_many(
            &Arrivals::of(&relay, "a".into()),
            anyone(),
            Duration::from_secs(60),
            1,
        );
        assert_eq!(store.counts().leased, 1, "lent before it is asked for");
        drop(lent);
        relay.tasks.close();
        relay.tasks.wait().await;
        assert_eq!((store.counts().leased, store.counts().queued), (0, 1));
    }
}
