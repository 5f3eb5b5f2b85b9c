use proptest::{collection::vec, prelude::*};
use proto::{JobState, Timestamp};

use super::{Call, Machine, T0, call, make};
use crate::{QueueCounts, machine::Record};

fn sorted(machine: &Machine) -> Vec<Record> {
    let mut records: Vec<_> = machine.records().cloned().collect();
    records.sort_by_key(|record| record.seq);
    records
}

fn counted(records: &[Record]) -> QueueCounts {
    let of = |state| {
        records
            .iter()
            .filter(move |record| record.job.state == state)
    };
    let mut by_priority = [0; 11];
    for record in of(JobState::Queued) {
        by_priority[usize::from(record.job.new.priority.level())] += 1;
    }
    QueueCounts {
        by_priority,
        queued: of(JobState::Queued).count(),
        leased: of(JobState::Leased).count(),
        queued_bytes: of(JobState::Queued).map(|record| record.bytes).sum(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn steps_that_are_undone_never_happened(
        stored in vec(call(), 0..60),
        lost in vec(call(), 0..30),
        drained in vec(call(), 0..30),
    ) {
        let (mut machine, mut now) = (Machine::default(), T0);
        for call in stored {
            let steps = make(&mut machine, &mut now, &call);
            machine.settle(&steps);
        }
        let (before, next_reap) = (sorted(&machine), machine.next_reap());
        let mut steps = Vec::new();
        // Time does not advance, because it cannot be undone.
        for call in lost.into_iter().filter(|call| !matches!(call, Call::Wait(_))) {
            steps.extend(make(&mut machine, &mut now, &call));
        }
        machine.undo(steps);
        prop_assert_eq!(&sorted(&machine), &before);
        prop_assert_eq!(machine.counts(), counted(&before));
        // A time that has passed needs no timer; "never" is later than any time.
        let or_never = |at: Option<Timestamp>| at.unwrap_or(Timestamp(i64::MAX));
        prop_assert!(or_never(machine.next_reap()) >= or_never(next_reap));

        // Afterwards it behaves like a machine built from the same records.
        let mut fresh = Machine::default();
        for record in before {
            fresh.put(record);
        }
        fresh.number_after(machine.last_seq);
        fresh.clock = machine.clock;
        let one_account = |call: &Call| !matches!(call, Call::Lease { account: None, .. });
        for call in drained.into_iter().filter(one_account) {
            let mut other_now = now;
            // The order in which due jobs are reaped depends on when their timers were set.
            let mut expected = make(&mut fresh, &mut other_now, &call);
            let mut got = make(&mut machine, &mut now, &call);
            expected.sort_by_key(|step| step.after.seq);
            got.sort_by_key(|step| step.after.seq);
            prop_assert_eq!(&got, &expected);
            machine.settle(&got);
            fresh.settle(&expected);
        }
    }
}
