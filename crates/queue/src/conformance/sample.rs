//! Sample jobs, workers and times for tests.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use proto::{
    Account, Dialect, End, ErrorCode, EventId, JobError, JobId, LeaseToken, ModelName, Op,
    Priority, Timestamp, WorkerId, limits,
};

use crate::{Job, Lease, LeaseQuery, LogPage, ModelPatterns, Models, NewJob, Owner, Serve, Store};

/// Start time of every test.
pub const T0: Timestamp = Timestamp(1_700_000_000_000);
/// Length of the leases.
pub const LEASE: Duration = limits::LEASE;

/// Returns the time `seconds` after the start.
#[must_use]
pub fn at(seconds: u64) -> Timestamp {
    T0 + Duration::from_secs(seconds)
}

/// Returns the `n`-th id.
#[must_use]
pub const fn id(n: u8) -> JobId {
    JobId([n; 16])
}

/// Returns the account with this name.
#[must_use]
pub fn account(name: &str) -> Account {
    Account::new(name).unwrap()
}

/// Returns the `n`-th job: of the account `a`, for the model `m`.
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

/// Returns the `n`-th job, for another account.
#[must_use]
pub fn job_of(n: u8, name: &str) -> NewJob {
    NewJob {
        account: account(name),
        ..job(n)
    }
}

/// Returns the `n`-th job, with another priority.
#[must_use]
pub fn urgent(n: u8, level: u8) -> NewJob {
    NewJob {
        priority: Priority::new(level).unwrap(),
        ..job(n)
    }
}

/// Returns the `n`-th job, for another model.
#[must_use]
pub fn job_for(n: u8, model: &str) -> NewJob {
    NewJob {
        model: ModelName::new(model).unwrap(),
        ..job(n)
    }
}

/// Returns a worker that runs any model for any account.
#[must_use]
pub fn anyone() -> LeaseQuery {
    let worker = WorkerId::new("w").unwrap();
    LeaseQuery {
        worker,
        serve: Serve::All,
        models: Models::Any,
        allowed_models: ModelPatterns::default(),
        excluded_models: BTreeSet::new(),
        accepts_model_changes: false,
        request_max: usize::MAX,
    }
}

/// Returns a worker with these models.
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

/// Returns a worker that serves these accounts.
#[must_use]
pub fn serving(names: &[&str]) -> LeaseQuery {
    let accounts = names.iter().map(|name| account(name)).collect();
    LeaseQuery {
        serve: Serve::Accounts(accounts),
        ..anyone()
    }
}

/// Leases the next job for a worker that runs any model, if there is one.
pub async fn next(store: &dyn Store, now: Timestamp) -> Option<Lease> {
    store.lease(now, &anyone(), LEASE).await.unwrap()
}

/// Queues the `n`-th job and leases it.
pub async fn leased(store: &dyn Store, now: Timestamp, n: u8) -> LeaseToken {
    store.enqueue(now, job(n)).await.unwrap();
    next(store, now).await.unwrap().token
}

/// Returns the job, which must exist.
pub async fn found(store: &dyn Store, id: JobId) -> Job {
    store.get(Owner::Anyone, id).await.unwrap().unwrap()
}

/// Returns everything in the log of a job after `after`.
pub async fn page(store: &dyn Store, id: JobId, after: EventId) -> LogPage {
    let log = store.log(Owner::Anyone, id).await.unwrap().unwrap();
    log.read(after, usize::MAX).await.unwrap()
}

/// Returns the text of a page's lines.
#[must_use]
pub fn texts(page: &LogPage) -> Vec<String> {
    let text = |chunk: &proto::Chunk| String::from_utf8(chunk.bytes().to_vec()).unwrap();
    page.chunks.iter().map(text).collect()
}

/// Returns lines of a log.
#[must_use]
pub fn lines(texts: &[&'static str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|text| Bytes::from_static(text.as_bytes()))
        .collect()
}

/// Returns the position after line `n` of an attempt.
#[must_use]
pub const fn after(attempt: u32, n: u64) -> EventId {
    EventId { attempt, n }
}

/// Returns an error with this code.
#[must_use]
pub fn why(code: ErrorCode) -> JobError {
    JobError::new(code, "said the worker")
}

/// Returns a failed end.
#[must_use]
pub fn failed(code: ErrorCode) -> End {
    End::Failed { error: why(code) }
}
