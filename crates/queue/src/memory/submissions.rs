use async_trait::async_trait;
use proto::{Account, JobId, Timestamp};

use super::{Inner, MemoryQueue, without_body};
use crate::{Cursor, Extras, JobFilter, JobPage, NewJob, Owner, QueueError, Submissions};

impl Inner {
    /// Names of jobs that are gone are free.
    pub(super) fn forget_names(&mut self) {
        let Self {
            live,
            finished,
            named,
            ..
        } = self;
        named.retain(|_, (id, _)| finished.contains_key(id) || live.machine.get(*id).is_some());
    }
}

#[async_trait]
impl Submissions for MemoryQueue {
    async fn submit(
        &self,
        now: Timestamp,
        job: NewJob,
        extras: Extras,
    ) -> Result<JobId, QueueError> {
        self.change(|inner| {
            let (id, account) = (job.id, job.account.clone());
            let Some(once) = extras.once else {
                inner.enqueue(now, job)?;
                return Ok(id);
            };
            let name = (account, once.key.clone());
            if let Some((before, fingerprint)) = inner.named.get(&name) {
                return once.is_same(fingerprint).map(|()| *before);
            }
            inner.enqueue(now, job)?;
            inner.named.insert(name, (id, once.fingerprint));
            Ok(id)
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
                && owner.owns(&job.new.account)
                && !page.offer(filter, at, || without_body(job))
            {
                break;
            }
        }
        Ok(page)
    }
}
