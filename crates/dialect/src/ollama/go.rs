//! Go's messages for invalid JSON: clients show them, and some search them.

use serde_json::{Error, error::Category};

/// Returns the message of Go's `encoding/json` for a text that `serde_json` could not parse.
pub(super) fn words(text: &str, error: &Error) -> String {
    if error.classify() == Category::Eof {
        return "unexpected EOF".to_owned();
    }
    let bytes = text.as_bytes();
    let said = error.to_string();
    let is = |what: &str| said.starts_with(what);
    // Go counts the offending byte as read, except where it breaks a string.
    let at = offset(bytes, error) + usize::from(is("control character"));
    let Some(wrong) = bytes.get(at) else {
        return "unexpected EOF".to_owned();
    };
    let place = if is("key must be a string") || (is("trailing comma") && *wrong == b'}') {
        "looking for beginning of object key string".to_owned()
    } else if is("expected value") || is("trailing comma") {
        "looking for beginning of value".to_owned()
    } else if is("expected `:`") {
        "after object key".to_owned()
    } else if is("expected `,` or `}`") {
        "after object key:value pair".to_owned()
    } else if is("expected `,` or `]`") {
        "after array element".to_owned()
    } else if is("expected ident") {
        in_literal(bytes, at)
    } else if is("invalid number") {
        "in numeric literal".to_owned()
    } else if is("control character") {
        "in string literal".to_owned()
    } else if is("invalid escape") {
        "in string escape code".to_owned()
    } else {
        return said;
    };
    format!("invalid character {} {place}", quoted(*wrong))
}

/// Returns Go's name for the type of a JSON value.
pub(super) fn kind(value: &str) -> &'static str {
    match value.trim_start().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        Some(b'n') => "null",
        Some(_) | None => "number",
    }
}

/// Returns the offset of the last byte that `serde_json` counts as read.
fn offset(bytes: &[u8], error: &Error) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + error.column()).saturating_sub(1)
}

fn in_literal(bytes: &[u8], at: usize) -> String {
    let read = bytes.get(..at).unwrap_or_default();
    let literals = ["true", "false", "null"];
    let expecting = literals.iter().find_map(|literal| {
        let longest = (1..literal.len()).rev();
        let n = longest.into_iter().find(|n| {
            let begun = literal.as_bytes().get(..*n);
            begun.is_some_and(|begun| read.ends_with(begun))
        })?;
        let next = literal.chars().nth(n)?;
        Some(format!("in literal {literal} (expecting '{next}')"))
    });
    expecting.unwrap_or_else(|| "looking for beginning of value".to_owned())
}

fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x20..0x7f => format!("'{}'", char::from(byte)),
        other => format!("'\\x{other:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn a_broken_text_is_told_in_gos_words() {
        for (text, want) in [
            (r#"{"model":"x","#, "unexpected EOF"),
            (r#"{"model":"#, "unexpected EOF"),
            ("\"abc", "unexpected EOF"),
            ("tru", "unexpected EOF"),
            (
                "hello",
                "invalid character 'h' looking for beginning of value",
            ),
            (" ?", "invalid character '?' looking for beginning of value"),
            (
                "{a:1}",
                "invalid character 'a' looking for beginning of object key string",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("{\n\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 \"b\"}",
                "invalid character '\"' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "{\"a\":trux}",
                "invalid character 'x' in literal true (expecting 'e')",
            ),
            ("{\"a\":-}", "invalid character '}' in numeric literal"),
            (
                "{\"a\":\"\n\"}",
                "invalid character '\\n' in string literal",
            ),
            (
                r#"{"a":"\x"}"#,
                "invalid character 'x' in string escape code",
            ),
            (
                "{\"a\":'x'}",
                r"invalid character '\'' looking for beginning of value",
            ),
        ] {
            let error = serde_json::from_str::<IgnoredAny>(text).unwrap_err();
            assert_eq!(words(text, &error), want, "{text}: {error}");
        }
    }
}
