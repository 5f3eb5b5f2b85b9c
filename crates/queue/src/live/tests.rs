//! Tests of what the jobs in memory report to their store, which readers cannot see.

use proto::limits::LINE_COST;

use super::*;
use crate::{
    Job, MemoryQueue, NewJob, QueueLimits,
    conformance::sample::{LEASE, T0, after, anyone, at, found, id, job, leased, lines},
};

/// Returns a state in which one answer and all answers together are limited to these sizes.
fn bounded(log_max: usize, logs_max: usize) -> Live {
    Live::new(Machine::new(QueueLimits {
        log_max,
        logs_max,
        ..QueueLimits::default()
    }))
}

/// Queues the `n`-th job and leases it.
fn lent(live: &mut Live, n: u8) -> LeaseToken {
    lent_at(live, T0, n)
}

fn lent_at(live: &mut Live, now: Timestamp, n: u8) -> LeaseToken {
    let queued = live.machine.enqueue(now, &job(n)).unwrap();
    live.settle(&[queued]);
    let (steps, token) = live.machine.lease(now, &anyone(), LEASE);
    live.settle(&steps);
    token.unwrap()
}

fn ended(live: &mut Live, token: LeaseToken) {
    let have = live.held_log(token).unwrap().count();
    let ended = live.machine.complete(T0, token, have, have, End::Completed);
    live.settle(&[ended.unwrap().unwrap()]);
}

/// Returns an answer of one line that counts as `bytes` bytes.
fn answer(bytes: usize) -> Vec<Bytes> {
    vec![vec![b'x'; bytes - LINE_COST].into()]
}

#[test]
fn an_answer_of_more_than_is_kept_leaves_memory_when_its_job_ends() {
    for (bytes, is_kept) in [(100, true), (101, false)] {
        let mut live = bounded(1_000, 1_000).with_retained_log_max(100);
        let token = lent(&mut live, 1);
        live.append(T0, token, 1, answer(bytes)).unwrap();
        let log = live.held_log(token).unwrap();
        assert!(log.page(after(1, 0), 1_000).is_some(), "still written");
        ended(&mut live, token);
        assert_eq!(log.page(after(1, 0), 1_000).is_some(), is_kept, "{bytes}");
        assert_eq!(live.machine.limits().log_max, 1_000);
    }
}

#[tokio::test]
async fn a_job_whose_answer_is_too_long_fails_unless_it_has_ended_or_the_store_is_broken() {
    let store = MemoryQueue::default();
    let token = leased(&store, T0, 1).await;
    end_too_long(&store, T0, token).await.unwrap();
    let job = found(&store, id(1)).await;
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.error.unwrap().code, ErrorCode::TooLarge);
    let late = LeaseToken {
        attempt: token.attempt + 1,
        ..token
    };
    end_too_long(&store, T0, late).await.expect("it has ended");
    store.close().await.unwrap();
    let told = end_too_long(&store, T0, token).await.unwrap_err();
    assert!(told.is_of_store(), "{told}");
}

#[test]
fn an_answer_may_grow_to_its_bound_and_all_together_to_theirs() {
    let told = |first: usize, second: usize| {
        let mut live = bounded(100, 180);
        let (one, other) = (lent(&mut live, 1), lent(&mut live, 2));
        let stored = live.append(T0, one, 1, answer(first)).unwrap();
        (stored, live.append(T0, other, 1, answer(second)).unwrap())
    };
    let (one, other) = ([1, 2].map(id))
        .map(|job| LeaseToken { job, attempt: 1 })
        .into();
    assert_eq!(told(100, 80), (Appended::Stored(0), Appended::Stored(0)));
    assert_eq!(told(80, 101).1, Appended::TooLong(other), "this one");
    assert_eq!(told(100, 81).1, Appended::TooLong(one), "the longest");
    // Of equally long answers the youngest fails, and ended ones do not count.
    let mut live = bounded(100, 180);
    let tokens = [1, 2, 3].map(|n| lent(&mut live, n));
    live.append(T0, tokens[0], 1, answer(90)).unwrap();
    live.append(T0, tokens[1], 1, answer(90)).unwrap();
    let more = live.append(T0, tokens[2], 1, answer(70)).unwrap();
    assert_eq!(more, Appended::TooLong(tokens[1]));
    // Lines that were already accepted add nothing.
    let again = live.append(T0, tokens[0], 1, answer(90)).unwrap();
    assert_eq!(again, Appended::Stored(0));
}

#[test]
fn only_new_lines_wait_to_be_stored_until_they_are_or_their_job_ends() {
    let mut live = Live::default();
    let token = lent(&mut live, 1);
    live.append(T0, token, 1, lines(&["x"])).unwrap();
    assert!(live.has_unstored());
    let taken = live.take_unstored();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].1.unstored(), (1, 1, lines(&["x"])));
    taken[0].1.store(1, 1);
    live.append(T0, token, 1, lines(&["x"])).unwrap();
    assert!(!live.has_unstored(), "said twice");
    live.keep_unstored([id(1)]);
    assert!(live.has_unstored());
    ended(&mut live, token);
    assert!(!live.has_unstored());
}

#[test]
fn whoever_erases_is_called_at_the_first_end_and_when_he_has_come_again() {
    let mut live = Live::default();
    let tokens = [1, 2, 3].map(|n| lent_at(&mut live, at(n.into()), n));
    assert!(live.news() && !live.news());
    ended(&mut live, tokens[0]);
    assert!(live.news(), "the first");
    ended(&mut live, tokens[1]);
    assert!(
        !live.news(),
        "the caller of reap has a timer, and nothing is due sooner"
    );
    live.set_erasing(false);
    ended(&mut live, tokens[2]);
    assert!(live.news());
}

#[test]
fn a_reap_that_moved_up_is_news_and_one_that_did_not_is_none() {
    let mut live = Live::default();
    let token = lent(&mut live, 1);
    assert!(live.news());
    live.machine.renew(at(1), token, Some(LEASE)).unwrap();
    assert!(!live.news(), "later than it was");
    live.machine.renew(at(1), token, Some(LEASE)).unwrap();
    assert!(!live.news(), "as it was");
    let cut = NewJob {
        deadline: Some(at(2)),
        ..job(2)
    };
    let queued = live.machine.enqueue(at(1), &cut).unwrap();
    live.settle(&[queued]);
    assert!(live.news());
}

#[test]
fn places_may_be_others_whenever_a_job_began_or_ceased_to_wait() {
    let mut live = Live::default();
    let moves = live.moves();
    let moved = |moves: &watch::Receiver<u64>| *moves.borrow();
    let token = lent(&mut live, 1);
    assert_eq!(moved(&moves), 2, "queued, and lent");
    ended(&mut live, token);
    assert_eq!(moved(&moves), 2, "it did not wait");
    let queued = live.machine.enqueue(T0, &job(2)).unwrap();
    live.settle(&[queued]);
    let left = live.machine.cancel(T0, Owner::Anyone, id(2)).unwrap();
    live.settle(&[left.unwrap()]);
    assert_eq!(moved(&moves), 4);
}

#[test]
fn what_could_not_be_stored_never_was_and_takes_only_its_own_log_along() {
    let mut live = Live::default();
    let token = lent(&mut live, 1);
    let have = live.held_log(token).unwrap().count();
    let end = live.machine.complete(T0, token, have, have, End::Completed);
    let queued = live.machine.enqueue(T0, &job(2)).unwrap();
    assert!(live.log(Owner::Anyone, id(2)).is_some());
    live.undo(vec![end.unwrap().unwrap(), queued]);
    assert!(live.machine.held(token).is_ok());
    assert!(live.machine.get(id(2)).is_none());
    let logs: Vec<JobId> = live.logs.keys().copied().collect();
    assert_eq!(logs, [id(1)]);
}

/// Counts calls of `first_line`.
#[derive(Debug, Default)]
struct First(std::sync::atomic::AtomicUsize);

impl Observer for First {
    fn queued(&self, _: &Job) {}

    fn lent(&self, _: Timestamp, _: &Job) {}

    fn first_line(&self, _: Timestamp, _: &Job) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn ended(&self, _: &Job, _: Option<&Bytes>) {}

    fn committed(&self, _: Duration, _: usize) {}
}

#[test]
fn whoever_observes_hears_of_the_first_line_alone_and_is_given_to_the_store() {
    let mut live = Live::default();
    assert!(live.observer().is_none());
    let first = Arc::new(First::default());
    live.observed_by(first.clone());
    assert!(live.observer().is_some());
    let token = lent(&mut live, 1);
    live.append(T0, token, 1, Vec::new()).unwrap();
    let heard = || first.0.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(heard(), 0, "no line yet");
    for (n, line) in [(1, "x"), (2, "y")] {
        live.append(T0, token, n, lines(&[line])).unwrap();
        assert_eq!(heard(), 1);
    }
}

#[test]
fn who_takes_up_a_store_finds_the_lines_of_lent_jobs_and_of_those_that_wait_again() {
    let mut earlier = Machine::default();
    for n in [1, 2, 3] {
        earlier.enqueue(T0, &job(n)).unwrap();
    }
    for n in [1, 2] {
        let (_, token) = earlier.lease(T0, &anyone(), LEASE);
        if n == 1 {
            let why = JobError::new(ErrorCode::EngineFailed, "again");
            earlier
                .nack(T0, token.unwrap(), proto::worker::Retry::AfterMs(1), why)
                .unwrap();
        }
    }
    let records: Vec<Record> = earlier.records().cloned().collect();
    let machine = Machine::restore(QueueLimits::default(), T0, records);
    let kept = HashMap::from([(id(1), lines(&["x", "y"]))]);
    let mut live = Live::restore(machine, kept);
    let taken: BTreeSet<JobId> = live.logs.keys().copied().collect();
    assert_eq!(taken, [id(1), id(2)].into());
    assert_eq!(live.bytes.total(), 2 * (1 + LINE_COST));
    let log = live.log(Owner::Anyone, id(1)).unwrap();
    assert_eq!((log.count(), log.stored()), (2, 2));
}
