//! The probe of the engine: whether it is up, and which models it has.

use std::{future, sync::Arc, time::Duration};

use engine::EngineError;
use tokio::time::{sleep, timeout};

use crate::{Backoff, JobTable, job_table::Look};

/// Timeout of one probe.
const LOOK: Duration = Duration::from_secs(20);
/// Time for which requests for a probe are combined into one.
const GATHER: Duration = Duration::from_secs(1);

/// Keeps the state of the engine current: probes it at the start, while it is down, after jobs that
/// may have changed the loaded models, and at an interval while a link is up.
pub(crate) async fn keep_watch(table: Arc<JobTable>) {
    let (least, most) = table.tuning().engine_retry;
    let mut backoff = Backoff::new(least, most);
    loop {
        if let Some(wait) = table.breaker_wait() {
            tracing::warn!(?wait, "the engine fails too often; leasing is paused");
            sleep(wait).await;
        }
        match look(&table).await {
            Ok(()) => {
                backoff.reset();
                look_at_running(&table).await;
                until_next_look(&table).await;
            }
            Err(problem) => {
                table.engine_down(problem);
                sleep(backoff.next(table.tuning().random.draw())).await;
            }
        }
    }
}

/// Asks the engine for its report. Probes are serialized, so that an older result never replaces a
/// newer one after a change of models.
async fn look(table: &JobTable) -> Result<(), String> {
    let _turn = table.looks().lock().await;
    match timeout(LOOK, table.engine().report()).await {
        Ok(Ok(report)) => {
            table.engine_up(report);
            Ok(())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer within {} s", LOOK.as_secs())),
    }
}

/// Probes after a job that changed the engine's models, so that the new report is sent before the
/// end of the job.
pub(crate) async fn look_after_change(table: &JobTable) {
    match look(table).await {
        Ok(()) => table.hurry_report(),
        Err(problem) => tracing::debug!(
            problem,
            "the engine did not report its models after a change"
        ),
    }
    table.models_changed();
}

async fn until_next_look(table: &JobTable) {
    let mut link = table.link();
    let is_up = *link.borrow_and_update();
    let now_and_then = async {
        if is_up {
            sleep(table.tuning().probe).await;
        } else {
            future::pending::<()>().await;
        }
    };
    let learning = learn(table);
    tokio::pin!(now_and_then, learning);
    loop {
        tokio::select! {
            look = table.wanted() => match look {
                Look::AtOnce => return,
                Look::Models => return sleep(GATHER).await,
                Look::Running => {
                    sleep(GATHER).await;
                    look_at_running(table).await;
                }
            },
            () = &mut now_and_then => return,
            _ = link.changed() => return,
            () = &mut learning => {}
        }
    }
}

/// Asks the engine for the details of each new model, one after another, and then waits for ever.
/// If the engine does not answer, it is asked again after the next probe.
async fn learn(table: &JobTable) {
    while let Some(model) = table.unknown_model() {
        match timeout(LOOK, table.engine().show(&model)).await {
            Ok(Ok(show)) => table.learned(model, show),
            // It would refuse again.
            Ok(Err(EngineError::Refused { .. })) => table.learned(model, None),
            Ok(Err(error)) => {
                tracing::debug!(
                    model = %model.name,
                    %error,
                    "the engine did not return the details of a model"
                );
                break;
            }
            Err(_) => break,
        }
    }
    future::pending().await
}

async fn look_at_running(table: &JobTable) {
    match timeout(LOOK, table.engine().running()).await {
        Ok(Ok(running)) => table.running(running),
        Ok(Err(error)) => tracing::debug!(%error, "the engine did not list its loaded models"),
        Err(_) => tracing::debug!("the engine did not list its loaded models in time"),
    }
}
