use std::{collections::HashMap, time::Duration};

use proptest::{collection::vec, prelude::*};
use proto::{Account, Dialect, JobId, JobState, Timestamp, limits::ATTEMPTS_MAX};

use super::{Call, Machine, Step, T0, call, make, query};
use crate::{
    JobFilter, LeaseQuery, Models, NewJob, Owner, Serve,
    conformance::sample::{LEASE, account, id, job},
    machine::Record,
};

/// The rule as the design states it, on a plain list: slow and simple.
#[derive(Default)]
struct Plain {
    /// Number of each waiting account's turn, set at its arrival and when it was served.
    turns: HashMap<Account, u64>,
    clock: u64,
}

impl Plain {
    fn best(&self, records: &[Record], now: Timestamp, query: &LeaseQuery) -> Option<JobId> {
        let fits = |record: &&Record| {
            let new = &record.job.new;
            let serves = match &query.serve {
                Serve::All => true,
                Serve::Accounts(accounts) => accounts.contains(&new.account),
            };
            let runs = match &query.models {
                Models::Any => true,
                Models::AnyBut(others) => !others.contains(&new.id),
                Models::AnyForQueries => new.dialect == proto::Dialect::Queries,
                Models::Only(models) => models.iter().any(|model| model.is_same(&new.model)),
                Models::OnlyUrgent(_) => false,
            };
            available(record, now) && serves && runs
        };
        let rank = |record: &&Record| {
            let waited = now.since(record.job.created_at).as_secs() / 60;
            let level = u64::from(record.job.new.priority.level())
                .saturating_sub(waited)
                .max(1);
            (
                level,
                self.turns.get(&record.job.new.account).copied(),
                record.seq,
            )
        };
        records
            .iter()
            .filter(fits)
            .min_by_key(rank)
            .map(|record| record.job.new.id)
    }

    /// Accounts join the end of the line with their first job and leave it with their last.
    fn follow(&mut self, records: &[Record], now: Timestamp, served: Option<&Account>) {
        let waiting = |account: &Account| {
            records
                .iter()
                .any(|record| available(record, now) && record.job.new.account == *account)
        };
        self.turns.retain(|account, _| waiting(account));
        let mut come: Vec<_> = records
            .iter()
            .filter(|record| available(record, now))
            .collect();
        come.sort_by_key(|record| record.job.new.id);
        for record in come {
            self.clock += 1;
            self.turns
                .entry(record.job.new.account.clone())
                .or_insert(self.clock);
        }
        if let Some(turn) = served.and_then(|account| self.turns.get_mut(account)) {
            self.clock += 1;
            *turn = self.clock;
        }
    }
}

fn available(record: &Record, now: Timestamp) -> bool {
    record.job.state == JobState::Queued && record.not_before.is_none_or(|at| at <= now)
}

fn records(machine: &Machine) -> Vec<Record> {
    machine.records().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_index_finds_what_a_look_at_every_job_finds(calls in vec(call(), 1..120)) {
        let (mut machine, mut plain, mut now) = (Machine::default(), Plain::default(), T0);
        for call in calls {
            // No two events share a time, because their order would be undefined.
            now = now + Duration::from_millis(1);
            // Due timers are handled first, one by one: their decisions are not compared here.
            while let Some(at) = machine.next_reap().filter(|at| *at <= now) {
                let due = machine.reap(at);
                machine.settle(&due);
                plain.follow(&records(&machine), at, None);
            }
            plain.follow(&records(&machine), now, None);
            if let Call::Lease { account, models } = call {
                let query = query(account, models);
                let expected = plain.best(&records(&machine), now, &query);
                let (steps, token) = machine.lease(now, &query, Duration::from_secs(60));
                prop_assert_eq!(token.map(|token| token.job), expected);
                let served = steps.last().map(|step| step.after.job.new.account.clone());
                plain.follow(&records(&machine), now, served.as_ref());
            } else {
                let steps = make(&mut machine, &mut now, &call);
                machine.settle(&steps);
            }
        }
    }

    #[test]
    fn no_job_is_tried_too_often_held_twice_or_changed_after_its_end(calls in vec(call(), 1..200)) {
        let (mut machine, mut now) = (Machine::default(), T0);
        for call in calls {
            let steps = make(&mut machine, &mut now, &call);
            for Step { before, after } in &steps {
                prop_assert!(after.tries <= ATTEMPTS_MAX);
                prop_assert_eq!(after.loan.is_some(), after.job.state == JobState::Leased);
                prop_assert_eq!(after.job.finished_at.is_some(), after.job.state.is_final());
                let Some(before) = before else { continue };
                prop_assert!(!before.job.state.is_final());
                let lent = before.job.state == JobState::Queued && after.job.state == JobState::Leased;
                prop_assert_eq!(after.job.attempt, before.job.attempt + u32::from(lent));
            }
            machine.settle(&steps);
        }
    }
}

proptest! {
    /// If no job arrives or leaves, the reported position is the number of jobs leased before.
    #[test]
    fn so_many_jobs_are_lent_before_one_as_its_place_says(
        calls in proptest::collection::vec(super::call(), 1..80),
        of in proptest::option::of(0..4_u8),
        models in proptest::option::of(1..8_u8),
    ) {
        let (mut machine, mut now) = (Machine::default(), T0);
        for call in &calls {
            let steps = make(&mut machine, &mut now, call);
            machine.settle(&steps);
        }
        // Due timers were handled, so the clock alone changes nothing below.
        let steps = machine.reap(now);
        machine.settle(&steps);
        let query = query(of, models);
        let ids: Vec<_> = machine.records().map(|record| record.job.new.id).collect();
        let mut told: Vec<_> = ids
            .into_iter()
            .filter_map(|id| {
                let before = machine.before(now, id, &query.serve, &query.models)?;
                Some((before, id))
            })
            .collect();
        told.sort_unstable();
        let mut lent = Vec::new();
        while let (steps, Some(token)) = machine.lease(now, &query, Duration::from_secs(60)) {
            machine.settle(&steps);
            lent.push((lent.len(), token.job));
        }
        prop_assert_eq!(told, lent);
    }
}

#[test]
fn of_leases_that_a_late_look_finds_over_the_first_to_end_is_first_in_line() {
    let (mut machine, mut lent) = (Machine::default(), Vec::new());
    for (n, of) in [(1, "a"), (2, "b")] {
        let new = NewJob {
            account: account(of),
            ..job(n)
        };
        machine.enqueue(T0, &new).unwrap();
        lent.extend(machine.lease(T0, &query(None, None), LEASE).1);
    }
    // The second ends first, although its timer is the later one of the two.
    let renewed = machine.renew(T0, lent[0], Some(3 * LEASE));
    renewed
        .and_then(|()| machine.renew(T0, lent[1], Some(2 * LEASE)))
        .unwrap();
    machine.reap(T0 + 9 * LEASE);
    let (_, next) = machine.lease(T0 + 9 * LEASE, &query(None, None), LEASE);
    assert_eq!(next.map(|lease| lease.job), Some(id(2)));
}

#[test]
fn queries_are_known_by_their_account_until_they_are_settled() {
    let mut machine = Machine::default();
    let new = |n: u8, of: &str, dialect| NewJob {
        account: account(of),
        dialect,
        ..job(n)
    };
    for (n, of, dialect) in [
        (1, "a", Dialect::Queries),
        (2, "ab", Dialect::Queries),
        (3, "a", Dialect::OpenAi),
        (4, "a", Dialect::Queries),
    ] {
        machine.enqueue(T0, &new(n, of, dialect)).unwrap();
    }
    let known = |machine: &Machine, owner: Owner<'_>| -> Vec<JobId> {
        let queries = machine.queries(owner);
        queries.map(|record| record.job.new.id).collect()
    };
    let (a, none) = (account("a"), account("b"));
    assert_eq!(known(&machine, Owner::Account(&a)), [id(1), id(4)]);
    assert_eq!(known(&machine, Owner::Account(&none)), []);
    assert_eq!(known(&machine, Owner::Anyone), [id(1), id(4), id(2)]);
    let (steps, _) = machine.lease(T0, &query(None, None), LEASE);
    machine.settle(&steps);
    let ended = machine.cancel(T0, Owner::Anyone, id(4)).unwrap();
    assert_eq!(known(&machine, Owner::Account(&a)), [id(1), id(4)]);
    machine.settle(&ended.into_iter().collect::<Vec<_>>());
    assert_eq!(known(&machine, Owner::Account(&a)), [id(1)]);
}

#[test]
fn the_leased_jobs_are_found_behind_any_number_of_waiting_ones() {
    let mut machine = Machine::default();
    machine.enqueue(T0, &job(1)).unwrap();
    machine.lease(T0, &query(None, None), LEASE);
    for n in 1..=10_001_u128 {
        let id = JobId(n.to_be_bytes());
        // No account may have so many.
        let account = account(&format!("of-{}", n % 100));
        let new = NewJob {
            id,
            account,
            ..job(2)
        };
        machine.enqueue(T0, &new).unwrap();
    }
    let found = |machine: &Machine, state| {
        let state = Some(state);
        let page = machine.search(&JobFilter {
            state,
            limit: 1,
            ..JobFilter::default()
        });
        let ids: Vec<_> = page.jobs.iter().map(|job| job.new.id).collect();
        (ids, page.next.is_some())
    };
    let newest = JobId(10_001_u128.to_be_bytes());
    assert_eq!(found(&machine, JobState::Leased), (vec![id(1)], false));
    assert_eq!(found(&machine, JobState::Queued), (vec![newest], true));
    machine.reap(T0 + LEASE);
    assert_eq!(found(&machine, JobState::Leased), (vec![], false));
}
