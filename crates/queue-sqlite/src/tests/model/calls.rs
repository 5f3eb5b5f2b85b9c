//! The random calls.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::select};
use proto::{Account, Priority};
use queue::{
    LeaseQuery, Models, NewJob, QueueLimits, Serve,
    conformance::sample::{account, anyone, job},
};

/// Small enough that random calls reach those of jobs.
pub(super) fn limits() -> QueueLimits {
    QueueLimits {
        jobs_max: 4,
        account_jobs_max: 2,
        account_kept_max: 1024 * 1024,
        ..QueueLimits::default()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Call {
    Wait(u64),
    Enqueue {
        new: NewJob,
        /// In this many seconds.
        deadline: Option<u64>,
        /// Idempotency key, with the digest of the request.
        key: Option<(&'static str, u8)>,
    },
    Lease {
        query: LeaseQuery,
        seconds: u64,
        max: usize,
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
        owner: Option<Account>,
    },
    Fetched(u8),
    Reap,
    /// After this many seconds.
    ReapAfter(u64),
    Restart,
}

pub(super) fn call() -> impl Strategy<Value = Call> {
    let lease = 0..6_usize;
    let any_account = proptest::option::of(one_account());
    let deadline = proptest::option::of(1..300_u64);
    prop_oneof![
        2 => prop_oneof![8 => 0..100_u64, 1 => Just(3_600), 1 => Just(90_000)].prop_map(Call::Wait),
        5 => (new(), deadline, proptest::option::of(key()))
            .prop_map(|(new, deadline, key)| Call::Enqueue { new, deadline, key }),
        5 => (query(), 1..100_u64, 1..3_usize)
            .prop_map(|(query, seconds, max)| Call::Lease { query, seconds, max }),
        1 => lease.clone().prop_map(Call::Extend),
        4 => (lease.clone(), 0..4_u64, 0..3_u8)
            .prop_map(|(lease, first, lines)| Call::Append { lease, first, lines }),
        3 => (lease.clone(), 0..4_u64, 0..3_u8)
            .prop_map(|(lease, lines, end)| Call::Complete { lease, lines, end }),
        3 => (lease, 0..3_u8).prop_map(|(lease, retry)| Call::Nack { lease, retry }),
        2 => (1..9_u8, any_account).prop_map(|(n, owner)| Call::Cancel { n, owner }),
        2 => (1..9_u8).prop_map(Call::Fetched),
        2 => Just(Call::Reap),
        1 => Just(Call::Restart),
    ]
}

/// Calls after which many keys outlive their jobs.
pub(super) fn call_by_key() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (new(), key())
            .prop_map(|(new, key)| Call::Enqueue { new, deadline: None, key: Some(key) }),
        3 => (1..9_u8).prop_map(|n| Call::Cancel { n, owner: None }),
        2 => (0..90_000_u64).prop_map(Call::ReapAfter),
        1 => Just(Call::Restart),
    ]
}

/// The last key is of the kind that goes with its job.
fn key() -> impl Strategy<Value = (&'static str, u8)> {
    (select(vec!["k", "l", "retry\nx"]), 0..2_u8)
}

fn one_account() -> impl Strategy<Value = Account> {
    select(vec!["a", "b", "c"]).prop_map(account)
}

fn new() -> impl Strategy<Value = NewJob> {
    let model = select(vec!["m", "M:latest", "other"]);
    let worker = select(vec![None, None, None, Some("w"), Some("v")]);
    (1..9_u8, one_account(), model, 0..=10_u8, worker).prop_map(
        |(n, account, model, level, worker)| NewJob {
            account,
            model: model.parse().unwrap(),
            priority: Priority::stored(level).unwrap(),
            attended: n % 2 == 0,
            worker: worker.map(|name| name.parse().unwrap()),
            ..job(n)
        },
    )
}

fn query() -> impl Strategy<Value = LeaseQuery> {
    let names = select(vec![&["m"][..], &["Other"], &["m:latest", "other"]]);
    let models = (0..5_u8, names).prop_map(|(kind, names)| {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        match kind {
            0 | 1 => Models::Any,
            2 | 3 => Models::Only(names),
            _ => Models::OnlyUrgent(names),
        }
    });
    let some = proptest::collection::btree_set(one_account(), 1..3);
    let serve = prop_oneof![Just(Serve::All), some.prop_map(Serve::Accounts)];
    let excluded = select(vec![None, None, None, Some("m:latest".to_owned())]);
    (serve, models, select(vec!["w", "v"]), excluded).prop_map(
        |(serve, models, worker, excluded)| LeaseQuery {
            worker: worker.parse().unwrap(),
            serve,
            models,
            excluded_models: BTreeSet::from_iter(excluded),
            ..anyone()
        },
    )
}
