//! Samples with long lists, which reveal parsers that take quadratic time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::{TARGETS, Target, tests::samples};

/// Length of a list for which quadratic work dominates.
const ELEMENTS: usize = 8_000;
/// Ratio of the lengths of the two lists that are compared.
const LONGER: usize = 4;
/// Maximum ratio of the times: twice the linear one, and half of the quadratic one.
const DEARER: u32 = 8;
/// Times below this are too short to compare.
const SHORT: Duration = Duration::from_millis(500);
/// A placeholder in a sample, replaced by the number of each copy.
const NUMBER: &str = "#";

/// One copy of the sample for each list with one element, in which that list has `elements`
/// elements. A sample that is not JSON is repeated as lines.
fn repeated(sample: &[u8], elements: usize) -> Vec<Vec<u8>> {
    let Ok(whole) = serde_json::from_slice::<Value>(sample) else {
        let lines: Vec<_> = sample.split_inclusive(|byte| *byte == b'\n').collect();
        let each = elements / lines.len().max(1);
        let many = lines.into_iter().map(|line| line.repeat(each));
        return vec![many.collect::<Vec<_>>().concat()];
    };
    let one = |n| {
        const PLACE: &str = "here";
        let mut whole = whole.clone();
        let list = nth(&mut whole, &mut { n })?;
        let element = std::mem::replace(list, vec![PLACE.into()])
            .pop()?
            .to_string();
        let many = copies(&element, elements).join(",");
        Some(
            whole
                .to_string()
                .replacen(&format!("\"{PLACE}\""), &many, 1)
                .into_bytes(),
        )
    };
    (0..).map_while(one).collect()
}

/// The nth list with one element, outer lists first.
fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Vec<Value>> {
    match value {
        Value::Array(list) => {
            if list.len() == 1 {
                if *n == 0 {
                    return Some(list);
                }
                *n -= 1;
            }
            list.iter_mut().find_map(|element| nth(element, n))
        }
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, n)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn copies(element: &str, elements: usize) -> Vec<String> {
    let numbers = 0..elements;
    let copies = numbers.map(|n| element.replace(NUMBER, &n.to_string()));
    copies.collect()
}

/// The CPU time of this thread.
fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Whether a parser needs far more than four times the time for four times the elements.
fn looks_at_every_two(target: &Target, sample: &[u8]) -> bool {
    let work = |bytes: &[u8]| {
        let before = worked();
        (target.read)(bytes);
        worked().saturating_sub(before)
    };
    let short = repeated(sample, ELEMENTS / LONGER);
    let mut lists = short.iter().zip(repeated(sample, ELEMENTS));
    lists.any(|(short, long)| {
        let long = work(&long);
        long > SHORT && long > DEARER * work(short)
    })
}

#[test]
fn no_reader_looks_at_every_two_elements_of_a_list() {
    for target in TARGETS {
        // Samples of other targets may not have lists that this one reads.
        for sample in samples(target.folders().take(1)) {
            let is_slow = looks_at_every_two(target, &sample);
            assert!(!is_slow, "{}: {}", target.name, sample.escape_ascii());
        }
    }
}

#[test]
fn a_reader_that_looks_at_every_two_elements_is_found() {
    fn pairs(bytes: &[u8]) {
        let list: Vec<String> = serde_json::from_slice(bytes).unwrap();
        let is_twice = |one: &String| list.iter().filter(|other| *other == one).count() > 1;
        assert!(!list.iter().any(is_twice), "each copy has its number");
    }
    let pairs = Target::new("pairs", pairs, &[]);
    assert!(looks_at_every_two(&pairs, br##"["a#"]"##));
    let once = Target::new(
        "once",
        |bytes| drop(serde_json::from_slice::<Value>(bytes)),
        &[],
    );
    assert!(!looks_at_every_two(&once, br##"["a#"]"##));
}
