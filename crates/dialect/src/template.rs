//! Templates for events that are written once per token: everything but the text is serialized
//! once.

use serde::Serialize;

use crate::answer::write;

/// Placeholder for the text. Searched from the end, because no foreign text follows it.
const TEXT: &str = "\0";
/// Placeholder for the number of the event.
pub(crate) const NUMBER: u64 = u64::MAX;

/// The bytes around the text, and around the number that may follow it.
#[derive(Debug)]
pub(crate) struct Template {
    before: Vec<u8>,
    between: Vec<u8>,
    after: Vec<u8>,
}

impl Template {
    /// Stores what `event` writes for a text, without the text, and without [`NUMBER`] if that
    /// follows it.
    pub(crate) fn new(event: impl FnOnce(&mut Vec<u8>, &str)) -> Self {
        let mut before = Vec::new();
        event(&mut before, TEXT);
        let mut between = split(&mut before, &TEXT);
        let after = split(&mut between, &NUMBER);
        Self {
            before,
            between,
            after,
        }
    }

    /// Writes the event with this text.
    pub(crate) fn fill(&self, out: &mut Vec<u8>, text: &str) {
        out.reserve_exact(self.len() + text.len() + 2);
        self.begin(out, text);
        out.extend_from_slice(&self.after);
    }

    /// Writes the event with this text and this number.
    pub(crate) fn fill_numbered(&self, out: &mut Vec<u8>, text: &str, number: u64) {
        out.reserve_exact(self.len() + text.len() + 10);
        self.begin(out, text);
        write(out, &number);
        out.extend_from_slice(&self.after);
    }

    fn begin(&self, out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(&self.before);
        write(out, text);
        out.extend_from_slice(&self.between);
    }

    const fn len(&self) -> usize {
        self.before.len() + self.between.len() + self.after.len()
    }
}

/// Cuts off the last occurrence of the serialized `value` and everything after it; returns what
/// follows it.
fn split<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Vec<u8> {
    let mut written = Vec::new();
    write(&mut written, value);
    let found = bytes
        .windows(written.len())
        .rposition(|window| window == written);
    let Some(at) = found else { return Vec::new() };
    let after = bytes.split_off(at + written.len());
    bytes.truncate(at);
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::data;

    #[derive(Serialize)]
    struct Event<'a> {
        model: &'a str,
        delta: &'a str,
        number: u64,
        end: bool,
    }

    #[test]
    fn a_filled_template_is_what_would_have_been_written() {
        let event = |out: &mut Vec<u8>, delta: &str, number| {
            let model = "\0";
            data(
                out,
                &Event {
                    model,
                    delta,
                    number,
                    end: true,
                },
            );
        };
        let numbered = Template::new(|out, text| event(out, text, NUMBER));
        let plain = Template::new(|out, text| event(out, text, 7));
        for text in ["", "Hi", "\"\\\n\u{1}ż\0"] {
            let (mut want, mut filled) = (Vec::new(), Vec::new());
            event(&mut want, text, 7);
            numbered.fill_numbered(&mut filled, text, 7);
            plain.fill(&mut filled, text);
            assert_eq!(filled, want.repeat(2), "{text}");
        }
    }
}
