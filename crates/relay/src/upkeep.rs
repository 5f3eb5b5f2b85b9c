//! Background tasks: expired leases, revoked keys, and jobs whose requester did not come back.

use tokio::time::sleep;

use crate::Relay;

/// Wait after a failure of the store before the next try.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs the queue's maintenance, such as requeuing jobs of expired leases. Sleeps until the next
/// due time or a new job.
pub(crate) async fn reap(relay: Relay) {
    let mut arrivals = relay.store.arrivals();
    loop {
        arrivals.borrow_and_update();
        let now = relay.now();
        let next = match relay.store.reap(now).await {
            Ok(next) => next.map(|next| next.since(now)),
            Err(error) => {
                tracing::error!(
                    error = proto::causes(&error),
                    "queue maintenance failed; retrying in 1 s"
                );
                Some(AFTER_FAILURE)
            }
        };
        let rest = async {
            match next {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = relay.stop.cancelled() => return,
            () = rest => {}
            arrived = arrivals.changed() => if arrived.is_err() { return },
        }
    }
}

/// Ends connections, held polls and open streams whose key or token was revoked or has expired.
/// Sleeps without a timer while none is open.
pub(crate) async fn check_keys(relay: Relay) {
    loop {
        let due = async {
            relay.key_uses.any().await;
            sleep(relay.settings.key_check).await;
        };
        tokio::select! {
            () = relay.stop.cancelled() => return,
            () = due => {}
        }
        let keyed = relay.key_uses.all();
        if keyed.is_empty() {
            continue;
        }
        let keys = match relay.store.list_keys().await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(
                    error = proto::causes(&error),
                    "cannot check the keys of open connections; retrying at the next interval"
                );
                continue;
            }
        };
        let now = relay.wall_now();
        for ((id, until), connection) in keyed {
            if until.is_some_and(|until| until <= now) {
                connection.cancel();
                continue;
            }
            if let Some(key) = keys.iter().find(|key| key.id == id) {
                relay.note_used(key, now);
            }
            match relay.in_force(&keys, &id, now).await {
                Ok(true) => {}
                Ok(false) => connection.cancel(),
                Err(error) => tracing::warn!(
                    error = proto::causes(&error),
                    "cannot check the user of an open connection; retrying at the next interval"
                ),
            }
        }
    }
}

/// Cancels jobs from before the start whose requester waited on a connection and did not come back
/// in time.
pub(crate) async fn give_up_orphans(relay: Relay) {
    match relay.store.attended().await {
        Ok(jobs) => relay.orphans.add(jobs.into_iter().map(|job| job.new.id)),
        Err(error) => {
            tracing::error!(
                error = proto::causes(&error),
                "cannot list jobs from before the restart; abandoned ones are not cancelled"
            );
            return;
        }
    }
    tokio::select! {
        () = relay.drain.cancelled() => return,
        () = sleep(relay.settings.come_back) => {}
    }
    for job in relay.orphans.take() {
        let cancelled = relay
            .store
            .cancel(relay.now(), queue::Owner::Anyone, job)
            .await;
        match cancelled {
            Ok(()) => tracing::info!(job.id = %job, "cancelled: the requester did not return"),
            Err(error) if error.is_of_store() => {
                tracing::warn!(job.id = %job, error = proto::causes(&error), "cannot cancel; the job may go on");
            }
            Err(error) => tracing::debug!(job.id = %job, %error, "nothing to cancel"),
        }
    }
}
