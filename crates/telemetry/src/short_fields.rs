//! Cuts long values of the log's fields, and keeps their control characters from the terminal: an
//! engine or a relay may send any error. What a requester is answered stays whole.

use std::{borrow::Cow, fmt};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{MakeVisitor, VisitFmt, VisitOutput},
    fmt::format::{DefaultFields, DefaultVisitor, Writer},
};

use crate::one_line::escape;

/// Maximum length of a field's value, in bytes. Messages are the program's own and are not cut.
const FIELD_MAX: usize = 256;
const MESSAGE: &str = "message";

/// Cuts a long value on a character boundary, and says how long it was.
fn short(value: &str) -> Cow<'_, str> {
    if value.len() <= FIELD_MAX {
        return Cow::Borrowed(value);
    }
    let kept = &value[..value.floor_char_boundary(FIELD_MAX)];
    Cow::Owned(format!("{kept}… (cut; {} bytes)", value.len()))
}

/// Cuts the long values of an event in JSON.
pub(crate) fn short_json(event: &[u8]) -> Cow<'_, [u8]> {
    if event.len() <= FIELD_MAX {
        return Cow::Borrowed(event);
    }
    let Ok(mut json) = serde_json::from_slice::<Value>(event) else {
        return Cow::Borrowed(event);
    };
    if !shorten(&mut json) {
        return Cow::Borrowed(event);
    }
    Cow::Owned(format!("{json}\n").into_bytes())
}

/// Cuts the long texts in a value, and returns whether there were any.
fn shorten(json: &mut Value) -> bool {
    match json {
        Value::String(text) => match short(text) {
            Cow::Borrowed(_) => false,
            Cow::Owned(cut) => {
                *text = cut;
                true
            }
        },
        Value::Array(values) => values
            .iter_mut()
            .fold(false, |cut, json| shorten(json) | cut),
        Value::Object(fields) => {
            let fields = fields.iter_mut().filter(|(name, _)| *name != MESSAGE);
            fields.fold(false, |cut, (_, json)| shorten(json) | cut)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Writes fields for humans like [`DefaultFields`], with long values cut and control characters
/// escaped.
#[derive(Debug, Default)]
pub(crate) struct ShortFields(DefaultFields);

impl<'a> MakeVisitor<Writer<'a>> for ShortFields {
    type Visitor = ShortVisitor<DefaultVisitor<'a>>;

    fn make_visitor(&self, to: Writer<'a>) -> Self::Visitor {
        ShortVisitor(self.0.make_visitor(to))
    }
}

pub(crate) struct ShortVisitor<V>(V);

impl<V: Visit> Visit for ShortVisitor<V> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.0.record_str(field, value);
        } else {
            self.0.record_str(field, &short(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            return self.0.record_debug(field, value);
        }
        let text = format!("{value:?}");
        let text = short(&text);
        // Else an engine's error could give the terminal commands.
        let text = escape(&text, |sign| sign.is_control() && sign != '\t');
        self.0.record_debug(field, &format_args!("{text}"));
    }
}

impl<V: VisitOutput<fmt::Result>> VisitOutput<fmt::Result> for ShortVisitor<V> {
    fn finish(self) -> fmt::Result {
        self.0.finish()
    }
}

impl<V: VisitFmt> VisitFmt for ShortVisitor<V> {
    fn writer(&mut self) -> &mut dyn fmt::Write {
        self.0.writer()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Arc,
    };

    use parking_lot::Mutex;

    use super::*;
    use crate::{Format, logger};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, event: &[u8]) -> io::Result<usize> {
            self.0.lock().write(event)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what `act` logs.
    fn log_of(format: Format, act: impl FnOnce()) -> String {
        let log = Log::default();
        let to = log.clone();
        let logger = logger(format, "info", move || to.clone()).unwrap();
        tracing::dispatcher::with_default(&logger, act);
        let bytes = log.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// Returns the line that is logged for an engine's error.
    fn logged(format: Format, error: &str) -> String {
        log_of(format, || {
            let job = tracing::info_span!("job", why = error);
            let _job = job.enter();
            tracing::info!(n = 7, %error, "the engine failed: {}", "x".repeat(300));
        })
    }

    #[test]
    fn what_others_wrote_gives_the_terminal_no_command() {
        for format in [Format::Human, Format::Json] {
            let line = log_of(format, || {
                let said = "\u{1b}[2J\u{7}\u{9b}2J\u{7f}\u{e}a\tb";
                tracing::info!(%said, ?said, said, "the engine said {said}");
            });
            for command in ["\u{1b}[2J", "\u{7}", "\u{9b}", "\u{7f}", "\u{e}"] {
                assert!(!line.contains(command), "{line:?}");
            }
            assert!(line.contains(r"\u001b[2J"), "{line:?}");
        }
    }

    #[test]
    fn a_long_error_of_an_engine_is_cut_in_the_log_and_marked() {
        // The limit lies within a character of two bytes.
        let long = format!("e{}", "ż".repeat(500));
        let cut = format!("e{}… (cut; 1001 bytes)", "ż".repeat(127));
        // The JSON has the fields of the span twice.
        for (format, times) in [(Format::Json, 3), (Format::Human, 2)] {
            let line = logged(format, &long);
            assert_eq!(line.matches(&cut).count(), times, "{line}");
            assert!(!line.contains(&"ż".repeat(128)), "{line}");
            assert!(line.contains(&"x".repeat(300)), "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
            let whole = "e".repeat(FIELD_MAX);
            let line = logged(format, &whole);
            assert_eq!(line.matches(&whole).count(), times, "{line}");
            assert!(!line.contains("cut;"), "{line}");
        }
        let line = logged(Format::Json, &long);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["fields"]["n"], 7);
        assert_eq!(read["spans"][0]["why"], cut.as_str());
    }
}
