//! Webhooks: the end of a job, posted to a URL as <https://www.standardwebhooks.com> describes.
//!
//! ```text
//! webhook-id: msg_JOB             the same in every try: a receiver that has seen it answers 2xx
//! webhook-timestamp: SECONDS      time of this try
//! webhook-signature: v1,BASE64    HMAC-SHA-256 of `id.timestamp.body` with the job's secret
//!
//! the job's view, as in GET /api/jobs/{id}: neither prompt nor answer
//! ```
//!
//! Pending webhooks are stored with the job, so that they survive a restart. A failed try is
//! repeated with growing pauses: at most eight tries within a day.

mod send;
mod sign;
mod target;

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use proto::{Account, JobId};
use queue::{DeliveryOutcome, DueWebhooks, Job, Webhook};
use tokio::{sync::Notify, time::sleep};

use self::send::{Failure, Sender};
pub(crate) use self::send::{PATIENCE, client};
pub(crate) use self::sign::Secret;
pub use self::target::Allowed;
pub(crate) use self::target::check;
use crate::{Relay, api::view};

/// Maximum number of concurrent tries, and of those for one account.
const AT_ONCE: usize = 16;
const AT_ONCE_PER_ACCOUNT: usize = 4;
/// Maximum pauses after the first failed try, the second and so on; the actual pause is random
/// between zero and this. There are eight tries in all, the last within a day of the job's end,
/// when the job is erased.
pub(crate) const PAUSES: [Duration; 7] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(5 * 60 * 60),
    Duration::from_secs(12 * 60 * 60),
];
/// Wait after a failure of the store before the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Notified when a job with a webhook was accepted.
#[derive(Debug, Default)]
pub(crate) struct WebhookWakeups(Notify);

impl WebhookWakeups {
    pub(crate) fn tell(&self) {
        self.0.notify_one();
    }
}

/// Delivers webhooks until the relay stops. Sleeps while none is pending.
pub(crate) async fn deliver(relay: Relay) {
    let sender = Sender::new(&relay.settings.webhook_allow);
    let mut endings = relay.store.endings();
    let mut tries = FuturesUnordered::new();
    let mut busy: HashMap<JobId, Account> = HashMap::new();
    loop {
        endings.borrow_and_update();
        let now = relay.now();
        let found = match relay
            .store
            .due_webhooks(now, 4 * AT_ONCE, AT_ONCE_PER_ACCOUNT)
            .await
        {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(
                    error = proto::causes(&error),
                    "cannot read due webhooks; retrying in 1 s"
                );
                DueWebhooks {
                    next: Some(now + AFTER_FAILURE),
                    ..DueWebhooks::default()
                }
            }
        };
        for (job, webhook) in found.due {
            let account = &job.new.account;
            let of_account = busy.values().filter(|busy| *busy == account).count();
            let is_free = busy.len() < AT_ONCE && of_account < AT_ONCE_PER_ACCOUNT;
            if is_free && !busy.contains_key(&job.new.id) {
                busy.insert(job.new.id, account.clone());
                tries.push(attempt(&relay, &sender, job, webhook));
            }
        }
        let rest = async {
            match found.next {
                Some(next) => sleep(next.since(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = relay.stop.cancelled() => return,
            Some(told) = tries.next() => {
                busy.remove(&told);
            }
            () = relay.webhooks.0.notified() => {}
            () = rest => {}
            ended = endings.changed(), if found.any => if ended.is_err() { return },
        }
    }
}

/// Makes one try and stores its outcome.
async fn attempt(relay: &Relay, sender: &Sender, job: Job, webhook: Webhook) -> JobId {
    let id = job.new.id;
    let tries = usize::try_from(webhook.tries).unwrap_or(usize::MAX);
    let body = serde_json::to_vec(&view(job)).unwrap_or_default();
    // Wall-clock time, because receivers refuse timestamps that differ from their own clock.
    let now = relay.world.wall();
    let sent = sender.send(&webhook.new, id, now, Bytes::from(body)).await;
    let told = match sent {
        Ok(()) => DeliveryOutcome::Delivered,
        Err(Failure::Final(error)) => DeliveryOutcome::GivenUp { error },
        Err(Failure::Passing(error)) => match relay.settings.webhook_pauses.get(tries) {
            Some(pause) => DeliveryOutcome::Failed {
                again_at: relay.now() + jitter(relay, *pause),
                error,
            },
            None => DeliveryOutcome::GivenUp { error },
        },
    };
    tracing::info!(job.id = %id, tries = tries + 1, ?told, "webhook try finished");
    if let Err(error) = relay.store.webhook_tried(id, told).await {
        tracing::error!(job.id = %id, error = proto::causes(&error), "cannot store the outcome of a webhook try; it may be repeated");
        sleep(AFTER_FAILURE).await;
    }
    id
}

/// Returns a random part of the pause, so that tries that failed together are not repeated
/// together.
fn jitter(relay: &Relay, pause: Duration) -> Duration {
    let Ok(random) = relay.random() else {
        return pause;
    };
    let part = f64::from(u16::from_le_bytes([random[0], random[1]])) / f64::from(u16::MAX);
    pause.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_tries_fit_into_the_day_a_job_is_kept() {
        let longest: Duration = PAUSES.iter().sum();
        assert_eq!(PAUSES.len() + 1, 8);
        assert!(longest < queue::RESULT_RETENTION, "{longest:?}");
        assert!(PAUSES.is_sorted());
    }
}
