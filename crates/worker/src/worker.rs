use std::sync::Arc;

use anyhow::bail;
use engine::{Engine, is_loopback};
use proto::JobId;
use tokio::{
    sync::watch,
    time::{Duration, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Activity, Desk, Source, WorkerSettings,
    desk::Load,
    probe,
    relay::{Relay, display_url},
};

/// How long the relay may take to confirm what is given back at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Takes jobs from one source and answers them with one engine.
#[derive(Debug)]
pub struct Worker {
    settings: WorkerSettings,
    desk: Arc<Desk>,
}

/// Steers a worker and shows what it does; usable before it runs and after it ended.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    desk: Arc<Desk>,
}

impl Worker {
    /// A worker that is not running yet, and its handle.
    pub fn new(settings: WorkerSettings, engine: Arc<dyn Engine>) -> (Self, WorkerHandle) {
        let desk = Desk::new(
            engine,
            settings.slots,
            settings.start_paused,
            settings.allow_model_changes,
            display_url(&settings.relay),
            settings.tuning.clone(),
        );
        let handle = WorkerHandle {
            desk: Arc::clone(&desk),
        };
        (Self { settings, desk }, handle)
    }

    /// Works until `stop`, then lets running jobs finish for the set time and gives back the
    /// rest. Neither a lost relay nor a lost engine ends it.
    ///
    /// # Errors
    /// If the relay's address cannot be used at all.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { settings, desk } = self;
        match settings.relay.scheme() {
            "https" => {}
            "http" if settings.plain_http || is_loopback(&settings.relay) => {}
            "http" => bail!(
                "the relay's address {} is not https: anyone on the way could read the key; \
                 use https, or allow plain http in the settings",
                display_url(&settings.relay),
            ),
            other => bail!("the relay's URL must begin with https://, not {other}://"),
        }
        let source = Relay::new(&settings)?;
        serve(&desk, source, settings.drain, &stop).await;
        Ok(())
    }
}

/// Runs one source and the engine's probe until `stop`, then drains.
async fn serve(
    desk: &Arc<Desk>,
    mut source: impl Source,
    patience: Duration,
    stop: &CancellationToken,
) {
    // Whoever drops this future stops its jobs too.
    let _jobs = desk.stop_jobs().clone().drop_guard();
    let leave = CancellationToken::new();
    let name = source.name();
    let drained = async {
        stop.cancelled().await;
        tracing::info!(source = name, "draining");
        drain(desk, patience).await;
        leave.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = source.serve(desk, &leave) => {}
        () = probe::keep_watch(Arc::clone(desk)) => {}
        () = show_jobs(desk) => {}
        () = drained => {}
    }
    desk.close().await;
    desk.link_down("");
}

async fn drain(desk: &Desk, patience: Duration) {
    let mut load = desk.load();
    let link = desk.link();
    desk.drain();
    // Without a link nothing more can be confirmed, so only what runs is worth waiting for.
    let is_done = |load: &Load| load.held == 0 || (load.running == 0 && !*link.borrow());
    drop(timeout(patience, load.wait_for(is_done)).await);
    desk.give_back();
    drop(timeout(FAREWELL, load.wait_for(is_done)).await);
}

/// Keeps the running jobs in `Activity` fresh while there are any, and sleeps while there are none.
async fn show_jobs(desk: &Desk) {
    let mut load = desk.load();
    loop {
        if load.borrow_and_update().running == 0 {
            desk.publish();
            if load.changed().await.is_err() {
                return;
            }
        }
        desk.publish();
        sleep(desk.tuning().activity).await;
    }
}

impl WorkerHandle {
    /// Pauses or resumes taking jobs: at once. Running jobs go on.
    pub fn set_paused(&self, paused: bool) {
        self.desk.set_paused(paused);
    }

    /// Stops one running job for good. False if it does not run here.
    #[must_use]
    pub fn cancel_job(&self, job: JobId) -> bool {
        self.desk.cancel_job(job)
    }

    /// The machine woke up or its network changed: connect again at once.
    pub fn wake(&self) {
        self.desk.wake();
    }

    /// What it is doing, always the latest.
    #[must_use]
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.desk.activity()
    }
}
