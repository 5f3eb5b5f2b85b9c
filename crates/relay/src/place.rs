//! Telling who waits where his job stands, without looking more often than it can have changed.

use std::time::Duration;

use proto::{Account, JobId, ModelName};
use queue::{Models, Place, Serve};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::Relay;

impl Relay {
    /// Where a job stands among those that the workers online for it will be lent.
    pub(crate) fn place(&self, account: &Account, model: &ModelName, job: JobId) -> Option<Place> {
        let now = self.now();
        let (serve, models) = self.workers.line(account, model, now);
        self.store.place(now, job, &serve, &models)
    }
}

/// One job's place as it changes.
#[derive(Debug)]
pub(crate) struct Places {
    relay: Relay,
    account: Account,
    model: ModelName,
    job: JobId,
    moves: watch::Receiver<u64>,
    /// Not looked at again before this.
    look_at: Instant,
    told: Option<usize>,
}

impl Places {
    pub(crate) fn new(relay: &Relay, account: Account, model: ModelName, job: JobId) -> Self {
        Self {
            moves: relay.store.moves(),
            look_at: Instant::now() + relay.settings.place_every,
            told: None,
            relay: relay.clone(),
            account,
            model,
            job,
        }
    }

    /// The place now.
    pub(crate) fn now(&self) -> Option<Place> {
        self.relay.place(&self.account, &self.model, self.job)
    }

    /// Waits until there is another place to tell; a job that is taken at once has none. Dropping
    /// it pending loses nothing.
    pub(crate) async fn changed(&mut self) -> Place {
        loop {
            sleep_until(self.look_at).await;
            self.moves.borrow_and_update();
            let place = self.now();
            let before = place.map(|place| place.before);
            let had = std::mem::replace(&mut self.told, before);
            if let Some(place) = place.filter(|_| before != had) {
                self.look_at = Instant::now() + self.relay.settings.place_every;
                return place;
            }
            if self.moves.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// What workers serve and run, put together.
pub(crate) fn together(
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
            // Who takes nothing but queries never counts as online.
            (Models::AnyForQueries, other) | (other, Models::AnyForQueries) => other,
        };
        (serve, models)
    })
}

/// The data of `event: queued`.
pub(crate) fn as_json(place: Place) -> Vec<u8> {
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

/// The place as a person reads it.
pub(crate) fn in_words(place: Place) -> String {
    match place.wait {
        Some(wait) => format!(
            "position {}, about {} s\n",
            place.before,
            wait.as_secs().max(1)
        ),
        None => format!("position {}\n", place.before),
    }
}

/// Tells the place in the head of a response.
pub(crate) fn name_place(response: &mut axum::response::Response, place: Option<Place>) {
    let Some(place) = place else { return };
    let headers = response.headers_mut();
    headers.insert("x-hearth-queue-position", place.before.into());
    if let Some(wait) = place.wait {
        headers.insert("x-hearth-expected-wait-ms", millis(wait).into());
    }
}

pub(crate) fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
