//! Keeps each event of the log on one line, whatever the values in it contain.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use crate::{Format, short_fields::short_json};

/// Writes each event with [`escaped`]. `tracing-subscriber` writes an event with one call.
pub(crate) struct OneLine<W> {
    pub(crate) to: W,
    pub(crate) format: Format,
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match self.format {
            Format::Human => self.to.write_all(&escaped(event))?,
            Format::Json => self.to.write_all(&escaped(&short_json(event)))?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Replaces line breaks within the event, and characters that change the direction of the text
/// around them, by `\uXXXX`, which JSON reads as the same characters.
fn escaped(event: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(event) else {
        return Cow::Borrowed(event);
    };
    let line = text.strip_suffix('\n').unwrap_or(text);
    match escape(line, misleads) {
        Cow::Borrowed(_) => Cow::Borrowed(event),
        Cow::Owned(mut shown) => {
            shown.push('\n');
            Cow::Owned(shown.into_bytes())
        }
    }
}

/// Replaces these characters by `\uXXXX`.
pub(crate) fn escape(text: &str, which: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&which) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 32);
    for sign in text.chars() {
        if which(sign) {
            // Writing to a `String` cannot fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(sign));
        } else {
            shown.push(sign);
        }
    }
    Cow::Owned(shown)
}

fn misleads(sign: char) -> bool {
    let is_wanted = matches!(sign, '\t' | '\u{1b}');
    let turns = matches!(
        sign,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    (sign.is_control() && !is_wanted) || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &str) -> String {
        let mut log = Vec::new();
        let mut one_line = OneLine {
            to: &mut log,
            format: Format::Json,
        };
        one_line.write_all(event.as_bytes()).unwrap();
        String::from_utf8(log).unwrap()
    }

    #[test]
    fn an_event_stays_one_line_that_reads_from_left_to_right() {
        assert_eq!(written("{\"a\":\"żółw\"}\n"), "{\"a\":\"żółw\"}\n");
        assert_eq!(
            written("name=a\r\nERROR all is lost\n"),
            "name=a\\u000d\\u000aERROR all is lost\n"
        );
        let event = "{\"a\":\"b\u{202e}c\u{2028}\u{2066}\"}\n".to_owned();
        let line = written(&event);
        assert!(line.is_ascii() && line.lines().count() == 1, "{line}");
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert_eq!(read(&line), read(&event));
    }
}
