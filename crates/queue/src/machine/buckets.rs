//! The buckets that hold the waiting jobs of one priority level, and which of them a worker
//! searches. A job is in one bucket for each key it can be found by.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::{Account, Dialect, JobId, ModelName, WorkerId};

use crate::{LeaseQuery, Models, NewJob};

/// What the jobs of a bucket have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum BucketKey {
    /// Every job except model changes.
    Any,
    /// The queries among them.
    Query,
    /// Jobs for the model of this canonical name.
    Model(String),
    /// Model changes that the worker needs no model for.
    Change,
    /// Changes of the model of this canonical name, which the worker must have.
    ChangeOf(String),
}

impl BucketKey {
    /// Returns the keys of the buckets that hold a job; `model` is the canonical name of its model.
    pub(super) fn of(new: &NewJob, model: &str) -> [Option<Self>; 3] {
        let (first, any) = if !new.op.changes_models() {
            (Self::Model(model.to_owned()), Some(Self::Any))
        } else if new.op.needs_model() {
            (Self::ChangeOf(model.to_owned()), None)
        } else {
            (Self::Change, None)
        };
        let is_query = new.dialect == Dialect::Queries;
        [Some(first), any, is_query.then_some(Self::Query)]
    }
}

/// The jobs of one key and level: by account, then by age.
pub(super) type Bucket = BTreeMap<Account, BTreeMap<u64, JobId>>;

type Buckets = HashMap<BucketKey, Bucket>;

/// The waiting jobs of one priority level.
#[derive(Debug, Default)]
pub(super) struct Level {
    shared: Buckets,
    /// Jobs that name a worker.
    reserved: HashMap<WorkerId, Buckets>,
}

/// Identifies a waiting job in the buckets that hold it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) keys: &'a [Option<BucketKey>],
    /// The only worker that may run the job, if it names one.
    pub(super) worker: Option<&'a WorkerId>,
    pub(super) account: &'a Account,
    pub(super) seq: u64,
}

impl Level {
    pub(super) fn insert(&mut self, entry: Entry<'_>, id: JobId) {
        let buckets = match entry.worker {
            None => &mut self.shared,
            Some(worker) => self.reserved.entry(worker.clone()).or_default(),
        };
        for key in entry.keys.iter().flatten() {
            // Most buckets exist: the key is cloned only for a new one.
            let bucket = match buckets.get_mut(key) {
                Some(bucket) => bucket,
                None => buckets.entry(key.clone()).or_default(),
            };
            let jobs = bucket.entry(entry.account.clone()).or_default();
            jobs.insert(entry.seq, id);
        }
    }

    pub(super) fn remove(&mut self, entry: Entry<'_>) {
        let buckets = match entry.worker {
            None => Some(&mut self.shared),
            Some(worker) => self.reserved.get_mut(worker),
        };
        let Some(buckets) = buckets else { return };
        for key in entry.keys.iter().flatten() {
            let Some(bucket) = buckets.get_mut(key) else {
                continue;
            };
            if let Some(jobs) = bucket.get_mut(entry.account) {
                jobs.remove(&entry.seq);
                if jobs.is_empty() {
                    bucket.remove(entry.account);
                }
            }
            if bucket.is_empty() {
                buckets.remove(key);
            }
        }
        if let Some(worker) = entry.worker
            && buckets.is_empty()
        {
            self.reserved.remove(worker);
        }
    }
}

/// The buckets that a worker searches.
#[derive(Debug)]
pub(super) struct Search<'a> {
    keys: BTreeSet<BucketKey>,
    /// Models, by canonical name, whose jobs are left to other workers, unless a job names this
    /// worker.
    excluded_models: Option<&'a BTreeSet<String>>,
    worker: Option<&'a WorkerId>,
}

impl<'a> Search<'a> {
    /// Returns the search of a worker for jobs to lease.
    pub(super) fn of(query: &'a LeaseQuery) -> Self {
        let mut keys = keys_of(&query.models);
        if query.accepts_model_changes {
            let changes: Vec<_> = keys.iter().filter_map(change_of).collect();
            keys.extend(changes);
            keys.insert(BucketKey::Change);
        }
        Self {
            keys,
            excluded_models: Some(&query.excluded_models),
            worker: Some(&query.worker),
        }
    }

    /// Returns the search for all jobs, except model changes, that run on these models; jobs that
    /// name a worker are found only if it is this one.
    pub(super) fn among(models: &Models, worker: Option<&'a WorkerId>) -> Self {
        Self {
            keys: keys_of(models),
            excluded_models: None,
            worker,
        }
    }

    /// Whether a job with these keys is in a bucket that is searched, as far as the keys decide it.
    pub(super) fn includes(&self, keys: &[Option<BucketKey>]) -> bool {
        keys.iter().flatten().any(|key| self.keys.contains(key))
    }

    /// The searched buckets of a level that hold any jobs.
    pub(super) fn buckets<'b>(&'b self, level: &'b Level) -> impl Iterator<Item = &'b Bucket> {
        let shared = self.keys.iter().filter(|key| !self.excludes(key));
        let shared = shared.filter_map(|key| level.shared.get(key));
        let reserved = self.worker.and_then(|worker| level.reserved.get(worker));
        let reserved = reserved.into_iter();
        let reserved =
            reserved.flat_map(|buckets| self.keys.iter().filter_map(|key| buckets.get(key)));
        shared.chain(reserved)
    }

    fn excludes(&self, key: &BucketKey) -> bool {
        match (key, self.excluded_models) {
            (BucketKey::Model(name), Some(models)) => models.contains(name),
            _ => false,
        }
    }
}

fn keys_of(models: &Models) -> BTreeSet<BucketKey> {
    match models {
        Models::Any | Models::AnyBut(_) => BTreeSet::from([BucketKey::Any]),
        Models::AnyForQueries => BTreeSet::from([BucketKey::Query]),
        Models::Only(models) | Models::OnlyUrgent(models) => {
            let names = models.iter().map(ModelName::canonical);
            names.map(BucketKey::Model).collect()
        }
    }
}

/// Returns the key of the changes of a model that the worker has.
fn change_of(key: &BucketKey) -> Option<BucketKey> {
    match key {
        BucketKey::Model(name) => Some(BucketKey::ChangeOf(name.clone())),
        BucketKey::Any | BucketKey::Query | BucketKey::Change | BucketKey::ChangeOf(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proto::Op;

    use super::*;
    use crate::conformance::sample::{account, anyone, id, job};

    #[test]
    fn a_level_keeps_nothing_of_jobs_that_left_it() {
        let mut level = Level::default();
        let (worker, account) = (anyone().worker, account("a"));
        for op in [Op::Chat, Op::Pull, Op::Delete] {
            let keys = BucketKey::of(&NewJob { op, ..job(1) }, "m:latest");
            for worker in [None, Some(&worker)] {
                let entry = |seq| Entry {
                    keys: &keys,
                    worker,
                    account: &account,
                    seq,
                };
                level.insert(entry(1), id(1));
                level.insert(entry(2), id(2));
                level.remove(entry(1));
                let search = Search {
                    keys: keys.iter().flatten().cloned().collect(),
                    excluded_models: None,
                    worker,
                };
                let left: Vec<_> = search.buckets(&level).flat_map(|b| &b[&account]).collect();
                assert!(left.iter().all(|left| *left == (&2, &id(2))));
                assert_eq!(left.len(), keys.iter().flatten().count(), "{op}");
                level.remove(entry(2));
                assert!(level.shared.is_empty() && level.reserved.is_empty(), "{op}");
            }
        }
    }
}
