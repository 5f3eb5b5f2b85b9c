use async_trait::async_trait;
use proto::{JobId, Timestamp, WebhookState};
use tokio::sync::watch;

use super::{MemoryQueue, without_body};
use crate::{DueWebhooks, QueueError, Told, Webhook, Webhooks};

#[async_trait]
impl Webhooks for MemoryQueue {
    async fn webhook(&self, id: JobId) -> Result<Option<Webhook>, QueueError> {
        Ok(self.open()?.webhooks.get(&id).cloned())
    }

    async fn due_webhooks(&self, now: Timestamp, limit: usize) -> Result<DueWebhooks, QueueError> {
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
        found
            .due
            .sort_by_key(|(job, webhook)| (webhook.next_at, job.finished_at));
        found.due.truncate(limit);
        Ok(found)
    }

    async fn webhook_tried(&self, id: JobId, told: Told) -> Result<(), QueueError> {
        if let Some(webhook) = self.open()?.webhooks.get_mut(&id) {
            webhook.tried(told);
        }
        Ok(())
    }

    fn endings(&self) -> watch::Receiver<u64> {
        self.endings.subscribe()
    }
}
