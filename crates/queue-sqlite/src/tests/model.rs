//! Random calls at random times: the file and the model give the same answers, across restarts.

mod calls;

use std::{fmt::Debug, time::Duration};

use proptest::{collection::vec, prelude::*};
use proto::{End, ErrorCode, EventId, LeaseToken, Timestamp, worker::Retry};
use queue::{
    Keys, MemoryQueue, NewJob, Owner, Queue, QueueError, Submissions,
    conformance::{
        sample::{T0, account, failed, id, job_of, page, why},
        submissions::named,
    },
};

use self::calls::{Call, call, call_by_key, limits};
use super::{Scratch, kept, run};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_file_answers_as_the_model_does(calls in vec(call(), 1..60)) {
        run(compared(calls));
    }

    #[test]
    fn the_file_forgets_names_as_the_model_does(calls in vec(call_by_key(), 1..60)) {
        run(compared(calls));
    }
}

async fn compared(calls: Vec<Call>) {
    let mut pair = Pair::new();
    for call in calls {
        pair = pair.call(call).await;
    }
    pair.compare().await;
}

struct Pair {
    now: Timestamp,
    model: MemoryQueue,
    file: Scratch,
    /// The leases handed out so far, the latest last.
    leases: Vec<LeaseToken>,
}

impl Pair {
    fn new() -> Self {
        let leases = vec![LeaseToken {
            job: id(200),
            attempt: 1,
        }];
        Self {
            now: T0,
            model: MemoryQueue::new(limits()),
            file: Scratch::on(limits()),
            leases,
        }
    }

    async fn call(mut self, call: Call) -> Self {
        let (now, model, file) = (self.now, &self.model, &*self.file);
        match call {
            Call::Wait(seconds) => self.now = now + Duration::from_secs(seconds),
            Call::Enqueue { new, deadline, key } => {
                let new = NewJob {
                    deadline: deadline.map(|seconds| now + Duration::from_secs(seconds)),
                    ..new
                };
                if let Some((key, digest)) = key {
                    let extras = || named(key, digest);
                    same(
                        model.submit(now, new.clone(), extras()).await,
                        file.submit(now, new.clone(), extras()).await,
                    );
                    same(
                        model.submitted(&new.account, key).await,
                        file.submitted(&new.account, key).await,
                    );
                } else {
                    same(
                        model.enqueue(now, new.clone()).await,
                        file.enqueue(now, new).await,
                    );
                }
            }
            Call::Lease {
                query,
                seconds,
                max,
            } => {
                let length = Duration::from_secs(seconds);
                let (expected, got) = (
                    model.lease_many(now, &query, length, max).await,
                    file.lease_many(now, &query, length, max).await,
                );
                let lent = got.iter().flatten().map(|lease| lease.token);
                self.leases.extend(lent);
                let plain = |leases: Vec<queue::Lease>| -> Vec<_> {
                    let leases = leases.into_iter();
                    leases
                        .map(|lease| (lease.token, lease.until, lease.job))
                        .collect()
                };
                same(expected.map(plain), got.map(plain));
            }
            Call::Extend(lease) => {
                let (token, length) = (self.lease(lease), Duration::from_secs(70));
                same(
                    model.extend(now, token, length).await,
                    file.extend(now, token, length).await,
                );
            }
            Call::Append {
                lease,
                first,
                lines,
            } => {
                let token = self.lease(lease);
                let lines = vec![bytes::Bytes::from_static(b"{\"line\":1}"); lines.into()];
                let expected = model.append(now, token, first, lines.clone()).await;
                let got = file.append(now, token, first, lines).await;
                if let (Ok(all), Ok(stored)) = (&expected, &got) {
                    assert!(stored <= all);
                }
                same(expected.map(drop), got.map(drop));
            }
            Call::Complete { lease, lines, end } => {
                let token = self.lease(lease);
                let end = match end {
                    0 => failed(ErrorCode::EngineFailed),
                    1 => End::Cancelled,
                    _ => End::Completed,
                };
                same(
                    model.complete(now, token, lines, end.clone()).await,
                    file.complete(now, token, lines, end).await,
                );
            }
            Call::Nack { lease, retry } => {
                let (token, reason) = (self.lease(lease), why(ErrorCode::EngineFailed));
                let retry = match retry {
                    0 => Retry::Now,
                    1 => Retry::AfterMs(40_000),
                    _ => Retry::Never,
                };
                same(
                    model.nack(now, token, retry, reason.clone()).await,
                    file.nack(now, token, retry, reason).await,
                );
            }
            Call::Cancel { n, owner } => {
                let owner = owner.as_ref().map_or(Owner::Anyone, Owner::Account);
                same(
                    model.cancel(now, owner, id(n)).await,
                    file.cancel(now, owner, id(n)).await,
                );
            }
            Call::Fetched(n) => {
                model.fetched(now, id(n));
                file.fetched(now, id(n));
            }
            Call::ReapAfter(seconds) => {
                self.now = now + Duration::from_secs(seconds);
                same(model.reap(self.now).await, file.reap(self.now).await);
            }
            Call::Reap => same(model.reap(now).await, file.reap(now).await),
            Call::Restart => {
                model.restart(now);
                self.file = self.file.reopened(now).await;
            }
        }
        assert_eq!(self.model.counts(), self.file.counts());
        self
    }

    /// Returns one of the latest leases, valid or not.
    fn lease(&self, back: usize) -> LeaseToken {
        self.leases[self.leases.len().saturating_sub(1 + back)]
    }

    async fn compare(&self) {
        let (model, file) = (&self.model, &*self.file);
        same(model.attended().await, file.attended().await);
        same(model.list_keys().await, file.list_keys().await);
        for owner in [Owner::Anyone, Owner::Account(&account("a"))] {
            same(model.list(owner, 100).await, file.list(owner, 100).await);
        }
        for job in model.list(Owner::Anyone, 100).await.unwrap() {
            let id = job.new.id;
            if job.is_erased {
                continue;
            }
            same(
                model.get(Owner::Anyone, id).await,
                file.get(Owner::Anyone, id).await,
            );
            for attempt in 0..3 {
                let after = EventId { attempt, n: 1 };
                let (expected, got) = (page(model, id, after).await, page(file, id, after).await);
                assert_eq!(format!("{expected:?}"), format!("{got:?}"));
                let lines = |page: &queue::LogPage| page.chunks.clone();
                assert_eq!(lines(&expected), lines(&got));
            }
        }
        self.compare_kept().await;
    }

    /// Compares what is kept for each account, by the longest request that is still accepted.
    async fn compare_kept(&self) {
        let most = usize::try_from(limits().account_kept_max).unwrap();
        // Waiting jobs have limits of their own.
        for n in 1..9 {
            same(
                self.model.cancel(self.now, Owner::Anyone, id(n)).await,
                self.file.cancel(self.now, Owner::Anyone, id(n)).await,
            );
        }
        for (n, name) in (100..).zip(["a", "b", "c"]) {
            let left = most - usize::try_from(kept(&self.file, &account(name))).unwrap();
            let long = |bytes| NewJob {
                body: vec![b'x'; bytes].into(),
                ..job_of(n, name)
            };
            let refused = self.model.enqueue(self.now, long(left + 1)).await;
            assert_eq!(refused.unwrap_err().code(), ErrorCode::AccountFull);
            self.model.enqueue(self.now, long(left)).await.unwrap();
        }
    }
}

fn same<T: PartialEq + Debug>(expected: Result<T, QueueError>, got: Result<T, QueueError>) {
    match (expected, got) {
        (Ok(expected), Ok(got)) => assert_eq!(expected, got),
        (Err(expected), Err(got)) => assert_eq!(format!("{expected:?}"), format!("{got:?}")),
        (expected, got) => panic!("the model says {expected:?}, the file {got:?}"),
    }
}
