//! Idempotency keys and searches of the store in memory.

use std::borrow::Cow;

use async_trait::async_trait;
use proto::{Account, JobId, JobState, Timestamp, limits::KEY_COST};

use super::{Inner, MemoryQueue, without_body};
use crate::{
    Cursor, Extras, IdempotencyKey, Job, JobFilter, JobPage, NewJob, Owner, QueueError,
    Submissions, Submitted, Webhook,
};

/// What an idempotency key stands for.
#[derive(Clone, Copy)]
pub(super) struct Named {
    job: JobId,
    fingerprint: [u8; 32],
    submitted: Timestamp,
}

impl Inner {
    /// Forgets what is kept beside jobs that are gone: webhooks, and idempotency keys that are not
    /// kept longer. Returns when the next of those is to be forgotten.
    pub(super) fn forget_names(&mut self, now: Timestamp) -> Option<Timestamp> {
        let Self {
            live,
            finished,
            named,
            past,
            webhooks,
            ..
        } = self;
        let is_there = |id: &JobId| finished.contains_key(id) || live.machine.get(*id).is_some();
        webhooks.retain(|id, _| is_there(id));
        let gone: Vec<_> = named.extract_if(|_, of| !is_there(&of.job)).collect();
        let cost = i64::try_from(KEY_COST).unwrap_or(i64::MAX);
        for (name, of) in gone {
            if let Some(until) = IdempotencyKey::outlives_job(&name.1, of.submitted, now) {
                live.machine.weigh(&name.0, cost);
                past.insert(name, (of, until));
            }
        }
        for ((account, _), _) in past.extract_if(|_, (_, until)| *until <= now) {
            live.machine.weigh(&account, -cost);
        }
        past.values().map(|(_, until)| *until).min()
    }

    fn of_name(&self, name: &(Account, String)) -> Option<&Named> {
        let past = || self.past.get(name).map(|(of, _)| of);
        self.named.get(name).or_else(past)
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
                && let Some(before) = inner.of_name(name)
            {
                return idempotency_key
                    .check_same(&before.fingerprint)
                    .map(|()| Submitted::Known(before.job));
            }
            let accepted = inner.enqueue(now, &job)?;
            let name = name.map(|(name, idempotency_key)| {
                let named = Named {
                    job: id,
                    fingerprint: idempotency_key.fingerprint,
                    submitted: accepted.created_at,
                };
                (name, named)
            });
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
        let found = inner.of_name(&(account.clone(), key.to_owned()));
        Ok(found.map(|of| (of.job, of.fingerprint)))
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
                && !page.offer(filter, at, Cow::Owned(without_body(job)))
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
