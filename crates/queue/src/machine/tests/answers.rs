use proptest::{collection::vec, prelude::*};
use proto::{End, ErrorCode, LeaseToken};

use super::{Call, Machine, T0, call, make, query};
use crate::{
    Owner, QueueError,
    conformance::sample::{LEASE, anyone, id, job, why},
};

/// A store may query the machine before it has written a decided end.
#[test]
fn an_end_that_is_not_written_yet_is_accepted_once_more_and_no_other_is() {
    let failed = End::Failed {
        error: why(ErrorCode::EngineFailed),
    };
    let mut machine = Machine::default();
    machine.enqueue(T0, &job(1)).unwrap();
    let token = machine.lease(T0, &anyone(), LEASE).1.unwrap();
    assert_eq!(machine.held(token).unwrap().end(), None);
    let first = machine.complete(T0, token, 2, 2, failed.clone()).unwrap();
    assert!(first.is_some());
    assert_eq!(machine.get(token.job).unwrap().end(), Some(failed.clone()));

    let again = machine.complete(T0, token, 2, 2, failed.clone()).unwrap();
    assert_eq!(again, None);
    let late = LeaseToken {
        attempt: token.attempt + 1,
        ..token
    };
    for (token, end) in [(token, End::Completed), (late, failed)] {
        let refused = machine.complete(T0, token, 2, 2, end);
        assert!(
            matches!(refused, Err(QueueError::StaleLease(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_job_is_withdrawn_once() {
    let mut machine = Machine::default();
    machine.enqueue(T0, &job(1)).unwrap();
    machine.lease(T0, &anyone(), LEASE);
    let mut withdraw = || machine.cancel(T0, Owner::Anyone, id(1)).unwrap();
    assert!(withdraw().is_some());
    assert_eq!(withdraw(), None, "nothing more is to be written");
}

/// The worker was told of the renewal, and a failed write of something else does not revoke it.
#[test]
fn a_lease_stays_renewed_when_a_step_of_its_job_is_undone() {
    let mut machine = Machine::default();
    machine.enqueue(T0, &job(1)).unwrap();
    let token = machine.lease(T0, &anyone(), LEASE).1.unwrap();
    let withdrawn = machine.cancel(T0, Owner::Anyone, id(1)).unwrap();
    let later = T0 + LEASE / 2;
    machine.renew(later, token, None).unwrap();
    machine.undo(withdrawn.into_iter().collect());
    let record = machine.held(token).unwrap();
    assert!(!record.cancelled);
    let until = record.loan.as_ref().map(|loan| loan.until);
    assert_eq!(until, Some(later + LEASE));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    /// `may_lend` is false only if a lease would do nothing, and true without a lease only if a
    /// timer is due.
    #[test]
    fn whether_a_lease_would_do_anything_is_known_before(calls in vec(call(), 1..120)) {
        let (mut machine, mut now) = (Machine::default(), T0);
        for call in calls {
            if let Call::Lease { account, models } = call {
                let query = query(account, models);
                let may = machine.may_lend(now, &query);
                let is_due = machine.next_reap().is_some_and(|at| at <= now);
                let does = !machine.lease(now, &query, LEASE).0.is_empty();
                prop_assert!(may || !does, "it was told no");
                prop_assert_eq!(may, does || is_due);
            } else {
                let steps = make(&mut machine, &mut now, &call);
                machine.settle(&steps);
            }
        }
    }
}
