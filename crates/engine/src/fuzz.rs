//! Entry points of `tests/fuzz` for the parsers of an engine's output.

use bytes::Bytes;

use crate::{LineSplitter, Spec, answer, parse_host, request::wants_lines};
pub use crate::{
    ollama::fuzz as ollama,
    openai::fuzz::{answer as openai_answer, models as openai_models, request as openai_request},
};

/// Splits the bytes into lines twice, cut at different places; both results must be equal.
pub fn lines(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let pieces = bytes.chunks(usize::from(*size).max(1));
    assert_eq!(split(pieces), split(std::iter::once(bytes)));
    drop(answer::message(bytes));
    let _ = wants_lines(bytes);
}

/// Returns the lines before one that is too long.
fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Bytes> {
    let mut splitter = LineSplitter::new(64);
    let mut lines = Vec::new();
    for piece in pieces {
        splitter.push(piece);
        loop {
            match splitter.next_line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(_) => return lines,
            }
        }
    }
    lines.extend(splitter.finish().unwrap_or_default());
    lines
}

/// Parses the address of an engine, as its owner writes it.
pub fn address(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(parse_host(text));
        drop(Spec::parse(text));
    }
}
