//! The relay's way to its end: when it is asked to stop it takes nothing new, what runs may end
//! for a while, and the rest is cut.
//!
//! What is cut is not lost. A job that waits is on disk. One that runs keeps its lease and its
//! attempt over the restart, so that its worker goes on where it was, over the next connection.

use std::time::Duration;

use proto::Timestamp;
use queue::JobLog;
use tokio::{sync::watch, time::sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Relay;

/// What still goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    /// Jobs that are leased.
    jobs: usize,
    /// Workers that are online, one of which may have them.
    workers: usize,
    /// Requests that were begun before and are not answered whole.
    answers: usize,
}

impl Load {
    /// Whether nothing is left that is worth waiting for.
    const fn is_over(self) -> bool {
        self.answers == 0 && (self.jobs == 0 || self.workers == 0)
    }
}

/// The decision what comes next, over moments that are handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drain {
    until: Timestamp,
}

/// See [`Drain::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Something may still end by itself: look again when something has changed, and then.
    Wait(Duration),
    /// Nothing is left.
    Done,
    /// The time is over: what is left is cut.
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
    /// Takes nothing new from now on, and waits until what runs has ended or its time is over.
    pub(crate) async fn see_off(&self) {
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
                        "what still runs is cut and goes on after the restart"
                    );
                    return;
                }
                Next::Wait(left) => left,
            };
            if !std::mem::replace(&mut has_said, true) {
                tracing::info!(?load, ?left, "what runs may end");
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
        let (sockets, polls) = self.workers.count(self.now());
        Load {
            jobs: self.store.counts().leased,
            workers: sockets + polls,
            answers: self.answers.len(),
        }
    }

    /// To be kept until a request is answered whole; `None` for one that is too late to be waited
    /// for.
    pub(crate) fn answering(&self) -> Option<TaskTrackerToken> {
        (!self.drain.is_cancelled()).then(|| self.answers.token())
    }

    /// Waits until whoever reads this log is to be cut off: the relay goes down and nobody works
    /// on the job, or its time is over.
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
