//! Queue positions of waiting jobs, computed no more often than an interval allows.

use std::time::Duration;

use proto::{Account, JobId, ModelName};
use queue::{Models, QueuePosition, Serve};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{Relay, headers};

impl Relay {
    /// Returns a job's position among the jobs that the online workers for it will be leased.
    pub(crate) fn place(
        &self,
        account: &Account,
        model: &ModelName,
        job: JobId,
    ) -> Option<QueuePosition> {
        let now = self.now();
        let (serve, models) = self.workers.line(account, model, now);
        self.store.position(now, job, &serve, &models)
    }
}

/// Follows one job's queue position.
#[derive(Debug)]
pub(crate) struct PositionWatch {
    relay: Relay,
    account: Account,
    model: ModelName,
    job: JobId,
    moves: watch::Receiver<u64>,
    /// Time before which the position is not computed again.
    look_at: Instant,
    told: Option<usize>,
}

impl PositionWatch {
    pub(crate) fn new(relay: &Relay, account: Account, model: ModelName, job: JobId) -> Self {
        let mut moves = relay.store.moves();
        // The first call computes the position without waiting for a change.
        moves.mark_changed();
        Self {
            moves,
            look_at: Instant::now() + relay.settings.place_every,
            told: None,
            relay: relay.clone(),
            account,
            model,
            job,
        }
    }

    /// Returns the current position.
    pub(crate) fn now(&self) -> Option<QueuePosition> {
        self.relay.place(&self.account, &self.model, self.job)
    }

    /// Waits until the position has changed and returns it; a job that is leased at once has none.
    /// Dropping the future loses nothing. Computing a position takes locks that leasing needs too,
    /// so it happens only after a change in the queue, and at most once per interval.
    pub(crate) async fn changed(&mut self) -> QueuePosition {
        loop {
            sleep_until(self.look_at).await;
            if self.moves.changed().await.is_err() {
                return std::future::pending().await;
            }
            let place = self.now();
            self.look_at = Instant::now() + self.relay.settings.place_every;
            let before = place.map(|place| place.before);
            let had = std::mem::replace(&mut self.told, before);
            if let Some(place) = place.filter(|_| before != had) {
                return place;
            }
        }
    }
}

/// Combines the accounts and models of several workers.
pub(crate) fn combined(
    account: &Account,
    model: &ModelName,
    workers: impl IntoIterator<Item = (Serve, Models)>,
) -> (Serve, Models) {
    let own = || Serve::Accounts([account.clone()].into());
    let none = (own(), Models::Only(vec![model.clone()]));
    workers.into_iter().fold(none, |(serve, models), worker| {
        let serve = match (serve, worker.0) {
            (Serve::Accounts(mut some), Serve::Accounts(more)) => {
                some.extend(more);
                Serve::Accounts(some)
            }
            (Serve::All, _) | (_, Serve::All) => Serve::All,
        };
        let models = match (models, worker.1) {
            (
                Models::Only(mut some) | Models::OnlyUrgent(mut some),
                Models::Only(more) | Models::OnlyUrgent(more),
            ) => {
                some.extend(more);
                Models::Only(some)
            }
            (Models::Any | Models::AnyBut(_), _) | (_, Models::Any | Models::AnyBut(_)) => {
                Models::Any
            }
            // Workers that take only queries never count as online.
            (Models::AnyForQueries, other) | (other, Models::AnyForQueries) => other,
        };
        (serve, models)
    })
}

/// Returns the data of `event: queued` as JSON.
pub(crate) fn as_json(place: QueuePosition) -> Vec<u8> {
    #[derive(Serialize)]
    struct Queued {
        position: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        expected_wait_ms: Option<u64>,
    }
    let queued = Queued {
        position: place.before,
        expected_wait_ms: place.wait.map(millis),
    };
    serde_json::to_vec(&queued).unwrap_or_default()
}

/// Formats the position for people.
pub(crate) fn in_words(place: QueuePosition) -> String {
    match place.wait {
        Some(wait) => format!(
            "position {}, about {} s\n",
            place.before,
            wait.as_secs().max(1)
        ),
        None => format!("position {}\n", place.before),
    }
}

/// Sets the response headers for the queue position.
pub(crate) fn set_position_header(
    response: &mut axum::response::Response,
    place: Option<QueuePosition>,
) {
    let Some(place) = place else { return };
    let headers = response.headers_mut();
    headers.insert(headers::QUEUE_POSITION, place.before.into());
    if let Some(wait) = place.wait {
        headers.insert(headers::EXPECTED_WAIT, millis(wait).into());
    }
}

pub(crate) fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use proto::Timestamp;
    use queue::{
        MemoryQueue, Queue as _,
        conformance::sample::{T0, id, job},
    };
    use tokio::time::{sleep, timeout};

    use crate::{RelaySettings, world::World};

    use super::*;

    /// A clock that counts its reads: one for each position computed.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl World for Counting {
        fn now(&self) -> Timestamp {
            self.0.fetch_add(1, Ordering::Relaxed);
            T0
        }

        fn random(&self) -> std::io::Result<[u8; 32]> {
            Ok([0; 32])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_moves_a_place_is_looked_at_but_once_in_a_while() {
        let (store, world) = (
            Arc::new(MemoryQueue::default()),
            Arc::new(Counting::default()),
        );
        let relay = Relay::new(store.clone(), RelaySettings::default(), world.clone());
        let every = relay.settings.place_every;
        for n in 0..2 {
            store.enqueue(T0, job(n)).await.unwrap();
        }
        let watched = job(1);
        let mut places = PositionWatch::new(&relay, watched.account, watched.model, id(1));
        let looks = || world.0.swap(0, Ordering::Relaxed);
        looks();
        assert_eq!(places.changed().await.before, 1);
        assert_eq!(looks(), 1);
        // Two hundred jobs are queued behind it, a hundred per interval.
        for n in 2..=201 {
            store.enqueue(T0, job(n)).await.unwrap();
            assert!(timeout(every / 100, places.changed()).await.is_err());
        }
        let looked = looks();
        assert!((1..=2).contains(&looked), "{looked} looks");
        // No position is computed while nothing changes, however often it is awaited.
        sleep(2 * every).await;
        assert!(timeout(2 * every, places.changed()).await.is_err());
        looks();
        for _ in 0..10 {
            assert!(timeout(every, places.changed()).await.is_err());
        }
        assert_eq!(looks(), 0);
        // A change that happened meanwhile is reported.
        store.cancel(T0, queue::Owner::Anyone, id(0)).await.unwrap();
        assert_eq!(timeout(every, places.changed()).await.unwrap().before, 0);
    }
}
