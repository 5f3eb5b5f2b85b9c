use std::{future, sync::Arc, time::Duration};

use engine::EngineError;
use tokio::time::{sleep, timeout};

use crate::{Backoff, Desk, desk::Look};

/// Longest wait for one look at the engine.
const LOOK: Duration = Duration::from_secs(20);
/// How long several reasons for a look are gathered into one.
const GATHER: Duration = Duration::from_secs(1);

/// Keeps the desk's idea of the engine true: looks at it at the start, while it is down, after a
/// job that may have changed what is loaded, and now and then while a link is up.
pub(crate) async fn keep_watch(desk: Arc<Desk>) {
    let (least, most) = desk.tuning().engine_retry;
    let mut backoff = Backoff::new(least, most);
    loop {
        if let Some(wait) = desk.breaker_wait() {
            tracing::warn!(?wait, "the engine fails too often: no leasing");
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

/// Asks the engine what it offers. Looks follow one another, so that what was seen before a
/// change of models is never noted after what was seen behind it.
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

/// A job changed which models the engine has: whoever hears of the job's end next must find them
/// as they are now.
pub(crate) async fn look_after_change(desk: &Desk) {
    match look(desk).await {
        Ok(()) => desk.hurry_report(),
        Err(problem) => tracing::debug!(problem, "the engine does not tell what changed"),
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

/// Asks the engine about each model that is new, one after the other, and then waits for ever: an
/// engine that does not answer such a question is asked again after the next look.
async fn learn(desk: &Desk) {
    while let Some(model) = desk.unknown_model() {
        match timeout(LOOK, desk.engine().show(&model)).await {
            Ok(Ok(show)) => desk.learned(model, show),
            // It says no: it would say so again.
            Ok(Err(EngineError::Refused { .. })) => desk.learned(model, None),
            Ok(Err(error)) => {
                tracing::debug!(model = %model.name, %error, "the engine does not show a model");
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
        Ok(Err(error)) => tracing::debug!(%error, "the engine does not tell what it runs"),
        Err(_) => tracing::debug!("the engine does not tell in time what it runs"),
    }
}
