use super::*;

fn note(question: &str, seen: Seen) -> Note {
    let question = question.to_owned();
    Note { question, seen }
}

/// A reading of some words of a run, of `of`.
fn piece(question: &str, reading: u32, run: u64, n: std::ops::RangeInclusive<u64>) -> Vec<Note> {
    let word = |n| {
        let question = question.to_owned();
        Mark {
            question,
            run,
            n,
            of: 4,
        }
    };
    n.map(|n| note(question, Seen::Piece(reading, format!("{} ", word(n)))))
        .collect()
}

fn taken(question: &str) -> Vec<Note> {
    vec![
        note(question, Seen::Asked(Promise::Answer)),
        note(question, Seen::Acknowledged(format!("id-of-{question}"))),
    ]
}

fn over(question: &str, reading: u32, ending: Ending) -> Vec<Note> {
    vec![note(question, Seen::Ended(reading, ending))]
}

/// The numbers of lost, doubled and mixed questions.
fn found(parts: &[Vec<Note>]) -> (usize, usize, usize) {
    let verdict = judge(&parts.concat());
    assert_eq!(
        verdict.is_clean(),
        verdict.lost.len() + verdict.doubled.len() + verdict.mixed.len() == 0
    );
    (
        verdict.lost.len(),
        verdict.doubled.len(),
        verdict.mixed.len(),
    )
}

#[test]
fn a_good_log_is_clean_and_counted() {
    let mut notes = [
        taken("a"),
        piece("a", 0, 1, 1..=4),
        over("a", 0, Ending::Completed),
    ]
    .concat();
    // A second reading, with a void attempt.
    notes.extend(piece("a", 1, 1, 1..=4));
    notes.extend(over("a", 1, Ending::Completed));
    notes.extend([taken("b"), piece("b", 0, 2, 1..=2)].concat());
    notes.push(note("b", Seen::Restarted(0)));
    notes.extend([piece("b", 0, 3, 1..=4), over("b", 0, Ending::Completed)].concat());
    // Broken in the middle of a word, and never acknowledged.
    notes.push(note("c", Seen::Asked(Promise::Answer)));
    notes.push(note("c", Seen::Piece(0, "c/4/1/4 c/4/".into())));
    // Failed on purpose.
    notes.push(note("d", Seen::Asked(Promise::End)));
    notes.push(note("d", Seen::Acknowledged("id-of-d".into())));
    notes.extend(over("d", 0, Ending::Failed("engine_failed".into())));
    let verdict = judge(&notes);
    assert!(verdict.is_clean(), "{verdict}");
    let counts = (verdict.asked, verdict.acknowledged, verdict.completed);
    assert_eq!(counts, (4, 3, 2));
    assert_eq!((verdict.failed, verdict.unpromised), (1, 1));
}

#[test]
fn a_job_that_was_taken_and_never_ended_is_lost() {
    assert_eq!(found(&[taken("a"), piece("a", 0, 1, 1..=4)]), (1, 0, 0));
    let failed = over("a", 0, Ending::Failed("too_many_attempts".into()));
    assert_eq!(found(&[taken("a"), failed]), (1, 0, 0));
    let withdrawn = over("a", 0, Ending::Cancelled);
    assert_eq!(found(&[taken("a"), withdrawn]), (1, 0, 0));
}

#[test]
fn half_an_answer_that_is_called_complete_is_lost() {
    let done = || over("a", 0, Ending::Completed);
    assert_eq!(
        found(&[taken("a"), piece("a", 0, 1, 1..=3), done()]),
        (1, 0, 0)
    );
    assert_eq!(found(&[taken("a"), done()]), (1, 0, 0), "nothing at all");
    let gap = [piece("a", 0, 1, 1..=1), piece("a", 0, 1, 3..=4)].concat();
    assert_eq!(found(&[taken("a"), gap, done()]), (1, 0, 0), "a hole");
    let alien = vec![note("a", Seen::Piece(0, "sorry ".into()))];
    let whole = piece("a", 0, 1, 1..=4);
    assert_eq!(found(&[taken("a"), alien, whole, done()]), (1, 0, 0));
}

#[test]
fn a_second_end_a_changed_answer_and_a_second_job_are_doubled() {
    let good = || {
        [
            taken("a"),
            piece("a", 0, 1, 1..=4),
            over("a", 0, Ending::Completed),
        ]
        .concat()
    };
    assert_eq!(found(&[good(), over("a", 0, Ending::Completed)]), (0, 1, 0));
    let cancelled = over("a", 1, Ending::Cancelled);
    assert_eq!(found(&[good(), cancelled]), (0, 1, 0), "two ways to end");
    let other = [piece("a", 1, 9, 1..=4), over("a", 1, Ending::Completed)].concat();
    assert_eq!(found(&[good(), other]), (0, 1, 0), "another answer");
    let twice = vec![note("a", Seen::Acknowledged("another".into()))];
    assert_eq!(found(&[good(), twice]), (0, 1, 0), "two jobs");
    let again = [
        taken("a"),
        piece("a", 0, 1, 1..=2),
        piece("a", 0, 1, 2..=4),
        over("a", 0, Ending::Completed),
    ];
    assert_eq!(found(&again), (0, 1, 0), "a word twice");
}

#[test]
fn words_of_another_question_or_run_are_mixed() {
    let mut foreign = piece("b", 0, 1, 2..=2);
    foreign[0].question = "a".into();
    let parts = [taken("a"), piece("a", 0, 1, 1..=1), foreign];
    let (_, _, mixed) = found(&parts);
    assert_eq!(mixed, 1, "another question");
    let (_, _, mixed) = found(&[
        taken("a"),
        piece("a", 0, 1, 1..=2),
        piece("a", 0, 2, 3..=4),
        over("a", 0, Ending::Completed),
    ]);
    assert_eq!(mixed, 1, "another run");
    let same = vec![note("b", Seen::Acknowledged("id-of-a".into()))];
    let (_, _, mixed) = found(&[taken("a"), same]);
    assert_eq!(mixed, 1, "one name for two");
}

#[test]
fn one_failure_in_two_apis_words_is_one_and_two_failures_are_two() {
    let failed = |reading, code: &str| over("a", reading, Ending::Failed(code.into()));
    let taken = || {
        let asked = note("a", Seen::Asked(Promise::End));
        vec![
            asked,
            note("a", Seen::Acknowledged("1".into())),
            note("a", Seen::Restarted(0)),
        ]
    };
    let words = piece("a", 1, 1, 1..=2);
    let same = [taken(), failed(0, ""), words, failed(1, "engine_failed")];
    assert_eq!(found(&same), (0, 0, 0));
    let other = [
        taken(),
        failed(0, "engine_failed"),
        failed(1, "deadline_passed"),
    ];
    assert_eq!(found(&other), (0, 1, 0));
}

#[test]
fn a_void_beginning_is_judged_too() {
    let mut parts = vec![taken("a"), piece("a", 0, 1, 1..=1), piece("a", 0, 2, 2..=2)];
    parts.push(vec![note("a", Seen::Restarted(0))]);
    parts.push(piece("a", 0, 3, 1..=4));
    parts.push(over("a", 0, Ending::Completed));
    assert_eq!(found(&parts), (0, 0, 1));
}
