//! The overview of the relay's current work, for operators.

use proto::{
    admin::{self, MinuteView, QueueView, RunningJob},
    limits::DEAD_COUNTED_MAX,
};
use queue::{Minute, Running};

use crate::{Relay, error::ApiError, position::millis};

impl Relay {
    /// Returns queued jobs, running jobs and online workers; `minutes` is left empty.
    pub(crate) async fn overview(&self) -> Result<admin::Overview, ApiError> {
        let now = self.now();
        let dead = self.store.count_dead(DEAD_COUNTED_MAX).await?;
        let queue::Overview {
            counts,
            waiting,
            running,
            running_by,
        } = self.store.overview();
        let jobs: Vec<RunningJob> = running.into_iter().map(job).collect();
        let mut workers = self.workers.views(now);
        for worker in &mut workers {
            let count = running_by.get(&worker.name).copied().unwrap_or_default();
            worker.running = u32::try_from(count).unwrap_or(u32::MAX);
        }
        Ok(admin::Overview {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
            queue: QueueView {
                queued: counts.queued as u64,
                queued_bytes: counts.queued_bytes as u64,
                leased: counts.leased as u64,
                by_priority: waiting.iter().map(|count| *count as u64).collect(),
            },
            dead: dead as u64,
            workers,
            jobs,
            minutes: Vec::new(),
        })
    }

    /// Returns the statistics of each minute of the last hour.
    pub(crate) fn minutes(&self) -> Vec<MinuteView> {
        let minutes = self.store.minutes(self.now());
        minutes.iter().map(minute).collect()
    }
}

fn job(running: Running) -> RunningJob {
    let Running {
        job,
        holder,
        lines,
        lines_per_second,
    } = running;
    let (worker, since) = holder.map(|holder| (holder.worker, holder.since)).unzip();
    RunningJob {
        id: job.new.id,
        account: job.new.account,
        who: job.new.who,
        op: job.new.op,
        model: job.new.model,
        priority: job.new.priority,
        attempt: job.attempt,
        worker,
        since,
        tokens: lines,
        tokens_per_second: lines_per_second.map(|speed| (speed * 10.0).round() / 10.0),
    }
}

fn minute(minute: &Minute) -> MinuteView {
    MinuteView {
        at: minute.at,
        completed: minute.completed,
        failed: minute.failed,
        cancelled: minute.cancelled,
        tokens: minute.lines,
        median_ms: minute.median.map(millis),
        slow_ms: minute.slow.map(millis),
    }
}
