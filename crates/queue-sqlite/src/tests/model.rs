//! Random calls at random times: the file and the model give the same answers, across restarts.

use std::{fmt::Debug, time::Duration};

use proptest::{collection::vec, prelude::*};
use proto::{End, ErrorCode, EventId, LeaseToken, Timestamp, worker::Retry};
use queue::{
    Keys, LeaseQuery, MemoryQueue, NewJob, Owner, Queue, QueueError,
    conformance::sample::{
        T0, account, anyone, failed, id, job, job_for, page, serving, urgent, why, with_models,
    },
};

use super::{Scratch, run};

#[derive(Debug, Clone)]
enum Call {
    Wait(u64),
    Enqueue {
        n: u8,
        account: bool,
        model: bool,
        level: u8,
        deadline: Option<u64>,
    },
    Lease {
        account: bool,
        models: Option<bool>,
        seconds: u64,
    },
    Extend(usize),
    Append {
        lease: usize,
        first: u64,
        lines: u8,
    },
    Complete {
        lease: usize,
        lines: u64,
        end: u8,
    },
    Nack {
        lease: usize,
        retry: u8,
    },
    Cancel {
        n: u8,
        owner: Option<bool>,
    },
    Fetched(u8),
    Reap,
    Restart,
}

fn call() -> impl Strategy<Value = Call> {
    let lease = 0..6_usize;
    prop_oneof![
        2 => prop_oneof![8 => 0..100_u64, 1 => Just(3_600), 1 => Just(90_000)].prop_map(Call::Wait),
        4 => (1..9_u8, any::<bool>(), any::<bool>(), 1..=10_u8, proptest::option::of(1..300_u64))
            .prop_map(|(n, account, model, level, deadline)| {
                Call::Enqueue { n, account, model, level, deadline }
            }),
        5 => (any::<bool>(), any::<Option<bool>>(), 1..100_u64)
            .prop_map(|(account, models, seconds)| Call::Lease { account, models, seconds }),
        1 => lease.clone().prop_map(Call::Extend),
        4 => (lease.clone(), 0..4_u64, 0..3_u8)
            .prop_map(|(lease, first, lines)| Call::Append { lease, first, lines }),
        3 => (lease.clone(), 0..4_u64, 0..3_u8)
            .prop_map(|(lease, lines, end)| Call::Complete { lease, lines, end }),
        3 => (lease, 0..3_u8).prop_map(|(lease, retry)| Call::Nack { lease, retry }),
        2 => (1..9_u8, any::<Option<bool>>()).prop_map(|(n, owner)| Call::Cancel { n, owner }),
        2 => (1..9_u8).prop_map(Call::Fetched),
        2 => Just(Call::Reap),
        1 => Just(Call::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_file_answers_as_the_model_does(calls in vec(call(), 1..60)) {
        run(async move {
            let mut pair = Pair::new();
            for call in calls {
                pair = pair.call(call).await;
            }
            pair.compare().await;
        });
    }
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
            model: MemoryQueue::default(),
            file: Scratch::new(),
            leases,
        }
    }

    async fn call(mut self, call: Call) -> Self {
        let (now, model, file) = (self.now, &self.model, &*self.file);
        match call {
            Call::Wait(seconds) => self.now = now + Duration::from_secs(seconds),
            Call::Enqueue {
                n,
                account: of,
                model: on,
                level,
                deadline,
            } => {
                let new = NewJob {
                    account: whose(of),
                    model: job_for(n, if on { "m" } else { "M:latest" }).model,
                    priority: urgent(n, level).priority,
                    deadline: deadline.map(|seconds| now + Duration::from_secs(seconds)),
                    attended: n % 2 == 0,
                    ..job(n)
                };
                same(
                    model.enqueue(now, new.clone()).await,
                    file.enqueue(now, new).await,
                );
            }
            Call::Lease {
                account: of,
                models,
                seconds,
            } => {
                // One account at a time, because the turn among accounts is not stored on disk.
                let LeaseQuery { serve, .. } = serving(&[whose(of).as_str()]);
                let models = models.map(|known| if known { "m" } else { "other" });
                let any = anyone();
                let query = LeaseQuery {
                    serve,
                    ..models.map_or(any, |name| with_models(&[name]))
                };
                let length = Duration::from_secs(seconds);
                let (expected, got) = (
                    model.lease(now, &query, length).await,
                    file.lease(now, &query, length).await,
                );
                let lent = got
                    .as_ref()
                    .ok()
                    .and_then(|lease| Some(lease.as_ref()?.token));
                self.leases.extend(lent);
                let plain = |lease: queue::Lease| (lease.token, lease.until, lease.job);
                same(
                    expected.map(|lease| lease.map(plain)),
                    got.map(|lease| lease.map(plain)),
                );
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
                let account = owner.map(whose);
                let owner = account.as_ref().map_or(Owner::Anyone, Owner::Account);
                same(
                    model.cancel(now, owner, id(n)).await,
                    file.cancel(now, owner, id(n)).await,
                );
            }
            Call::Fetched(n) => {
                model.fetched(now, id(n));
                file.fetched(now, id(n));
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
        for owner in [Owner::Anyone, Owner::Account(&whose(true))] {
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
    }
}

fn whose(first: bool) -> proto::Account {
    account(if first { "a" } else { "b" })
}

fn same<T: PartialEq + Debug>(expected: Result<T, QueueError>, got: Result<T, QueueError>) {
    match (expected, got) {
        (Ok(expected), Ok(got)) => assert_eq!(expected, got),
        (Err(expected), Err(got)) => assert_eq!(format!("{expected:?}"), format!("{got:?}")),
        (expected, got) => panic!("the model says {expected:?}, the file {got:?}"),
    }
}
