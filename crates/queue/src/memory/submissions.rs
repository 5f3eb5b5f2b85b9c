//! Idempotency keys and searches of the store in memory.

use async_trait::async_trait;
use proto::{Account, JobId, JobState, Timestamp};

use super::{Inner, MemoryQueue, without_body};
use crate::{
    Cursor, Extras, IdempotencyKey, Job, JobFilter, JobPage, NewJob, Owner, QueueError,
    Submissions, Submitted, Webhook,
};

impl Inner {
    /// Forgets what is kept beside jobs that are gone: idempotency keys, webhooks and the like.
    pub(super) fn forget_names(&mut self) {
        let Self {
            live,
            finished,
            named,
            webhooks,
            ..
        } = self;
        let is_there = |id: &JobId| finished.contains_key(id) || live.machine.get(*id).is_some();
        named.retain(|_, (id, _)| is_there(id));
        webhooks.retain(|id, _| is_there(id));
    }

    fn is_retried(&self, job: &Job) -> bool {
        let name = (
            job.new.account.clone(),
            IdempotencyKey::retry(job.new.id).key,
        );
        self.named.contains_key(&name)
    }
}

#[async_trait]
impl Submissions for MemoryQueue {
    async fn submit(
        &self,
        now: Timestamp,
        job: NewJob,
        extras: Extras,
    ) -> Result<Submitted, QueueError> {
        self.change(|inner| {
            let Extras {
                idempotency_key,
                webhook,
            } = extras;
            let id = job.id;
            let name = idempotency_key.map(|idempotency_key| {
                (
                    (job.account.clone(), idempotency_key.key.clone()),
                    idempotency_key,
                )
            });
            if let Some((name, idempotency_key)) = &name
                && let Some((before, fingerprint)) = inner.named.get(name)
            {
                return idempotency_key
                    .check_same(fingerprint)
                    .map(|()| Submitted::Known(*before));
            }
            let accepted = inner.enqueue(now, &job)?;
            let name =
                name.map(|(name, idempotency_key)| (name, (id, idempotency_key.fingerprint)));
            inner.named.extend(name);
            let webhook = webhook.map(|new| (id, Webhook::new(new)));
            inner.webhooks.extend(webhook);
            Ok(Submitted::New(Box::new(accepted)))
        })
    }

    async fn submitted(
        &self,
        account: &Account,
        key: &str,
    ) -> Result<Option<(JobId, [u8; 32])>, QueueError> {
        let inner = self.open()?;
        Ok(inner.named.get(&(account.clone(), key.to_owned())).copied())
    }

    async fn search(&self, owner: Owner<'_>, filter: &JobFilter) -> Result<JobPage, QueueError> {
        let inner = self.open()?;
        let mut page = JobPage::default();
        for (seq, job) in inner.jobs().into_iter().rev() {
            let at = Cursor {
                created_at: job.created_at,
                seq,
            };
            let is_there = filter.after.is_none_or(|after| at < after);
            if is_there
                && !(filter.dead && inner.is_retried(job))
                && owner.owns(&job.new.account)
                && !page.offer(filter, at, || without_body(job))
            {
                break;
            }
        }
        Ok(page)
    }

    async fn count_dead(&self, at_most: usize) -> Result<usize, QueueError> {
        let inner = self.open()?;
        let jobs = inner.jobs().into_iter().map(|(_, job)| job);
        let dead = jobs.filter(|job| job.state == JobState::Failed && !inner.is_retried(job));
        Ok(dead.take(at_most).count())
    }
}
