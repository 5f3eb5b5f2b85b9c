//! [`Utf8`]: decoding of text from tokens.

/// Joins bytes to complete characters: a token may end in the middle of one.
#[derive(Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
}

impl Utf8 {
    /// Adds bytes and returns the characters that are complete now. Invalid bytes become U+FFFD.
    ///
    /// Bytes still held at the end of an answer are half a character, and are dropped.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = self.held.as_slice();
        let held = loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    break &[][..];
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(good));
                    let Some(wrong) = error.error_len() else {
                        break bad;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = bad.get(wrong..).unwrap_or_default();
                }
            }
        };
        self.held = held.to_vec();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_emoji_in_four_pieces_comes_out_once_and_whole() {
        let mut utf8 = Utf8::default();
        let bytes = "🦀".as_bytes();
        assert_eq!(utf8.push(&bytes[..1]), "");
        assert_eq!(utf8.push(&bytes[1..3]), "");
        assert_eq!(utf8.push(&bytes[3..]), "🦀");
    }

    #[test]
    fn a_byte_that_begins_nothing_is_replaced_and_holds_nothing_up() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(utf8.push(b"\xf0\x9f"), "");
        assert_eq!(utf8.push(b"x"), "\u{fffd}x");
    }

    proptest! {
        #[test]
        fn text_cut_anywhere_is_joined_unchanged(text in "\\PC{0,40}", cuts in prop::collection::vec(1usize..5, 0..60)) {
            let mut utf8 = Utf8::default();
            let mut rest = text.as_bytes();
            let mut joined = String::new();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                joined.push_str(&utf8.push(piece));
                rest = tail;
            }
            joined.push_str(&utf8.push(rest));
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn noise_never_holds_more_than_the_start_of_one_character(noise in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut utf8 = Utf8::default();
            for byte in noise {
                utf8.push(&[byte]);
                prop_assert!(utf8.held.len() <= 3);
            }
        }
    }
}
