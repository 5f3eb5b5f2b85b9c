//! Bounds on the size of the tree that a JSON text becomes, checked before parsing: an element of a
//! list may take two bytes on the wire and forty times as many in memory.

use crate::limits;

/// Counts the commas and opening brackets of a JSON text outside its strings; every value but the
/// outermost follows one. For invalid JSON, counts at least those before the error.
#[must_use]
pub fn structure(json: &[u8]) -> usize {
    let mut rest = json.iter();
    let mut count = 0;
    while let Some(byte) = rest.next() {
        match byte {
            b',' | b'[' | b'{' => count += 1,
            b'"' => skip_string(&mut rest),
            _ => {}
        }
    }
    count
}

fn skip_string(rest: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = rest.find(|byte| matches!(byte, b'"' | b'\\')) {
        if *byte == b'"' {
            return;
        }
        rest.next();
    }
}

/// Whether a JSON text has more structure than `max`. A text of at most `max` bytes is not scanned.
fn is_intricate(json: &[u8], max: usize) -> bool {
    json.len() > max && structure(json) > max
}

/// Refuses a JSON text that would become too large a tree.
///
/// # Errors
/// A message for the sender.
pub fn refuse_intricate(json: &[u8]) -> Result<(), String> {
    const MAX: usize = limits::STRUCTURE_MAX;
    if !is_intricate(json, MAX) {
        return Ok(());
    }
    let (thousands, rest) = (MAX / 1000, MAX % 1000);
    Err(format!(
        "the body has more than {thousands},{rest:03} fields and elements of lists; send fewer"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_the_number_that_counts() {
        let list = |elements: usize| format!("[0{}]", ",0".repeat(elements - 1));
        assert_eq!(refuse_intricate(list(200_000).as_bytes()), Ok(()));
        let told = refuse_intricate(list(200_001).as_bytes()).unwrap_err();
        assert!(told.contains("more than 200,000 fields"), "{told}");
    }

    #[test]
    fn what_makes_a_tree_large_is_counted_and_texts_are_not() {
        for (json, want) in [
            ("", 0),
            ("7", 0),
            ("[]", 1),
            ("[0,0,0]", 3),
            (r#"{"a":[{},{}],"b":1}"#, 6),
            (r#"{"a,[{":"\",[{\\","b":""}"#, 2),
            (r#"["never ends, \"#, 1),
        ] {
            assert_eq!(structure(json.as_bytes()), want, "{json}");
        }
        assert!(!is_intricate(b"[[[[", 4));
        assert!(is_intricate(b"[[[[[", 4));
        assert!(!is_intricate(br#"["[[[["]"#, 4));
    }
}
