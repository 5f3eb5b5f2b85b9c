//! The worker protocol on the relay's side: one contract over a WebSocket or plain HTTP requests.

pub(crate) mod arrivals;
pub(crate) mod desktop;
pub mod echo;
mod farewell;
pub(crate) mod http;
mod leases;
mod lending;
mod meter;
pub(crate) mod pace;
pub(crate) mod poll;
mod session;
pub(crate) mod socket;
pub(crate) mod tunnel;
pub(crate) mod tunnel_session;
pub(crate) mod undelivered;
mod writer;

use std::{collections::BTreeSet, time::Duration};

use arrivals::Arrivals;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use proto::{LeaseToken, WorkerId, WorkerReport, limits::BODY_MAX};
use queue::{Claim, Lease, LeaseQuery, Models, Owner, QueueError};
use tokio::sync::oneshot;
use undelivered::UndeliveredLeases;
pub(crate) use writer::STALLED;

use crate::{
    Relay,
    auth::{Caller, serves},
    error::ApiError,
    routing::Allotment,
    sending::{self, Room},
};

impl Relay {
    /// Leases one job, see [`Relay::lease_many`].
    pub(crate) async fn lease(
        &self,
        arrivals: &Arrivals,
        query: &LeaseQuery,
        length: Duration,
    ) -> Result<Option<Lease>, QueueError> {
        let lent = self.lease_many(arrivals, query.clone(), length, 1).await?;
        Ok(lent.take().pop())
    }

    /// Leases up to `max` jobs. Requests are served in the order of the calls, not of the awaits.
    /// Leases that the caller does not take are given back. Leases nothing during a shutdown, and
    /// no large request while the workers of the same holder have not read earlier ones.
    pub(crate) fn lease_many(
        &self,
        arrivals: &Arrivals,
        mut query: LeaseQuery,
        length: Duration,
        mut max: usize,
    ) -> BoxFuture<'static, Result<UndeliveredLeases, QueueError>> {
        if self.drain.is_cancelled() {
            let none = UndeliveredLeases::new(self.clone(), Vec::new());
            return ready(Ok(none)).boxed();
        }
        let room = self.take_room(arrivals, &mut query, max);
        if room.is_none() {
            max = max.min(1);
        }
        let (relay, holder) = (self.clone(), arrivals.holder.clone());
        let mut leasing = async move {
            let leases = relay.store.lease_many(relay.now(), &query, length, max);
            let mut leases = leases.await?;
            for lease in &mut leases {
                let request = &mut lease.job.body.0;
                *request = relay.sending.counted(&holder, std::mem::take(request));
            }
            drop(room);
            let leases = UndeliveredLeases::new(relay.clone(), leases);
            if !matches!(query.models, Models::AnyForQueries) {
                for token in leases.queries() {
                    relay.note_start(token, &query.worker).await;
                }
            }
            Ok(leases)
        }
        .boxed();
        let (answer, lent) = oneshot::channel();
        if let Some(leased) = (&mut leasing).now_or_never() {
            drop(answer.send(leased));
        } else {
            // The request completes even if its caller has gone.
            self.tasks
                .spawn(async move { drop(answer.send(leasing.await)) });
        }
        let none = |relay: Relay| Ok(UndeliveredLeases::new(relay, Vec::new()));
        let relay = self.clone();
        async move { lent.await.unwrap_or_else(|_| none(relay)) }.boxed()
    }

    /// Takes room for a look for `max` jobs, and restricts it to the requests there is room for:
    /// small ones if it is `None`.
    fn take_room(&self, arrivals: &Arrivals, query: &mut LeaseQuery, max: usize) -> Option<Room> {
        // A longer request that arrives meanwhile is for the next look.
        let longest = self.store.longest().max(sending::SMALL);
        let room = arrivals.take_room(most_of(longest, max));
        let request_max = room.as_ref().map_or(sending::SMALL, |_| longest);
        query.request_max = query.request_max.min(request_max);
        room
    }

    /// Returns how many jobs a worker asks for: as many as it ranks first for, or as many as it has
    /// free slots if more jobs wait than all suitable workers can take.
    fn at_once(&self, query: &LeaseQuery, allotment: &Allotment, free: usize) -> usize {
        let fair = free.min(allotment.most);
        let is_flooded = || self.store.waiting(query, allotment.room) >= allotment.room;
        if fair < free && is_flooded() {
            free
        } else {
            fair
        }
    }

    /// Records that an agent has started a query, so that its clients see the start time.
    async fn note_start(&self, token: LeaseToken, worker: &WorkerId) {
        let noted = async {
            let Some(id) = self.store.query_of(token.job).await? else {
                return Ok(());
            };
            let found = self.store.find_query(Owner::Anyone, id).await?;
            // An earlier claim stays recorded, so that a late answer from its holder is recognised.
            let before = found.and_then(|query| query.claim);
            let claim = before.map_or_else(
                || Claim {
                    by: format!("agent-{worker}"),
                    attempt: token.attempt,
                    at: self.now(),
                },
                |claim| Claim {
                    at: self.now(),
                    ..claim
                },
            );
            self.store.claim_query(id, claim).await
        };
        let noted: Result<(), QueueError> = noted.await;
        if let Err(error) = noted {
            tracing::warn!(job.id = %token.job, error = proto::causes(&error), "cannot record the start of a query");
        }
    }

    /// Checks that the caller serves the account of this lease's job.
    async fn check_serves(&self, caller: &Caller, token: LeaseToken) -> Result<(), ApiError> {
        let account = self.store.account(token.job).await?;
        account
            .filter(|account| serves(&caller.serve, account))
            .map(|_| ())
            .ok_or_else(ApiError::unknown_job)
    }
}

/// Maximum size of `max` requests together that are leased at once, in bytes, if none is larger than
/// `longest`. The last of them may exceed the maximum of all together, see
/// [`queue::Queue::lease_many`].
const fn most_of(longest: usize, max: usize) -> usize {
    let (all, limit) = (longest.saturating_mul(max), BODY_MAX + longest);
    if all < limit { all } else { limit }
}

/// Restricts a request to urgent jobs, which take no slot.
fn only_urgent(query: LeaseQuery) -> LeaseQuery {
    let models = match query.models {
        Models::Only(models) => Models::OnlyUrgent(models),
        other @ (Models::Any
        | Models::AnyBut(_)
        | Models::AnyForQueries
        | Models::OnlyUrgent(_)) => other,
    };
    LeaseQuery { models, ..query }
}

impl Caller {
    /// Removes the models from a report that the worker's key does not allow.
    pub(crate) fn permitted(&self, mut report: WorkerReport) -> WorkerReport {
        let models = &self.ceiling.models;
        report.models.retain(|model| models.allow(&model.name));
        report
    }
}

/// Returns the request for leases that follows from a worker's report.
fn query_of(caller: &Caller, worker: &WorkerId, report: &WorkerReport) -> LeaseQuery {
    let names = report.models.iter().map(|model| model.name.clone());
    LeaseQuery {
        worker: worker.clone(),
        serve: caller.serve.clone(),
        models: Models::Only(names.collect()),
        allowed_models: caller.ceiling.models.clone(),
        excluded_models: BTreeSet::new(),
        accepts_model_changes: report.model_changes,
        request_max: usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::JobId;
    use queue::{
        MemoryQueue, NewJob, Queue as _,
        conformance::sample::{anyone, job},
    };

    use crate::{RelaySettings, world::SystemWorld};

    use super::*;

    #[test]
    fn a_look_needs_room_for_its_longest_requests_and_no_more_than_are_leased_together() {
        assert_eq!(most_of(1024, 8), 8 * 1024);
        assert_eq!(most_of(1024, usize::MAX), BODY_MAX + 1024);
        assert_eq!(most_of(BODY_MAX, 1), BODY_MAX);
        assert_eq!(most_of(BODY_MAX, 3), 2 * BODY_MAX);
    }

    #[tokio::test]
    async fn a_long_backlog_of_short_requests_leaves_room_for_other_looks() {
        let store = Arc::new(MemoryQueue::default());
        let settings = RelaySettings {
            sending_max: 4 * sending::SMALL,
            ..RelaySettings::default()
        };
        let relay = Relay::new(store.clone(), settings, Arc::new(SystemWorld));
        for n in 0..600_u128 {
            let new = NewJob {
                id: JobId(n.to_be_bytes()),
                body: vec![b'x'; 1024].into(),
                ..job(1)
            };
            store.enqueue(relay.now(), new).await.unwrap();
        }
        assert!(store.counts().queued_bytes > relay.settings.sending_max);
        let arrivals = Arrivals::of(&relay, "holder".to_owned());
        let look = || relay.take_room(&arrivals, &mut anyone(), 1);
        let looks = [look(), look()];
        assert!(looks.iter().all(Option::is_some));
        assert!(look().is_none(), "a quarter is exceeded");
    }

    #[tokio::test]
    async fn a_request_that_is_sent_as_text_takes_no_room_of_its_own() {
        let store = Arc::new(MemoryQueue::default());
        let relay = Relay::new(
            store.clone(),
            RelaySettings::default(),
            Arc::new(SystemWorld),
        );
        store.enqueue(relay.now(), job(1)).await.unwrap();
        let arrivals = Arrivals::of(&relay, "holder".to_owned());
        let leasing = relay.lease_many(&arrivals, anyone(), Duration::from_secs(60), 1);
        let mut leases = leasing.await.unwrap();
        assert_eq!(relay.sending.bytes(), job(1).body.0.len());
        leases.drop_requests();
        assert_eq!((leases.leases().len(), relay.sending.bytes()), (1, 0));
    }

    #[tokio::test]
    async fn a_worker_takes_all_it_has_room_for_only_where_all_will_be_full() {
        let store = Arc::new(MemoryQueue::default());
        let relay = Relay::new(
            store.clone(),
            RelaySettings::default(),
            Arc::new(SystemWorld),
        );
        let allotment = Allotment {
            most: 1,
            room: 8,
            ..Allotment::default()
        };
        for n in 0..8_u128 {
            let asks = |allotment: &Allotment| relay.at_once(&anyone(), allotment, 4);
            assert_eq!(asks(&allotment), 1, "others may have the rest of {n}");
            let alone = Allotment::default();
            assert_eq!(asks(&alone), 4, "nobody else is there");
            let few = Allotment {
                most: 3,
                ..allotment.clone()
            };
            assert_eq!(asks(&few), 3);
            let new = NewJob {
                id: JobId(n.to_be_bytes()),
                ..job(1)
            };
            store.enqueue(relay.now(), new).await.unwrap();
        }
        assert_eq!(relay.at_once(&anyone(), &allotment, 4), 4);
        assert_eq!(relay.at_once(&anyone(), &allotment, 0), 0);
    }
}
