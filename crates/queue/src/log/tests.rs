//! Tests of what a log reports to stores and lease holders, which readers cannot see.

use super::*;
use crate::conformance::sample::{after, id, lines};

fn log(stored: &[&'static str]) -> LiveLog {
    let held = LeaseHolder {
        held_by: Some(1),
        cancelled: false,
    };
    LiveLog::new(id(1), 1, lines(stored), held, LogBytes::default())
}

#[test]
fn what_is_not_on_disk_begins_after_what_is() {
    let log = log(&["a", "b"]);
    assert_eq!(log.unstored(), (1, 3, Vec::new()));
    assert_eq!(log.append(3, lines(&["c", "d"])).unwrap(), 2);
    assert_eq!(log.unstored(), (1, 3, lines(&["c", "d"])));
    log.store(1, 3);
    assert_eq!((log.stored(), log.unstored()), (3, (1, 4, lines(&["d"]))));
    log.store(1, 2);
    assert_eq!(log.stored(), 3, "word of it came late");
    log.begin(2);
    log.store(1, 4);
    assert_eq!((log.stored(), log.unstored()), (0, (2, 1, Vec::new())));
}

#[test]
fn lines_count_for_as_long_as_their_attempt_and_with_what_each_costs() {
    let all = LogBytes::default();
    let log = LiveLog::new(id(1), 1, Vec::new(), LeaseHolder::default(), all.clone());
    assert_eq!((log.bytes(), all.total()), (0, 0));
    let other = LiveLog::new(
        id(2),
        1,
        lines(&["abc"]),
        LeaseHolder::default(),
        all.clone(),
    );
    assert_eq!((other.bytes(), all.total()), (3 + LINE_COST, 3 + LINE_COST));
    log.append(1, lines(&["a", "bc"])).unwrap();
    assert_eq!(log.bytes(), 3 + 2 * LINE_COST);
    assert_eq!(all.total(), 6 + 3 * LINE_COST);
    assert_eq!(log.would_add(2, &lines(&["bc", "def"])), 3 + LINE_COST);
    assert_eq!(log.would_add(1, &lines(&["a"])), 0);
    drop(other);
    log.begin(2);
    assert_eq!((log.bytes(), all.total()), (0, 0));
}

#[test]
fn whoever_holds_a_lease_stops_when_it_is_withdrawn_or_another_attempt_holds_the_job() {
    let lease_holder = |held_by, cancelled| LeaseHolder { held_by, cancelled };
    assert!(!lease_holder(Some(2), false).stops(2));
    assert!(lease_holder(Some(2), true).stops(2));
    assert!(lease_holder(Some(2), false).stops(1));
    assert!(lease_holder(None, false).stops(1));
}

#[test]
fn the_next_line_is_taken_and_none_before_the_first_or_after_a_gap() {
    let log = log(&["a"]);
    for first in [0, 3] {
        let told = log.append(first, lines(&["x"]));
        assert!(matches!(told, Err(QueueError::Gap { stored: 1, got, .. }) if got == first));
    }
    let mut head = log.head();
    head.mark_unchanged();
    assert_eq!(log.append(1, lines(&["a"])).unwrap(), 0);
    assert!(!head.has_changed().unwrap(), "nobody is woken for nothing");
    assert_eq!(log.append(1, lines(&["a", "b"])).unwrap(), 1);
    assert!(head.has_changed().unwrap());
    assert_eq!(
        (log.lines(), log.last()),
        (lines(&["a", "b"]), Some("b".into()))
    );
}

#[test]
fn a_page_takes_as_many_lines_as_fit_and_ends_with_the_last() {
    let log = log(&["ab", "cd", "ef"]);
    log.finish(End::Completed, usize::MAX);
    let told = |from, bytes| {
        let page = log.page(after(1, from), bytes).unwrap();
        let numbers: Vec<u64> = page.chunks.iter().map(|chunk| chunk.n).collect();
        (numbers, page.end.is_some())
    };
    assert_eq!(told(0, 4), (vec![1, 2], false), "just as many as fit");
    assert_eq!(told(0, 3), (vec![1], false));
    assert_eq!(told(1, 1), (vec![2], false), "one at least");
    assert_eq!(told(1, 4), (vec![2, 3], true));
    assert_eq!(told(3, 4), (vec![], true));
    assert_eq!(told(9, 4), (vec![], true), "after what is there");
}

#[test]
fn a_reader_starts_anew_on_another_attempt_unless_it_has_seen_none() {
    assert_eq!(LogPage::starts(after(2, 7), 2), (false, 7));
    assert_eq!(LogPage::starts(after(1, 7), 2), (true, 0));
    assert_eq!(LogPage::starts(after(0, 0), 2), (false, 0));
}
