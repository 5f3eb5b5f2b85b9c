//! Queries of the store in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use proto::{Account, Body, JobId, JobState, Timestamp};

use super::{Inner, MemoryQueue};
use crate::{
    Claim, Job, LISTED_MAX, LOGS_MAX, NewQuery, Owner, Queries, Query, QueryId, QueryLog,
    QueueError, UserId,
};

/// The queries, and the number of the latest log entry.
#[derive(Default)]
pub(super) struct Table {
    last: QueryId,
    last_log: u64,
    rows: BTreeMap<QueryId, Kept>,
}

struct Kept {
    job: JobId,
    project: i64,
    user: Option<UserId>,
    claim: Option<Claim>,
    draft: Option<Body>,
    logs: Vec<QueryLog>,
}

impl Inner {
    fn whole_job(&self, id: JobId) -> Option<Job> {
        if let Some((_, job, _)) = self.finished.get(&id) {
            return Some(job.clone());
        }
        let mut job = self.live.machine.get(id)?.job.clone();
        job.new.body = self.bodies.get(&id).cloned().unwrap_or_default();
        Some(job)
    }

    /// Returns the job of a query and its account.
    fn job_of(&self, id: QueryId) -> Option<(JobId, Account)> {
        let job = self.queries.rows.get(&id)?.job;
        let live = self.live.machine.get(job).map(|record| &record.job);
        let found = live.or_else(|| self.finished.get(&job).map(|(_, job, _)| job));
        Some((job, found?.new.account.clone()))
    }

    fn draft(&mut self, id: QueryId, draft: Option<Body>) {
        let Some((job, account)) = self.job_of(id) else {
            return;
        };
        let length = |draft: &Option<Body>| draft.as_ref().map_or(0, |draft| draft.0.len());
        let more = length(&draft).cast_signed();
        if let Some(kept) = self.queries.rows.get_mut(&id) {
            let less = length(&kept.draft).cast_signed();
            kept.draft = draft;
            self.weigh(&account, job, (more - less) as i64);
        }
    }

    fn query(&self, id: QueryId) -> Option<Query> {
        let kept = self.queries.rows.get(&id)?;
        Some(Query {
            id,
            project: kept.project,
            user: kept.user,
            claim: kept.claim.clone(),
            draft: kept.draft.clone(),
            logs: kept.logs.len() as u64,
            job: self.whole_job(kept.job)?,
        })
    }
}

#[async_trait]
impl Queries for MemoryQueue {
    async fn create_query(&self, now: Timestamp, new: NewQuery) -> Result<QueryId, QueueError> {
        self.change(|inner| {
            let job = new.job.id;
            inner.enqueue(now, &new.job)?;
            inner.queries.last += 1;
            let kept = Kept {
                job,
                project: new.project,
                user: new.user,
                claim: None,
                draft: None,
                logs: Vec::new(),
            };
            inner.queries.rows.insert(inner.queries.last, kept);
            Ok(inner.queries.last)
        })
    }

    async fn find_query(&self, owner: Owner<'_>, id: QueryId) -> Result<Option<Query>, QueueError> {
        let found = self.open()?.query(id);
        Ok(found.filter(|query| owner.owns(&query.job.new.account)))
    }

    async fn query_of(&self, job: JobId) -> Result<Option<QueryId>, QueueError> {
        let inner = self.open()?;
        let mut rows = inner.queries.rows.iter();
        Ok(rows.find(|(_, kept)| kept.job == job).map(|(id, _)| *id))
    }

    async fn list_queries(
        &self,
        owner: Owner<'_>,
        states: &[JobState],
        skip: u64,
        limit: usize,
    ) -> Result<(u64, Vec<Query>), QueueError> {
        let inner = self.open()?;
        let ids = inner.queries.rows.keys().rev();
        let all = ids.filter_map(|id| inner.query(*id)).filter(|query| {
            owner.owns(&query.job.new.account)
                && (states.is_empty() || states.contains(&query.job.state))
        });
        let all: Vec<_> = all.collect();
        let count = all.len() as u64;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut page: Vec<_> = all.into_iter().skip(skip).take(limit).collect();
        for query in &mut page {
            if query.job.new.body.0.len() > LISTED_MAX {
                query.job.new.body = Body::default();
            }
            query.draft.take_if(|draft| draft.0.len() > LISTED_MAX);
        }
        Ok((count, page))
    }

    async fn claim_query(&self, id: QueryId, claim: Claim) -> Result<(), QueueError> {
        let mut inner = self.open()?;
        inner.draft(id, None);
        if let Some(kept) = inner.queries.rows.get_mut(&id) {
            kept.claim = Some(claim);
        }
        Ok(())
    }

    async fn draft_query(&self, id: QueryId, draft: Body) -> Result<(), QueueError> {
        let mut inner = self.open()?;
        if let Some((_, account)) = inner.job_of(id) {
            inner.live.machine.check_kept(&account, draft.0.len())?;
        }
        inner.draft(id, Some(draft));
        Ok(())
    }

    async fn log_query(
        &self,
        now: Timestamp,
        id: QueryId,
        text: Body,
        most: u64,
    ) -> Result<Option<QueryLog>, QueueError> {
        let mut inner = self.open()?;
        let Some(kept) = inner.queries.rows.get(&id) else {
            return Ok(None);
        };
        let bytes: usize = kept.logs.iter().map(|log| log.text.0.len()).sum();
        if kept.logs.len() as u64 >= most || bytes + text.0.len() > LOGS_MAX {
            return Ok(None);
        }
        let of = inner.job_of(id);
        if let Some((_, account)) = &of {
            inner.live.machine.check_kept(account, text.0.len())?;
        }
        inner.queries.last_log += 1;
        let entry = QueryLog {
            id: inner.queries.last_log,
            query: id,
            text,
            created_at: now,
        };
        if let Some((job, account)) = of {
            let more = i64::try_from(entry.text.0.len()).unwrap_or(i64::MAX);
            inner.weigh(&account, job, more);
        }
        if let Some(kept) = inner.queries.rows.get_mut(&id) {
            kept.logs.push(entry.clone());
        }
        Ok(Some(entry))
    }

    async fn query_logs(&self, id: QueryId) -> Result<Vec<QueryLog>, QueueError> {
        let inner = self.open()?;
        let kept = inner.queries.rows.get(&id);
        Ok(kept.map(|kept| kept.logs.clone()).unwrap_or_default())
    }

    async fn delete_query(&self, id: QueryId) -> Result<bool, QueueError> {
        self.change(|inner| {
            let job = inner.queries.rows.get(&id).map(|kept| kept.job);
            let Some(job) = job.filter(|job| inner.finished.contains_key(job)) else {
                return Ok(false);
            };
            if let Some((_, ended, _)) = inner.finished.remove(&job) {
                inner.lighten(&ended.new.account, job, 0);
            }
            inner.queries.rows.remove(&id);
            Ok(true)
        })
    }
}
