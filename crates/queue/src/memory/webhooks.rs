//! Webhooks of the store in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use proto::{Account, JobId, Timestamp, WebhookState};
use tokio::sync::watch;

use super::{MemoryQueue, without_body};
use crate::{DeliveryOutcome, DueWebhooks, Job, QueueError, Webhook, Webhooks};

#[async_trait]
impl Webhooks for MemoryQueue {
    async fn webhook(&self, id: JobId) -> Result<Option<Webhook>, QueueError> {
        Ok(self.open()?.webhooks.get(&id).cloned())
    }

    async fn due_webhooks(
        &self,
        now: Timestamp,
        limit: usize,
        of_each: usize,
    ) -> Result<DueWebhooks, QueueError> {
        let inner = self.open()?;
        let waiting = inner.webhooks.iter();
        let waiting = waiting.filter(|(_, webhook)| webhook.state == WebhookState::Waiting);
        let mut found = DueWebhooks::default();
        for (id, webhook) in waiting {
            found.any = true;
            if webhook.next_at > now {
                let next = found.next.unwrap_or(webhook.next_at);
                found.next = Some(next.min(webhook.next_at));
            } else if let Some((_, job, _)) = inner.finished.get(id) {
                found.due.push((without_body(job), webhook.clone()));
            }
        }
        let waits = |(job, webhook): &(Job, Webhook)| (webhook.next_at, job.finished_at);
        found.due.sort_by_key(waits);
        let mut places: HashMap<Account, usize> = HashMap::new();
        let placed = found.due.into_iter().map(|due| {
            let place = places.entry(due.0.new.account.clone()).or_default();
            *place += 1;
            (*place, due)
        });
        let mut placed: Vec<_> = placed.filter(|(place, _)| *place <= of_each).collect();
        placed.sort_by_key(|(place, due)| (*place, waits(due)));
        let placed = placed.into_iter().map(|(_, due)| due);
        found.due = placed.take(limit).collect();
        Ok(found)
    }

    async fn webhook_tried(&self, id: JobId, told: DeliveryOutcome) -> Result<(), QueueError> {
        if let Some(webhook) = self.open()?.webhooks.get_mut(&id) {
            webhook.tried(told);
        }
        Ok(())
    }

    fn endings(&self) -> watch::Receiver<u64> {
        self.endings.subscribe()
    }
}
