use std::{future, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{Backoff, Desk};

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
        match timeout(LOOK, desk.engine().report()).await {
            Ok(Ok(report)) => {
                backoff.reset();
                desk.engine_up(report);
                until_next_look(&desk).await;
            }
            Ok(Err(error)) => {
                desk.engine_down(error.to_string());
                sleep(backoff.next(desk.tuning().random.draw())).await;
            }
            Err(_) => {
                desk.engine_down(format!("it did not answer within {} s", LOOK.as_secs()));
                sleep(backoff.next(desk.tuning().random.draw())).await;
            }
        }
    }
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
    tokio::select! {
        at_once = desk.probe_wanted() => if !at_once {
            sleep(GATHER).await;
        },
        () = now_and_then => {}
        _ = link.changed() => {}
    }
}
