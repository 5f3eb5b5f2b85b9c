//! The running parts of an agent.

use tokio::{
    task::{JoinError, JoinSet},
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

/// The name of a part, for the error if it ends too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Worker,
    Hub,
    Http,
    Neighbour,
    /// Checks whether the engine is up.
    Engine,
    #[cfg(target_os = "linux")]
    Waking,
}

/// A part that ended, with its result.
pub(crate) type Ended = (Part, anyhow::Result<()>);

/// The running parts of an agent. The worker can be stopped before all others, so that the status
/// is shown while its jobs end.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<Ended>,
    /// Stops the worker.
    pub(crate) work: CancellationToken,
    /// Stops all others.
    pub(crate) serve: CancellationToken,
}

impl Tasks {
    /// Runs a part that may fail.
    pub(crate) fn try_run(
        &mut self,
        part: Part,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.set.spawn(async move { (part, task.await) });
    }

    /// Runs a part that cannot fail.
    pub(crate) fn run(&mut self, part: Part, task: impl Future<Output = ()> + Send + 'static) {
        self.try_run(part, async {
            task.await;
            Ok(())
        });
    }

    /// Runs a part that does not notice itself when it is to stop.
    pub(crate) fn run_until_stop(
        &mut self,
        part: Part,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.serve.clone();
        self.run(part, async move {
            let _ = stop.run_until_cancelled(task).await;
        });
    }

    /// Returns the next part that ends; `None` if none is running.
    pub(crate) async fn next(&mut self) -> Option<Result<Ended, JoinError>> {
        self.set.join_next().await
    }

    /// Stops all parts, and waits for at most `patience`. Returns whether all have ended.
    pub(crate) async fn stop(&mut self, patience: Duration) -> bool {
        self.work.cancel();
        self.serve.cancel();
        let all = async { while self.set.join_next().await.is_some() {} };
        timeout(patience, all).await.is_ok()
    }
}
