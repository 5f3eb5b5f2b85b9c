//! Tests of the worker between a scripted relay (real sockets) and a scripted engine.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it waits for"
)]

mod changes;
mod engine;
mod failures;
mod jobs;
mod links;
mod owner;
mod polls;
mod relay;

use std::{sync::Arc, time::Duration};

use hearth_worker::{Activity, Random, Tuning, Worker, WorkerHandle, WorkerSettings};
use proto::WorkerId;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{
    engine::{Asked, Script},
    relay::{BOUND, Relay},
};

pub(crate) const BODY: &str = r#"{"model":"tiny:latest","messages":[{}]}"#;
pub(crate) const DONE: &str = r#"{"done":true}"#;

/// A running worker, its relay and its engine.
pub(crate) struct Scene {
    pub(crate) relay: Relay,
    pub(crate) engine: Arc<Script>,
    pub(crate) asked: mpsc::Receiver<Asked>,
    pub(crate) handle: WorkerHandle,
    pub(crate) stop: CancellationToken,
    pub(crate) run: JoinHandle<anyhow::Result<()>>,
}

/// Returns short waits, so that tests are fast; the random numbers are always 0.
pub(crate) fn quick() -> Tuning {
    let short = Duration::from_millis(5);
    Tuning {
        reconnect: (short, short),
        engine_retry: (short, short),
        activity: short,
        random: Random::new(|| 0.0),
        ..Tuning::default()
    }
}

pub(crate) async fn scene() -> Scene {
    scene_with(|_| {}).await
}

pub(crate) async fn scene_with(change: impl FnOnce(&mut WorkerSettings)) -> Scene {
    let relay = Relay::start().await;
    let (engine, asked) = Script::new();
    let url = format!("http://{}", relay.address).parse().unwrap();
    let mut settings = WorkerSettings::new(url, "key-1".into(), WorkerId::new("desk").unwrap());
    settings.slots = 2;
    settings.tuning = quick();
    change(&mut settings);
    let (worker, handle) = Worker::new(settings, Arc::clone(&engine) as _);
    let stop = CancellationToken::new();
    let run = tokio::spawn(worker.run(stop.clone()));
    Scene {
        relay,
        engine,
        asked,
        handle,
        stop,
        run,
    }
}

impl Scene {
    /// Returns the next request to the engine.
    pub(crate) async fn asked(&mut self) -> Asked {
        bounded(self.asked.recv()).await.unwrap()
    }

    pub(crate) async fn until(&self, is: impl FnMut(&Activity) -> bool) -> Activity {
        let mut activity = self.handle.activity();
        bounded(activity.wait_for(is)).await.unwrap().clone()
    }
}

pub(crate) async fn bounded<T>(what: impl Future<Output = T>) -> T {
    timeout(BOUND, what).await.expect("it takes too long")
}
