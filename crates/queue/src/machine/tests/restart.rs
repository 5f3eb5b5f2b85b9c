use std::time::Duration;

use proto::{
    ErrorCode, JobState,
    limits::{RESTART_GRACE, RETRY_MAX},
    worker::Retry,
};

use super::{Machine, T0};
use crate::{
    QueueLimits,
    conformance::sample::{LEASE, anyone, job, why},
};

const HOURS: Duration = Duration::from_secs(7_200);

#[test]
fn a_clock_that_was_ahead_keeps_no_job_from_the_next_run() {
    let mut machine = Machine::default();
    let ahead = T0 + HOURS;
    for n in 1..=2 {
        machine.enqueue(ahead, &job(n)).unwrap();
    }
    let (_, given_back) = machine.lease(ahead, &anyone(), LEASE);
    let later = Retry::AfterMs(u64::MAX);
    machine
        .nack(
            ahead,
            given_back.unwrap(),
            later,
            why(ErrorCode::EngineUnavailable),
        )
        .unwrap();
    machine.lease(ahead, &anyone(), LEASE);

    let records: Vec<_> = machine.records().cloned().collect();
    let mut machine = Machine::restore(QueueLimits::default(), T0, records);
    machine.reap(T0 + LEASE + RESTART_GRACE);
    let is_queued = |machine: &Machine| {
        machine
            .records()
            .all(|record| record.job.state == JobState::Queued)
    };
    assert!(is_queued(&machine), "the lease is over");
    for _ in 0..2 {
        let (_, lent) = machine.lease(T0 + RETRY_MAX + RESTART_GRACE, &anyone(), LEASE);
        assert!(lent.is_some());
    }
}

#[test]
fn what_is_taken_up_goes_on_from_the_time_at_which_it_was() {
    let later = T0 + HOURS;
    let mut machine = Machine::restore(QueueLimits::default(), later, []);
    machine.enqueue(T0, &job(1)).unwrap();
    let accepted = machine.records().map(|record| record.job.created_at);
    assert_eq!((machine.now(), accepted.collect()), (later, vec![later]));
}
