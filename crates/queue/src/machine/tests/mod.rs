//! Properties of the machine under random calls; `conformance` tests the rules one by one.

mod answers;
mod order;
mod restart;
mod undo;

use std::time::Duration;

use proptest::prelude::*;
use proto::{End, ErrorCode, LeaseToken, Timestamp, worker::Retry};

use super::{Machine, Step};
use crate::{
    LeaseQuery, Models, NewJob, Owner,
    conformance::sample::{T0, account, anyone, id, job, job_for, serving, urgent, why},
};

/// A call of the machine.
#[derive(Debug, Clone)]
enum Call {
    Wait(u64),
    Enqueue {
        n: u8,
        account: u8,
        model: u8,
        level: u8,
        deadline: Option<u64>,
    },
    Lease {
        account: Option<u8>,
        models: Option<u8>,
    },
    End {
        n: u8,
        attempt: u32,
        how: u8,
    },
    Cancel(u8),
    Reap,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => (0..150_u64).prop_map(Call::Wait),
        5 => (0..40_u8, 0..4_u8, 0..3_u8, 1..=10_u8, proptest::option::of(1..400_u64)).prop_map(
            |(n, account, model, level, deadline)| Call::Enqueue { n, account, model, level, deadline }
        ),
        5 => (proptest::option::of(0..4_u8), proptest::option::of(1..8_u8))
            .prop_map(|(account, models)| Call::Lease { account, models }),
        3 => (0..40_u8, 1..4_u32, 0..4_u8).prop_map(|(n, attempt, how)| Call::End { n, attempt, how }),
        1 => (0..40_u8).prop_map(Call::Cancel),
        1 => Just(Call::Reap),
    ]
}

fn new_job(n: u8, of: u8, model: u8, level: u8, deadline: Option<Timestamp>) -> NewJob {
    NewJob {
        account: account(["a", "b", "c", "d"][usize::from(of)]),
        model: job_for(n, ["x", "y", "Z:latest"][usize::from(model)]).model,
        priority: urgent(n, level).priority,
        deadline,
        ..job(n)
    }
}

/// Returns a query; three bits select among three models.
fn query(of: Option<u8>, models: Option<u8>) -> LeaseQuery {
    let serve = of.map_or(anyone().serve, |of| {
        serving(&[["a", "b", "c", "d"][usize::from(of)]]).serve
    });
    let names = ["X", "y:latest", "z"];
    let models = models.map_or(Models::Any, |bits| {
        let chosen = (0..3).filter(|bit| bits & (1 << bit) != 0);
        Models::Only(chosen.map(|bit| job_for(0, names[bit]).model).collect())
    });
    LeaseQuery {
        serve,
        models,
        ..anyone()
    }
}

/// Makes the call and advances the clock; returns the steps to store.
fn make(machine: &mut Machine, now: &mut Timestamp, call: &Call) -> Vec<Step> {
    match *call {
        Call::Wait(seconds) => {
            *now = *now + Duration::from_secs(seconds);
            Vec::new()
        }
        Call::Enqueue {
            n,
            account,
            model,
            level,
            deadline,
        } => {
            let deadline = deadline.map(|seconds| *now + Duration::from_secs(seconds));
            machine
                .enqueue(*now, &new_job(n, account, model, level, deadline))
                .into_iter()
                .collect()
        }
        Call::Lease { account, models } => {
            machine
                .lease(*now, &query(account, models), Duration::from_secs(60))
                .0
        }
        Call::End { n, attempt, how } => {
            let token = LeaseToken {
                job: id(n),
                attempt,
            };
            let reason = why(ErrorCode::EngineFailed);
            let ended = match how {
                0 => machine.complete(*now, token, 0, 0, End::Completed),
                1 => machine.nack(*now, token, Retry::Now, reason).map(Some),
                2 => machine
                    .nack(*now, token, Retry::AfterMs(30_000), reason)
                    .map(Some),
                _ => machine.nack(*now, token, Retry::Never, reason).map(Some),
            };
            ended.ok().flatten().into_iter().collect()
        }
        Call::Cancel(n) => {
            let cancelled = machine.cancel(*now, Owner::Anyone, id(n));
            cancelled.ok().flatten().into_iter().collect()
        }
        Call::Reap => machine.reap(*now),
    }
}
