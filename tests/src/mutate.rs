//! Damages messages as a broken or hostile program would, deterministically.

use crate::chance::Chance;

/// Byte sequences that parsers often mishandle.
const WORDS: [&[u8]; 16] = [
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[[[[[[[[",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xff\xfe",
    b"\xf0\x9f\x94\xa5",
    b"\r\n",
    b",,",
    b"\"type\":\"x\",",
    b"true",
];

/// Passes `rounds` damaged copies of the corpus to `parse`, which must not panic.
pub fn mutate(corpus: &[Vec<u8>], seed: u64, rounds: usize, mut parse: impl FnMut(&[u8])) {
    let mut chance = Chance::new(seed);
    for whole in corpus {
        parse(whole);
    }
    for _ in 0..rounds {
        let mut bytes = corpus[chance.index(corpus.len())].clone();
        for _ in 0..=chance.index(4) {
            damage(&mut bytes, corpus, &mut chance);
        }
        parse(&bytes);
    }
}

fn damage(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.index(bytes.len() + 1);
    let end = at + chance.index(bytes.len() - at + 1);
    match chance.index(7) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        3 => {
            let word = WORDS[chance.index(WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
        4 => {
            let word = WORDS[chance.index(WORDS.len())];
            bytes.splice(at..end, word.iter().copied());
        }
        5 => {
            let other = &corpus[chance.index(corpus.len())];
            let from = chance.index(other.len() + 1);
            bytes.splice(at..end, other[from..].iter().copied());
        }
        _ => {
            let bit = 1 << chance.index(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_damages_the_same_and_every_kind_of_damage_is_done() {
        let corpus = [b"{\"type\":\"ping\"}".to_vec(), b"[1,2,3]".to_vec()];
        let run = |seed| {
            let mut all = Vec::new();
            mutate(&corpus, seed, 2_000, |bytes| all.push(bytes.to_vec()));
            all
        };
        let all = run(1);
        assert_eq!(all, run(1));
        assert_ne!(all, run(2));
        assert!(all.iter().any(Vec::is_empty));
        assert!(all.iter().any(|bytes| bytes.len() > 40));
        assert!(all.iter().any(|bytes| std::str::from_utf8(bytes).is_err()));
        let whole = all
            .iter()
            .filter(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).is_ok());
        assert!((10..1_500).contains(&whole.count()));
    }
}
