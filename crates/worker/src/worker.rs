//! [`Worker`] and its handle.

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
    Activity, JobTable, Source, WorkerSettings,
    job_table::Load,
    probe,
    relay::{Relay, display_url},
};

/// Maximum time at the end for the relay to confirm what is given back.
const FAREWELL: Duration = Duration::from_secs(3);

/// Leases jobs from one source and runs them on one engine.
#[derive(Debug)]
pub struct Worker {
    settings: WorkerSettings,
    table: Arc<JobTable>,
}

/// Controls a worker and shows its state; usable before it runs and after it has ended.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    table: Arc<JobTable>,
}

impl Worker {
    /// Creates a worker that is not running yet, and its handle.
    pub fn new(settings: WorkerSettings, engine: Arc<dyn Engine>) -> (Self, WorkerHandle) {
        let table = JobTable::new(engine, &settings);
        let handle = WorkerHandle {
            table: Arc::clone(&table),
        };
        (Self { settings, table }, handle)
    }

    /// Runs until `stop`, then lets running jobs finish within the drain time and gives back the
    /// rest. Losing the relay or the engine does not end it.
    ///
    /// # Errors
    /// If the relay's address is invalid.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { settings, table } = self;
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
        serve(&table, source, settings.drain, &stop).await;
        Ok(())
    }
}

/// Runs one source and the engine's probe until `stop`, then drains.
async fn serve(
    table: &Arc<JobTable>,
    mut source: impl Source,
    patience: Duration,
    stop: &CancellationToken,
) {
    // Dropping this future stops its jobs, too.
    let _jobs = table.stop_jobs().clone().drop_guard();
    let leave = CancellationToken::new();
    let name = source.name();
    let drained = async {
        stop.cancelled().await;
        tracing::info!(relay = name, "draining: running jobs may finish");
        drain(table, patience).await;
        leave.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = source.serve(table, &leave) => {}
        () = probe::keep_watch(Arc::clone(table)) => {}
        () = show_jobs(table) => {}
        () = drained => {}
    }
    table.close().await;
    table.link_down("");
}

async fn drain(table: &JobTable, patience: Duration) {
    let mut load = table.load();
    let link = table.link();
    table.drain();
    // Without a link nothing can be confirmed, so only running jobs are worth waiting for.
    let is_done = |load: &Load| load.held == 0 || (load.running == 0 && !*link.borrow());
    drop(timeout(patience, load.wait_for(is_done)).await);
    table.give_back();
    drop(timeout(FAREWELL, load.wait_for(is_done)).await);
}

/// Updates the running jobs in `Activity` while there are any, and sleeps otherwise.
async fn show_jobs(table: &JobTable) {
    let mut load = table.load();
    loop {
        if load.borrow_and_update().running == 0 {
            table.publish();
            if load.changed().await.is_err() {
                return;
            }
        }
        table.publish();
        sleep(table.tuning().activity).await;
    }
}

impl WorkerHandle {
    /// Pauses or resumes leasing, at once. Running jobs continue.
    pub fn set_paused(&self, paused: bool) {
        self.table.set_paused(paused);
    }

    /// Cancels one running job for good. Returns `false` if it does not run here.
    #[must_use]
    pub fn cancel_job(&self, job: JobId) -> bool {
        self.table.cancel_job(job)
    }

    /// Reconnects at once, because the machine resumed from suspend or its network changed.
    pub fn wake(&self) {
        self.table.wake();
    }

    /// Subscribes to its state.
    #[must_use]
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.table.activity()
    }
}
