//! Lending one connection jobs while it has room, and telling it of withdrawals.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use proto::{ErrorCode, JobError, LeaseToken, limits, worker::Retry};
use queue::{Lease, LeaseQuery, QueueError};
use tokio::sync::Notify;

use super::{only_urgent, open::Standing, query_of, session::Session, socket::Ended};
use crate::Relay;

/// Leases of this connection that are not written to it yet.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    leases: Mutex<VecDeque<Lease>>,
    filled: Notify,
    emptied: Notify,
}

impl Unsent {
    fn extend(&self, leases: Vec<Lease>) {
        self.lock().extend(leases);
        self.filled.notify_one();
    }

    /// The next lease to be written. Dropping a pending call loses nothing.
    pub(super) async fn next(&self) -> Lease {
        loop {
            let (lease, is_empty) = {
                let mut leases = self.lock();
                (leases.pop_front(), leases.is_empty())
            };
            if let Some(lease) = lease {
                if is_empty {
                    self.emptied.notify_one();
                }
                return lease;
            }
            self.filled.notified().await;
        }
    }

    /// Takes a lease out again; false if its writing has begun.
    fn withdraw(&self, token: LeaseToken) -> bool {
        let mut leases = self.lock();
        let before = leases.len();
        leases.retain(|lease| lease.token != token);
        leases.len() < before
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What is left when the connection ended.
    pub(super) fn take(&self) -> Vec<Lease> {
        self.lock().drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Asked = Option<BoxFuture<'static, Result<Vec<Lease>, QueueError>>>;

impl Session {
    /// Lends jobs while there is room, as many at once as there is room for: each by itself would
    /// wait for the disk in turn. Withdrawals are passed on meanwhile.
    pub(super) async fn lend(&self) -> Result<Infallible, Ended> {
        let mut arrivals = self.relay.store.arrivals();
        let tokens = self.state().open.tokens();
        let withdrawal = |token| withdrawal(self.relay.clone(), token);
        let mut withdrawn: FuturesUnordered<_> = tokens.into_iter().map(withdrawal).collect();
        let mut asked: Asked = None;
        let mut may_find = true;
        loop {
            if may_find
                && asked.is_none()
                && let Some((query, max)) = self.room()
            {
                may_find = false;
                arrivals.borrow_and_update();
                let (relay, length) = (self.relay.clone(), self.relay.settings.lease);
                asked = Some(async move { relay.lease_many(query, length, max).await }.boxed());
            }
            tokio::select! {
                Some(token) = withdrawn.next(), if !withdrawn.is_empty() => {
                    self.withdrawn(token).await?;
                }
                leases = under_way(&mut asked) => {
                    asked = None;
                    let leases = leases.map_err(|_| Ended::Store)?;
                    may_find |= !leases.is_empty();
                    for Lease { token, job, .. } in &leases {
                        tracing::info!(job.id = %token.job, job.attempt = token.attempt, worker = %self.link.worker, "leased");
                        self.state().open.open(*token, 0, job.priority);
                        withdrawn.push(withdrawal(*token));
                    }
                    self.unsent.extend(leases);
                }
                arrived = arrivals.changed() => {
                    arrived.map_err(|_| Ended::Store)?;
                    may_find = true;
                }
                () = self.room.notified() => may_find = true,
                () = self.unsent.emptied.notified() => may_find = true,
            }
        }
    }

    /// What to ask the queue for, and for how many, if there is room for more jobs: where every
    /// slot is taken, for what waits for none.
    fn room(&self) -> Option<(LeaseQuery, usize)> {
        let state = self.state();
        let slots = usize::try_from(state.slots).unwrap_or(usize::MAX);
        let running = state.open.running();
        let (free, beside) = (slots.saturating_sub(running.slots()), running.room_beside());
        let left = limits::HELD_MAX.saturating_sub(state.open.len());
        let may_have = state.report.engine_up && !self.link.doubt.is_raised();
        if slots == 0 || left == 0 || !may_have || !self.unsent.is_empty() {
            return None;
        }
        let query = || query_of(&self.caller, &self.link.worker, &state.report);
        if free > 0 {
            Some((query(), free.min(left)))
        } else {
            (beside > 0).then(|| (only_urgent(query()), beside.min(left)))
        }
    }

    /// The requester withdrew a job, or its lease is over.
    async fn withdrawn(&self, token: LeaseToken) -> Result<(), Ended> {
        if self.unsent.withdraw(token) {
            // The worker never hears of it.
            self.state().open.close(token);
            self.room.notify_one();
            let why = JobError::new(ErrorCode::Cancelled, "the requester withdrew the job");
            let store = &self.relay.store;
            let ended = store.nack(self.relay.now(), token, Retry::Now, why).await;
            return match ended {
                Err(QueueError::Store(_)) => Err(Ended::Store),
                // Whoever ended the lease decided what becomes of the job.
                Ok(()) | Err(_) => Ok(()),
            };
        }
        if self.state().open.standing(token) == Standing::Held {
            self.extend(token).await?;
        }
        Ok(())
    }
}

async fn under_way(asked: &mut Asked) -> Result<Vec<Lease>, QueueError> {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

async fn withdrawal(relay: Relay, token: LeaseToken) -> LeaseToken {
    relay.store.cancelled(token).await;
    token
}
