//! Leases jobs to one connection while it has free slots, and passes on cancellations.

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use proto::{ErrorCode, JobError, LeaseToken, limits, worker::Retry};
use queue::{Lease, LeaseQuery, QueueError};
use tokio::sync::Notify;

use super::{
    arrivals::Arrivals, leases, only_urgent, query_of, session::Session, socket::CloseReason,
    undelivered::UndeliveredLeases,
};
use crate::{Relay, routing, sending::SMALL};

/// Leases of a connection that are not yet written to it.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    leases: Mutex<Outgoing>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Outgoing {
    waiting: VecDeque<Lease>,
    /// Lease that is being written.
    current: Option<Lease>,
}

impl Unsent {
    pub(super) fn extend(&self, leases: Vec<Lease>) {
        self.leases.lock().waiting.extend(leases);
        self.filled.notify_one();
    }

    /// Waits for the next lease to write. Dropping a pending call loses nothing.
    pub(super) async fn next(&self) -> Lease {
        loop {
            let (lease, is_empty) = {
                let mut leases = self.leases.lock();
                let lease = leases.waiting.pop_front();
                if lease.is_some() {
                    leases.current.clone_from(&lease);
                }
                (lease, leases.waiting.is_empty())
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

    /// Records that the current lease was written whole: its worker may start it from now on.
    pub(super) fn sent(&self) {
        let sent = self.leases.lock().current.take();
        if sent.is_some_and(|lease| is_large(&lease)) {
            self.emptied.notify_one();
        }
    }

    /// Removes a lease; `false` if it is already being written or was written.
    fn withdraw(&self, token: LeaseToken) -> bool {
        let mut leases = self.leases.lock();
        let before = leases.waiting.len();
        leases.waiting.retain(|lease| lease.token != token);
        leases.waiting.len() < before
    }

    /// Whether another lease would be written soon: none waits, and none is large.
    fn is_empty(&self) -> bool {
        let leases = self.leases.lock();
        leases.waiting.is_empty() && !leases.current.as_ref().is_some_and(is_large)
    }

    /// Returns the leases that no worker can have started.
    pub(super) fn tokens(&self) -> Vec<LeaseToken> {
        let leases = self.leases.lock();
        let all = leases.current.iter().chain(&leases.waiting);
        all.map(|lease| lease.token).collect()
    }

    /// Takes the leases that are not being written yet.
    pub(super) fn take_waiting(&self) -> Vec<Lease> {
        std::mem::take(&mut self.leases.lock().waiting).into()
    }

    /// Takes all remaining leases after the connection has ended.
    pub(super) fn take(&self) -> Vec<Lease> {
        let Outgoing { waiting, current } = std::mem::take(&mut *self.leases.lock());
        current.into_iter().chain(waiting).collect()
    }
}

fn is_large(lease: &Lease) -> bool {
    lease.job.body.0.len() > SMALL
}

/// A pending request for leases, and its maximum number.
struct PendingLease {
    answer: BoxFuture<'static, Result<UndeliveredLeases, QueueError>>,
    max: usize,
}

/// Requests made since the last change. Repeating one would find nothing.
#[derive(Debug, Default)]
struct Tried {
    models: BTreeSet<String>,
    /// Whether jobs for this worker alone, and urgent jobs, were also requested.
    own: bool,
}

impl Session {
    /// Leases jobs while there are free slots, and passes on cancellations meanwhile. Each request
    /// asks for as many jobs as fit, because separate requests would each wait for a commit.
    pub(super) async fn lend(&self) -> Result<Infallible, CloseReason> {
        let mut arrivals = Arrivals::of(&self.relay, self.caller.claimant());
        let tokens = self.state().open.tokens();
        let withdrawal = |token| withdrawal(self.relay.clone(), token);
        let mut withdrawn: FuturesUnordered<_> = tokens.into_iter().map(withdrawal).collect();
        let mut pending: Option<PendingLease> = None;
        let mut tried = Tried::default();
        loop {
            if arrivals.has_changed().map_err(|_| CloseReason::Store)? {
                arrivals.mark_seen();
                tried = Tried::default();
            }
            if pending.is_none()
                && let Some((query, max)) = self.room(&arrivals, &mut tried)
            {
                let length = self.relay.settings.lease;
                let answer = self.relay.lease_many(&arrivals, query, length, max);
                pending = Some(PendingLease { answer, max });
                // Others may request at once, because the store serves requests in order.
                self.allotment(&arrivals, max);
            }
            tokio::select! {
                Some(token) = withdrawn.next(), if !withdrawn.is_empty() => {
                    // While it handles the cancellation, this worker must not rank before others.
                    self.link.routing_entry.leave();
                    Box::pin(self.withdrawn(token)).await?;
                    self.allotment(&arrivals, pending.as_ref().map_or(0, |pending| pending.max));
                }
                leases = under_way(&mut pending) => {
                    pending = None;
                    let leases = leases.map_err(|_| CloseReason::Store)?;
                    if self.relay.drain.is_cancelled() {
                        // The worker does not know them yet; dropping gives them back.
                        continue;
                    }
                    let leases = leases.take();
                    if !leases.is_empty() {
                        tried = Tried::default();
                        self.link.routing_entry.note_served();
                    }
                    for Lease { token, job, .. } in &leases {
                        tracing::info!(job.id = %token.job, job.attempt = token.attempt, worker = %self.link.worker, "leased");
                        self.state().open.open(*token, 0, job.priority);
                        withdrawn.push(withdrawal(*token));
                    }
                    self.unsent.extend(leases);
                    self.allotment(&arrivals, 0);
                }
                arrived = arrivals.changed() => {
                    arrived.map_err(|_| CloseReason::Store)?;
                    tried = Tried::default();
                }
                () = self.room.notified() => tried = Tried::default(),
                () = self.unsent.emptied.notified() => tried = Tried::default(),
                () = self.link.routing_entry.woken() => {}
            }
        }
    }

    /// Returns the next request to the queue and its maximum number of jobs, if the worker can take
    /// more. With all slots in use it asks only for urgent jobs, and of jobs that other workers can
    /// run it asks only for as many as it ranks first for.
    fn room(&self, arrivals: &Arrivals, tried: &mut Tried) -> Option<(LeaseQuery, usize)> {
        let allotment = self.allotment(arrivals, 0);
        let room = self.free()?;
        let state = self.state();
        let query = query_of(&self.caller, &self.link.worker, &state.report);
        let Some(allotment) = allotment else {
            let may_find = room.urgent > 0 && !std::mem::replace(&mut tried.own, true);
            return may_find.then(|| (only_urgent(query), room.urgent));
        };
        if tried.own && allotment.first.is_subset(&tried.models) {
            return None;
        }
        tried.own = true;
        drop(state);
        let excluded_models = allotment.excluded.clone();
        let query = LeaseQuery {
            excluded_models,
            ..query
        };
        let max = self.relay.at_once(&query, &allotment, room.free);
        tried.models.extend(allotment.first);
        Some((query, max))
    }

    /// Ranks the worker as if the `pending` jobs had arrived; returns what it may ask for if it
    /// still has a free slot.
    fn allotment(&self, arrivals: &Arrivals, pending: usize) -> Option<routing::Allotment> {
        let Some(room) = self.free().filter(|room| room.free > pending) else {
            self.link.routing_entry.leave();
            return None;
        };
        if !arrivals.has_room() {
            // It can get small jobs only, and must not keep others from the rest.
            self.link.routing_entry.leave();
            return Some(routing::Allotment::default());
        }
        let load = {
            let state = self.state();
            let busy = room.slots.saturating_sub(room.free) + pending;
            routing::WorkerLoad::new(&self.caller.serve, &state.models, room.slots, busy)
        };
        let allotment = self.link.routing_entry.update(load);
        if self.link.maybe_dead.is_raised() {
            self.link.routing_entry.leave();
            return None;
        }
        Some(allotment)
    }

    /// Returns the capacity for more jobs; `None` if no jobs may be leased now.
    fn free(&self) -> Option<FreeSlots> {
        let state = self.state();
        let slots = usize::try_from(state.slots).unwrap_or(usize::MAX);
        let running = state.open.running();
        let left = limits::HELD_MAX.saturating_sub(state.open.len());
        let may_have = state.report.engine_up
            && !self.link.maybe_dead.is_raised()
            && !self.relay.drain.is_cancelled();
        if slots == 0 || left == 0 || !may_have || !self.unsent.is_empty() {
            return None;
        }
        Some(FreeSlots {
            slots,
            free: slots.saturating_sub(running.slots()).min(left),
            urgent: running.room_beside().min(left),
        })
    }

    /// Handles a job that was cancelled, or whose lease has expired.
    async fn withdrawn(&self, token: LeaseToken) -> Result<(), CloseReason> {
        if self.unsent.withdraw(token) {
            // The worker never learns of this lease.
            self.drop_lease(token);
            let why = JobError::new(ErrorCode::Cancelled, "the requester cancelled the job");
            let store = &self.relay.store;
            let ended = store.nack(self.relay.now(), token, Retry::Now, why).await;
            return match ended {
                Err(error) if error.is_of_store() => Err(CloseReason::Store),
                // The lease had ended for another reason, which also decided the job's state.
                Ok(()) | Err(_) => Ok(()),
            };
        }
        if self.state().open.state(token) == leases::LeaseState::Held {
            self.extend(token).await?;
        }
        Ok(())
    }
}

/// Number of jobs that a connection can take.
struct FreeSlots {
    slots: usize,
    free: usize,
    /// Number of urgent jobs, which take no slot.
    urgent: usize,
}

async fn under_way(pending: &mut Option<PendingLease>) -> Result<UndeliveredLeases, QueueError> {
    match pending {
        Some(pending) => (&mut pending.answer).await,
        None => std::future::pending().await,
    }
}

async fn withdrawal(relay: Relay, token: LeaseToken) -> LeaseToken {
    relay.store.cancelled(token).await;
    token
}
