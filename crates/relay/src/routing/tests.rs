//! Tests of the ranking of workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use proto::Account;
use queue::Serve;

use super::{Allotment, Routing, RoutingEntry, WorkerLoad};

fn of(accounts: &[&str]) -> Serve {
    Serve::Accounts(accounts.iter().map(|a| Account::new(*a).unwrap()).collect())
}

/// A worker for the account `a` with four slots.
fn with(models: &[(&str, bool)], busy: usize) -> WorkerLoad {
    WorkerLoad {
        serve: of(&["a"]),
        models: Arc::new(models.iter().map(|(m, l)| ((*m).to_owned(), *l)).collect()),
        slots: 4,
        busy,
    }
}

fn names(models: &[&str]) -> BTreeSet<String> {
    models.iter().map(|model| (*model).to_owned()).collect()
}

fn is_woken(worker: &RoutingEntry) -> bool {
    worker.woken().now_or_never().is_some()
}

#[test]
fn whoever_has_the_model_in_memory_comes_first_however_busy() {
    let routing = Routing::default();
    let (idle, warm) = (routing.join(), routing.join());
    idle.update(with(&[("m", false)], 0));
    let allotment = warm.update(with(&[("m", true)], 3));
    assert_eq!(
        (allotment.first, allotment.most),
        (names(&["m"]), usize::MAX)
    );
    let allotment = idle.update(with(&[("m", false)], 0));
    assert_eq!(
        (allotment.first, allotment.excluded),
        (names(&[]), names(&["m"]))
    );
}

#[test]
fn of_those_that_have_it_the_least_busy_comes_first_until_the_other_is() {
    let routing = Routing::default();
    let (busy, idle) = (routing.join(), routing.join());
    busy.update(with(&[("m", true)], 3));
    let allotment = idle.update(with(&[("m", true)], 0));
    assert_eq!((allotment.first, allotment.most), (names(&["m"]), 3));
}

#[test]
fn equals_take_turns() {
    let routing = Routing::default();
    let (one, two) = (routing.join(), routing.join());
    let load = || with(&[("m", true)], 0);
    assert_eq!(one.update(load()).most, usize::MAX, "it is alone");
    assert_eq!(two.update(load()).excluded, names(&["m"]));
    one.note_served();
    assert!(is_woken(&two));
    assert_eq!(one.update(load()).excluded, names(&["m"]));
    let allotment = two.update(load());
    assert_eq!((allotment.first, allotment.most), (names(&["m"]), 1));
}

#[test]
fn the_room_of_all_who_stand_for_the_same_is_known() {
    let routing = Routing::default();
    let [one, two, other, all] = std::array::from_fn(|_| routing.join());
    assert_eq!(one.update(with(&[("m", true)], 1)).room, 3, "it is alone");
    two.update(with(&[("m", true)], 2));
    other.update(with(&[("other", true)], 0));
    let for_all = |busy| WorkerLoad {
        serve: Serve::All,
        ..with(&[("m", false)], busy)
    };
    all.update(for_all(0));
    assert_eq!(one.update(with(&[("m", true)], 1)).room, 3 + 2 + 4);
    assert_eq!(one.update(with(&[("m", true)], 0)).room, 4 + 2 + 4);
    two.leave();
    all.update(for_all(3));
    assert_eq!(one.update(with(&[("m", true)], 0)).room, 4 + 1);
    drop(one);
    assert_eq!(
        all.update(for_all(4)).room,
        0,
        "others are in no line of its"
    );
}

#[test]
fn whoever_becomes_first_is_woken_and_nobody_else() {
    let routing = Routing::default();
    let [one, two, three] = std::array::from_fn(|_| routing.join());
    one.update(with(&[("m", true)], 0));
    two.update(with(&[("m", true)], 1));
    three.update(with(&[("m", true)], 2));
    one.leave();
    assert_eq!((is_woken(&two), is_woken(&three)), (true, false));
    drop(two);
    assert!(is_woken(&three));
    one.update(with(&[("other", true)], 0));
    assert!(!is_woken(&three) && !is_woken(&one));
}

#[test]
fn nobody_waits_for_one_that_serves_others() {
    let routing = Routing::default();
    let (mine, theirs, all) = (routing.join(), routing.join(), routing.join());
    theirs.update(WorkerLoad {
        serve: of(&["b"]),
        ..with(&[("m", true)], 0)
    });
    let load = || with(&[("m", false)], 3);
    assert_eq!(mine.update(load()).first, names(&["m"]));
    let for_all = WorkerLoad {
        serve: Serve::All,
        ..with(&[("m", true)], 0)
    };
    assert_eq!(all.update(for_all).first, names(&["m"]));
    assert_eq!(
        mine.update(load()).excluded,
        names(&["m"]),
        "all includes mine"
    );
    all.leave();
    assert!(is_woken(&mine));
}

#[derive(Debug, Clone)]
enum Move {
    Stand(usize, u8, usize),
    Leave(usize),
    Served(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let who = 0..5_usize;
    let one = prop_oneof![
        4 => (who.clone(), any::<u8>(), 0..4_usize).prop_map(|(w, m, b)| Move::Stand(w, m, b)),
        1 => who.clone().prop_map(Move::Leave),
        1 => who.prop_map(Move::Served),
    ];
    prop::collection::vec(one, 1..60)
}

/// Builds a worker from bits: one for each model it has, and one for each of these in memory.
fn load(who: usize, bits: u8, busy: usize) -> WorkerLoad {
    let models = (0..3).filter(|model| bits >> model & 1 == 1);
    let models = models.map(|model| (format!("m{model}"), bits >> (model + 3) & 1 == 1));
    WorkerLoad {
        serve: match who {
            4 => Serve::All,
            _ => of(&[["a", "b"][who % 2]]),
        },
        models: Arc::new(models.collect()),
        slots: 4,
        busy,
    }
}

proptest! {
    /// For each model and account some worker may ask whenever any has a free slot, and a worker
    /// that may ask now and could not before was woken or made the last move itself.
    #[test]
    fn some_worker_may_always_ask_and_knows_it(moves in moves()) {
        let routing = Routing::default();
        let workers: Vec<RoutingEntry> = (0..5).map(|_| routing.join()).collect();
        let mut standings: BTreeMap<usize, WorkerLoad> = BTreeMap::new();
        let mut may_ask: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for step in moves {
            let mover = match step {
                Move::Stand(who, models, busy) => {
                    let load = load(who, models, busy);
                    workers[who].update(load.clone());
                    standings.insert(who, load);
                    who
                }
                Move::Leave(who) => {
                    workers[who].leave();
                    standings.remove(&who);
                    may_ask.remove(&who);
                    who
                }
                Move::Served(who) => {
                    workers[who].note_served();
                    who
                }
            };
            let shares: BTreeMap<usize, Allotment> = standings
                .iter()
                .map(|(who, load)| (*who, workers[*who].update(load.clone())))
                .collect();
            for (who, load) in &standings {
                let woken = is_woken(&workers[*who]);
                let allotment = &shares[who];
                let new = allotment.first.difference(may_ask.get(who).unwrap_or(&BTreeSet::new())).count();
                prop_assert!(*who == mover || woken || new == 0, "{who} sleeps");
                prop_assert!(allotment.most >= 1);
                for model in load.models.keys() {
                    let note_served = standings.iter().any(|(other, theirs)| {
                        shares[other].first.contains(model)
                            && (theirs.serve == load.serve || theirs.serve == Serve::All)
                    });
                    prop_assert!(note_served, "nobody asks for {model} of {:?}", load.serve);
                }
            }
            may_ask = shares.into_iter().map(|(who, allotment)| (who, allotment.first)).collect();
        }
    }
}
