//! Jobs, workers and moments for tests.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use proto::{
    Account, Dialect, End, ErrorCode, EventId, JobError, JobId, LeaseToken, ModelName, Op,
    Priority, Timestamp, WorkerId, limits,
};

use crate::{Job, Lease, LeaseQuery, LogPage, ModelPatterns, Models, NewJob, Owner, Serve, Store};

/// When every test begins.
pub const T0: Timestamp = Timestamp(1_700_000_000_000);
/// How long leases are here.
pub const LEASE: Duration = limits::LEASE;

/// The moment `seconds` after the beginning.
#[must_use]
pub fn at(seconds: u64) -> Timestamp {
    T0 + Duration::from_secs(seconds)
}

/// The `n`-th id.
#[must_use]
pub const fn id(n: u8) -> JobId {
    JobId([n; 16])
}

/// An account by name.
#[must_use]
pub fn account(name: &str) -> Account {
    Account::new(name).unwrap()
}

/// The `n`-th job: of the account `a`, for the model `m`.
#[must_use]
pub fn job(n: u8) -> NewJob {
    NewJob {
        id: id(n),
        account: account("a"),
        who: "laptop".into(),
        op: Op::Chat,
        model: ModelName::new("m").unwrap(),
        priority: Priority::default(),
        body: format!("{{\"model\":\"m\",  \"n\":{n}}}").into(),
        dialect: Dialect::Ollama,
        deadline: None,
        attended: false,
        worker: None,
    }
}

/// The `n`-th job, for another account.
#[must_use]
pub fn job_of(n: u8, name: &str) -> NewJob {
    NewJob {
        account: account(name),
        ..job(n)
    }
}

/// The `n`-th job, of another urgency.
#[must_use]
pub fn urgent(n: u8, level: u8) -> NewJob {
    NewJob {
        priority: Priority::new(level).unwrap(),
        ..job(n)
    }
}

/// The `n`-th job, for another model.
#[must_use]
pub fn job_for(n: u8, model: &str) -> NewJob {
    NewJob {
        model: ModelName::new(model).unwrap(),
        ..job(n)
    }
}

/// A worker that runs anything for anybody.
#[must_use]
pub fn anyone() -> LeaseQuery {
    let worker = WorkerId::new("w").unwrap();
    LeaseQuery {
        worker,
        serve: Serve::All,
        models: Models::Any,
        within: ModelPatterns::default(),
        left: BTreeSet::new(),
        changes: false,
    }
}

/// A worker with some models.
#[must_use]
pub fn with_models(models: &[&str]) -> LeaseQuery {
    let models = models
        .iter()
        .map(|name| ModelName::new(*name).unwrap())
        .collect();
    LeaseQuery {
        models: Models::Only(models),
        ..anyone()
    }
}

/// A worker that serves some accounts.
#[must_use]
pub fn serving(names: &[&str]) -> LeaseQuery {
    let accounts = names.iter().map(|name| account(name)).collect();
    LeaseQuery {
        serve: Serve::Accounts(accounts),
        ..anyone()
    }
}

/// The next job for a worker that runs anything, if there is one.
pub async fn next(store: &dyn Store, now: Timestamp) -> Option<Lease> {
    store.lease(now, &anyone(), LEASE).await.unwrap()
}

/// Queues the `n`-th job and leases it.
pub async fn leased(store: &dyn Store, now: Timestamp, n: u8) -> LeaseToken {
    store.enqueue(now, job(n)).await.unwrap();
    next(store, now).await.unwrap().token
}

/// The job, which must exist.
pub async fn found(store: &dyn Store, id: JobId) -> Job {
    store.get(Owner::Anyone, id).await.unwrap().unwrap()
}

/// Everything in a job's log after `after`.
pub async fn page(store: &dyn Store, id: JobId, after: EventId) -> LogPage {
    let log = store.log(Owner::Anyone, id).await.unwrap().unwrap();
    log.read(after, usize::MAX).await.unwrap()
}

/// The text of a page's lines.
#[must_use]
pub fn texts(page: &LogPage) -> Vec<String> {
    let text = |chunk: &proto::Chunk| String::from_utf8(chunk.bytes().to_vec()).unwrap();
    page.chunks.iter().map(text).collect()
}

/// Lines of a log.
#[must_use]
pub fn lines(texts: &[&'static str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|text| Bytes::from_static(text.as_bytes()))
        .collect()
}

/// The place after line `n` of an attempt.
#[must_use]
pub const fn after(attempt: u32, n: u64) -> EventId {
    EventId { attempt, n }
}

/// A reason.
#[must_use]
pub fn why(code: ErrorCode) -> JobError {
    JobError::new(code, "said the worker")
}

/// A failure.
#[must_use]
pub fn failed(code: ErrorCode) -> End {
    End::Failed { error: why(code) }
}
