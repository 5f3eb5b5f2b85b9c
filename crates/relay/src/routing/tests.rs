//! Tests of the ranking of workers.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use proto::Account;
use queue::Serve;

use super::{InLine, Routing, Share, Standing};

fn of(accounts: &[&str]) -> Serve {
    Serve::Accounts(accounts.iter().map(|a| Account::new(*a).unwrap()).collect())
}

/// A worker for the account `a` with four slots.
fn with(models: &[(&str, bool)], busy: usize) -> Standing {
    Standing {
        serve: of(&["a"]),
        models: models.iter().map(|(m, l)| ((*m).to_owned(), *l)).collect(),
        slots: 4,
        busy,
    }
}

fn names(models: &[&str]) -> BTreeSet<String> {
    models.iter().map(|model| (*model).to_owned()).collect()
}

fn is_woken(worker: &InLine) -> bool {
    worker.woken().now_or_never().is_some()
}

#[test]
fn whoever_has_the_model_in_memory_comes_first_however_busy() {
    let routing = Routing::default();
    let (idle, warm) = (routing.enter(), routing.enter());
    idle.stand(with(&[("m", false)], 0));
    let share = warm.stand(with(&[("m", true)], 3));
    assert_eq!((share.first, share.most), (names(&["m"]), usize::MAX));
    let share = idle.stand(with(&[("m", false)], 0));
    assert_eq!((share.first, share.left), (names(&[]), names(&["m"])));
}

#[test]
fn of_those_that_have_it_the_least_busy_comes_first_until_the_other_is() {
    let routing = Routing::default();
    let (busy, idle) = (routing.enter(), routing.enter());
    busy.stand(with(&[("m", true)], 3));
    let share = idle.stand(with(&[("m", true)], 0));
    assert_eq!((share.first, share.most), (names(&["m"]), 3));
}

#[test]
fn equals_take_turns() {
    let routing = Routing::default();
    let (one, two) = (routing.enter(), routing.enter());
    let standing = || with(&[("m", true)], 0);
    assert_eq!(one.stand(standing()).most, usize::MAX, "it is alone");
    assert_eq!(two.stand(standing()).left, names(&["m"]));
    one.served();
    assert!(is_woken(&two));
    assert_eq!(one.stand(standing()).left, names(&["m"]));
    let share = two.stand(standing());
    assert_eq!((share.first, share.most), (names(&["m"]), 1));
}

#[test]
fn the_room_of_all_who_stand_for_the_same_is_known() {
    let routing = Routing::default();
    let [one, two, other, all] = std::array::from_fn(|_| routing.enter());
    assert_eq!(one.stand(with(&[("m", true)], 1)).room, 3, "it is alone");
    two.stand(with(&[("m", true)], 2));
    other.stand(with(&[("other", true)], 0));
    let for_all = |busy| Standing {
        serve: Serve::All,
        ..with(&[("m", false)], busy)
    };
    all.stand(for_all(0));
    assert_eq!(one.stand(with(&[("m", true)], 1)).room, 3 + 2 + 4);
    assert_eq!(one.stand(with(&[("m", true)], 0)).room, 4 + 2 + 4);
    two.leave();
    all.stand(for_all(3));
    assert_eq!(one.stand(with(&[("m", true)], 0)).room, 4 + 1);
    drop(one);
    assert_eq!(
        all.stand(for_all(4)).room,
        0,
        "others are in no line of its"
    );
}

#[test]
fn whoever_becomes_first_is_woken_and_nobody_else() {
    let routing = Routing::default();
    let [one, two, three] = std::array::from_fn(|_| routing.enter());
    one.stand(with(&[("m", true)], 0));
    two.stand(with(&[("m", true)], 1));
    three.stand(with(&[("m", true)], 2));
    one.leave();
    assert_eq!((is_woken(&two), is_woken(&three)), (true, false));
    drop(two);
    assert!(is_woken(&three));
    one.stand(with(&[("other", true)], 0));
    assert!(!is_woken(&three) && !is_woken(&one));
}

#[test]
fn nobody_waits_for_one_that_serves_others() {
    let routing = Routing::default();
    let (mine, theirs, all) = (routing.enter(), routing.enter(), routing.enter());
    theirs.stand(Standing {
        serve: of(&["b"]),
        ..with(&[("m", true)], 0)
    });
    let standing = || with(&[("m", false)], 3);
    assert_eq!(mine.stand(standing()).first, names(&["m"]));
    let for_all = Standing {
        serve: Serve::All,
        ..with(&[("m", true)], 0)
    };
    assert_eq!(all.stand(for_all).first, names(&["m"]));
    assert_eq!(
        mine.stand(standing()).left,
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
fn standing(who: usize, bits: u8, busy: usize) -> Standing {
    let models = (0..3).filter(|model| bits >> model & 1 == 1);
    Standing {
        serve: match who {
            4 => Serve::All,
            _ => of(&[["a", "b"][who % 2]]),
        },
        models: models
            .map(|model| (format!("m{model}"), bits >> (model + 3) & 1 == 1))
            .collect(),
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
        let workers: Vec<InLine> = (0..5).map(|_| routing.enter()).collect();
        let mut standings: BTreeMap<usize, Standing> = BTreeMap::new();
        let mut may_ask: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for step in moves {
            let mover = match step {
                Move::Stand(who, models, busy) => {
                    let standing = standing(who, models, busy);
                    workers[who].stand(standing.clone());
                    standings.insert(who, standing);
                    who
                }
                Move::Leave(who) => {
                    workers[who].leave();
                    standings.remove(&who);
                    may_ask.remove(&who);
                    who
                }
                Move::Served(who) => {
                    workers[who].served();
                    who
                }
            };
            let shares: BTreeMap<usize, Share> = standings
                .iter()
                .map(|(who, standing)| (*who, workers[*who].stand(standing.clone())))
                .collect();
            for (who, standing) in &standings {
                let woken = is_woken(&workers[*who]);
                let share = &shares[who];
                let new = share.first.difference(may_ask.get(who).unwrap_or(&BTreeSet::new())).count();
                prop_assert!(*who == mover || woken || new == 0, "{who} sleeps");
                prop_assert!(share.most >= 1);
                for model in standing.models.keys() {
                    let served = standings.iter().any(|(other, theirs)| {
                        shares[other].first.contains(model)
                            && (theirs.serve == standing.serve || theirs.serve == Serve::All)
                    });
                    prop_assert!(served, "nobody asks for {model} of {:?}", standing.serve);
                }
            }
            may_ask = shares.into_iter().map(|(who, share)| (who, share.first)).collect();
        }
    }
}
