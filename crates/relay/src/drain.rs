//! Graceful shutdown: the relay accepts no new work, running jobs may finish for a limited time,
//! and then connections are closed.
//!
//! No job is lost. A queued job is on disk. A running job keeps its lease and its attempt over the
//! restart, so that its worker continues over the next connection.

use std::time::Duration;

use proto::Timestamp;
use queue::JobLog;
use tokio::{sync::watch, time::sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Relay;

/// Work that is still in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    /// Number of leased jobs.
    jobs: usize,
    /// Number of online workers, any of which may hold the leased jobs.
    workers: usize,
    /// Number of requests from before the shutdown whose response is not yet sent in full.
    answers: usize,
}

impl Load {
    /// Whether there is nothing left to wait for.
    const fn is_over(self) -> bool {
        self.answers == 0 && (self.jobs == 0 || self.workers == 0)
    }
}

/// Deadline of a shutdown. Decides what comes next; times are arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drain {
    until: Timestamp,
}

/// Next step of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Work may still finish: check again on a change, and after this time.
    Wait(Duration),
    /// No work is left.
    Done,
    /// The deadline has passed: remaining connections are closed.
    Cut,
}

impl Drain {
    fn begun(now: Timestamp, patience: Duration) -> Self {
        Self {
            until: now + patience,
        }
    }

    fn next(self, now: Timestamp, load: Load) -> Next {
        if load.is_over() {
            return Next::Done;
        }
        let left = self.until.since(now);
        if left.is_zero() {
            Next::Cut
        } else {
            Next::Wait(left)
        }
    }
}

impl Relay {
    /// Stops accepting work, and waits until running work has finished or the drain time is over.
    pub(crate) async fn drain_gracefully(&self) {
        let (mut queue, mut workers) = (self.store.changes(), self.workers.changes());
        self.drain.cancel();
        self.answers.close();
        let drain = Drain::begun(self.now(), self.settings.drain);
        let mut has_said = false;
        loop {
            queue.borrow_and_update();
            workers.borrow_and_update();
            let load = self.load();
            let left = match drain.next(self.now(), load) {
                Next::Done => return,
                Next::Cut => {
                    tracing::warn!(
                        ?load,
                        "drain time is over; closing connections, leased jobs continue after the restart"
                    );
                    return;
                }
                Next::Wait(left) => left,
            };
            if !std::mem::replace(&mut has_said, true) {
                tracing::info!(
                    ?load,
                    ?left,
                    "draining: waiting for running jobs and responses"
                );
            }
            tokio::select! {
                () = told(&mut queue) => {}
                () = told(&mut workers) => {}
                () = self.answers.wait(), if load.answers > 0 => {}
                () = sleep(left) => {}
            }
        }
    }

    fn load(&self) -> Load {
        Load {
            jobs: self.store.counts().leased,
            workers: self.workers.carriers(self.now()).len(),
            answers: self.answers.len(),
        }
    }

    /// Returns a token to hold until a response is sent in full; `None` once the shutdown has
    /// begun.
    pub(crate) fn answering(&self) -> Option<TaskTrackerToken> {
        (!self.drain.is_cancelled()).then(|| self.answers.token())
    }

    /// Waits until readers of this log must be disconnected: the relay shuts down and no worker has
    /// the job, or the drain time is over.
    pub(crate) async fn cuts_off(&self, log: &dyn JobLog) {
        let forsaken = async {
            self.drain.cancelled().await;
            let mut head = log.head();
            if head.wait_for(|head| head.waits()).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = forsaken => {}
        }
    }
}

async fn told(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const PATIENCE: Duration = Duration::from_secs(25);

    fn load(jobs: usize, workers: usize, answers: usize) -> Load {
        Load {
            jobs,
            workers,
            answers,
        }
    }

    #[test]
    fn a_relay_with_nothing_running_ends_at_once_and_another_when_its_work_or_its_time_is_over() {
        let drain = Drain::begun(NOW, PATIENCE);
        let late = NOW + PATIENCE;
        for (at, left, next) in [
            (NOW, load(0, 0, 0), Next::Done),
            (NOW, load(0, 3, 0), Next::Done),
            (NOW, load(2, 0, 0), Next::Done),
            (NOW, load(1, 1, 0), Next::Wait(PATIENCE)),
            (NOW, load(0, 0, 1), Next::Wait(PATIENCE)),
            (late, load(1, 1, 0), Next::Cut),
            (late, load(0, 0, 1), Next::Cut),
            (late, load(0, 1, 0), Next::Done),
        ] {
            assert_eq!(drain.next(at, left), next, "{left:?}");
        }
        let last = NOW + (PATIENCE - Duration::from_millis(1));
        let wait = Next::Wait(Duration::from_millis(1));
        assert_eq!(drain.next(last, load(1, 1, 1)), wait);
    }

    #[test]
    fn without_patience_everything_is_cut_at_once() {
        let drain = Drain::begun(NOW, Duration::ZERO);
        assert_eq!(drain.next(NOW, load(1, 1, 1)), Next::Cut);
    }
}
