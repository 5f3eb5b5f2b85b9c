//! Running one job on the engine.

use std::{future, sync::Arc, time::Duration};

use engine::EngineError;
use futures_util::StreamExt as _;
use proto::{
    Body, End, ErrorCode, JobError, LeaseToken, ModelName, Op, Timestamp, limits,
    worker::{LeaseHead, Retry},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{JobTable, held::Ending, probe};

/// Retry of a job that seems late here: the relay then ends or leases it again, by its own clock.
const LATE: Retry = Retry::AfterMs(1_000);

/// Time by which a job may exceed the limit, so that a timeout of the engine of the same length
/// comes first: after that one, the job is tried again.
const GRACE: Duration = Duration::from_secs(1);

/// A job to run.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) token: LeaseToken,
    pub(crate) op: Op,
    pub(crate) model: ModelName,
    /// Time from now on for which the answer is wanted.
    pub(crate) wanted_for: Option<Duration>,
    pub(crate) body: Body,
    pub(crate) stop: CancellationToken,
}

impl Work {
    /// Runs the job until it ends or is stopped. Dropping the engine's answer stops the engine.
    pub(crate) async fn run(self, table: Arc<JobTable>) {
        let token = self.token;
        let limit = self.limit(&table);
        let span = tracing::info_span!("job", job.id = %token.job, job.attempt = token.attempt);
        let unfinished = Unfinished {
            table: Arc::clone(&table),
            token,
        };
        let too_long = async {
            match limit {
                Some(limit) => {
                    tokio::time::sleep(limit + GRACE).await;
                    limit
                }
                None => future::pending().await,
            }
        };
        let ended = async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                () = passed(self.wanted_for) => Some(Ending::nack(
                    LATE,
                    ErrorCode::DeadlineExceeded,
                    "the deadline passed before the answer was complete",
                )),
                ending = self.answer(&table) => Some(ending),
                limit = too_long => Some(self.ran_too_long(&table, limit)),
            }
        };
        if let Some(ending) = ended.instrument(span.clone()).await {
            span.in_scope(|| tracing::info!(ending = %name(&ending), "ended"));
            table.end(token, ending);
        }
        if self.op.changes_models() {
            // Even a stopped change of models may have taken effect in part.
            table.models_changed();
        }
        drop(unfinished);
    }

    /// The maximum time of this job on the engine. A change of models may take hours.
    fn limit(&self, table: &JobTable) -> Option<Duration> {
        let limit = table.tuning().job_limit;
        limit.filter(|_| !self.op.changes_models())
    }

    /// Fails a job at the limit. It is not given back, because another run would most likely take
    /// as long. Without a single line, the engine itself may be stuck, so that counts for the
    /// circuit breaker.
    fn ran_too_long(&self, table: &JobTable, limit: Duration) -> Ending {
        let limit = limit.as_secs();
        if !table.has_lines(self.token) {
            let problem = format!("it answered nothing for {limit} s");
            self.engine_failed(table, &EngineError::Broken(problem));
        }
        let why = format!(
            "the job ran for {limit} s, and its agent lets no job run longer (`--job-limit`)"
        );
        JobError::new(ErrorCode::DeadlineExceeded, why).into()
    }

    async fn answer(&self, table: &JobTable) -> Ending {
        let started = table.engine().start(self.op, self.body.clone()).await;
        let mut lines = match started {
            Ok(lines) => lines,
            Err(error) => return self.failed_before_answering(table, error),
        };
        let mut count = 0_u64;
        while let Some(line) = lines.next().await {
            match line {
                // No relay accepts such a line, and sending it would break the link again and
                // again.
                Ok(line) if line.len() > limits::LINE_MAX => {
                    return JobError::from(EngineError::TooLong).into();
                }
                Ok(line) => {
                    if self.op.changes_models() && dialect::ollama::is_success(&line) {
                        probe::look_after_change(table).await;
                    }
                    table.line(self.token, line).await;
                }
                Err(error) if count == 0 => return self.failed_before_answering(table, error),
                Err(error) => {
                    self.engine_failed(table, &error);
                    return JobError::from(error).into();
                }
            }
            count += 1;
        }
        if count == 0 {
            let error = EngineError::Broken("its answer was empty".into());
            return self.failed_before_answering(table, error);
        }
        if !self.op.changes_models() {
            table.engine_succeeded(&self.model);
        }
        Ending::End(End::Completed)
    }

    /// Reports a failure to the circuit breaker if the engine is to blame. A failed change of
    /// models does not count, nor does a job that is refused again, because the job itself may be
    /// the cause, nor unusable output of a model.
    fn engine_failed(&self, table: &JobTable, error: &EngineError) {
        let is_again = self.token.attempt > 1;
        if matches!(error, EngineError::Unusable(_))
            || (matches!(error, EngineError::Refused { .. }) && is_again)
        {
            return;
        }
        if !self.op.changes_models() || matches!(error, EngineError::Unavailable(_)) {
            table.engine_failed(error);
        }
    }

    /// Decides what happens to a job that failed before the first line. A refusal is final;
    /// anything else may succeed later or elsewhere, except unusable output on a second attempt.
    /// Changes of models are not retried, because their requester sees the failure.
    fn failed_before_answering(&self, table: &JobTable, error: EngineError) -> Ending {
        self.engine_failed(table, &error);
        let is_hopeless = matches!(error, EngineError::Unusable(_)) && self.token.attempt > 1;
        if self.op.changes_models() || is_hopeless || !error.is_retryable() {
            return JobError::from(error).into();
        }
        let random = table.tuning().random.draw();
        Ending::Nack(
            Retry::after_failure(self.token.attempt, random),
            error.into(),
        )
    }
}

/// Returns the time for which the answer of a job that arrives now is wanted. If only a deadline by
/// wall clock is given and it has already passed, this machine's clock must be ahead, because the
/// relay leases no late jobs; the deadline is then ignored.
pub(crate) fn wanted_for(head: &LeaseHead, now: Timestamp) -> Option<Duration> {
    let by_time_of_day = || {
        let left = head.deadline?.since(now);
        (!left.is_zero()).then_some(left)
    };
    let remaining = head.remaining_ms.map(Duration::from_millis);
    remaining.or_else(by_time_of_day)
}

async fn passed(wanted_for: Option<Duration>) {
    match wanted_for {
        Some(left) => tokio::time::sleep(left).await,
        None => future::pending().await,
    }
}

const fn name(ending: &Ending) -> &'static str {
    match ending {
        Ending::End(End::Completed) => "completed",
        Ending::End(End::Failed { .. }) => "failed",
        Ending::End(End::Cancelled) => "cancelled",
        Ending::Nack(..) => "given back",
    }
}

/// Gives the job back if its task panics, so that no lease stays without a job.
struct Unfinished {
    table: Arc<JobTable>,
    token: LeaseToken,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let why = "internal error of the worker";
        let ending = Ending::nack(Retry::AfterMs(1_000), ErrorCode::Internal, why);
        self.table.end(self.token, ending);
    }
}

#[cfg(test)]
mod tests;
