//! The probe of the engine: whether it is up, and which models it has.

use std::{future, sync::Arc, time::Duration};

use engine::EngineError;
use tokio::time::{sleep, timeout};

use crate::{Backoff, Desk, desk::Look};

/// Timeout of one probe.
const LOOK: Duration = Duration::from_secs(20);
/// Time for which requests for a probe are combined into one.
const GATHER: Duration = Duration::from_secs(1);

/// Keeps the state of the engine current: probes it at the start, while it is down, after jobs that
/// may have changed the loaded models, and at an interval while a link is up.
pub(crate) async fn keep_watch(desk: Arc<Desk>) {
    let (least, most) = desk.tuning().engine_retry;
    let mut backoff = Backoff::new(least, most);
    loop {
        if let Some(wait) = desk.breaker_wait() {
            tracing::warn!(?wait, "the engine fails too often; leasing is paused");
            sleep(wait).await;
        }
        match look(&desk).await {
            Ok(()) => {
                backoff.reset();
                look_at_running(&desk).await;
                until_next_look(&desk).await;
            }
            Err(problem) => {
                desk.engine_down(problem);
                sleep(backoff.next(desk.tuning().random.draw())).await;
            }
        }
    }
}

/// Asks the engine for its report. Probes are serialized, so that an older result never replaces a
/// newer one after a change of models.
async fn look(desk: &Desk) -> Result<(), String> {
    let _turn = desk.looks().lock().await;
    match timeout(LOOK, desk.engine().report()).await {
        Ok(Ok(report)) => {
            desk.engine_up(report);
            Ok(())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer within {} s", LOOK.as_secs())),
    }
}

/// Probes after a job that changed the engine's models, so that the new report is sent before the
/// end of the job.
pub(crate) async fn look_after_change(desk: &Desk) {
    match look(desk).await {
        Ok(()) => desk.hurry_report(),
        Err(problem) => tracing::debug!(
            problem,
            "the engine did not report its models after a change"
        ),
    }
    desk.models_changed();
}

async fn until_next_look(desk: &Desk) {
    let mut link = desk.link();
    let is_up = *link.borrow_and_update();
    let now_and_then = async {
        if is_up {
            sleep(desk.tuning().probe).await;
        } else {
            future::pending::<()>().await;
        }
    };
    let learning = learn(desk);
    tokio::pin!(now_and_then, learning);
    loop {
        tokio::select! {
            look = desk.wanted() => match look {
                Look::AtOnce => return,
                Look::Models => return sleep(GATHER).await,
                Look::Running => {
                    sleep(GATHER).await;
                    look_at_running(desk).await;
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
async fn learn(desk: &Desk) {
    while let Some(model) = desk.unknown_model() {
        match timeout(LOOK, desk.engine().show(&model)).await {
            Ok(Ok(show)) => desk.learned(model, show),
            // It would refuse again.
            Ok(Err(EngineError::Refused { .. })) => desk.learned(model, None),
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

async fn look_at_running(desk: &Desk) {
    match timeout(LOOK, desk.engine().running()).await {
        Ok(Ok(running)) => desk.running(running),
        Ok(Err(error)) => tracing::debug!(%error, "the engine did not list its loaded models"),
        Err(_) => tracing::debug!("the engine did not list its loaded models in time"),
    }
}
