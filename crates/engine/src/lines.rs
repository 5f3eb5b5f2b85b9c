//! [`LineSplitter`]: splitting a byte stream into lines.

use bytes::{Bytes, BytesMut};

/// Splits a stream of bytes into lines, independently of how the network split it.
#[derive(Debug)]
pub struct LineSplitter {
    buffer: BytesMut,
    scanned: usize,
    max: usize,
}

/// A line exceeds the maximum length, which is given in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {0} bytes")]
pub struct LineTooLong(pub usize);

impl LineSplitter {
    /// A splitter for lines of at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            max,
        }
    }

    /// Adds received bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Returns the next complete line, without its line feed (or carriage return and line feed).
    /// Skips empty lines. `None` until more is pushed.
    ///
    /// # Errors
    /// [`LineTooLong`].
    pub fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        loop {
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                // One byte more, for a carriage return that may belong to the line's end.
                if self.buffer.len() > self.max + 1 {
                    return Err(LineTooLong(self.max));
                }
                return Ok(None);
            };
            let mut line = self.buffer.split_to(self.scanned + at + 1);
            self.scanned = 0;
            line.truncate(line.len() - 1);
            if let Some(line) = self.checked(line)? {
                return Ok(Some(line));
            }
        }
    }

    /// Returns what is left at the end of the stream: a last line without a line feed.
    ///
    /// # Errors
    /// [`LineTooLong`].
    pub fn finish(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        self.scanned = 0;
        let rest = self.buffer.split();
        self.checked(rest)
    }

    fn checked(&self, mut line: BytesMut) -> Result<Option<Bytes>, LineTooLong> {
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if line.len() > self.max {
            return Err(LineTooLong(self.max));
        }
        let is_blank = line.iter().all(u8::is_ascii_whitespace);
        Ok((!is_blank).then(|| line.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]], max: usize) -> Result<Vec<Bytes>, LineTooLong> {
        let mut splitter = LineSplitter::new(max);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk);
            while let Some(line) = splitter.next_line()? {
                lines.push(line);
            }
        }
        lines.extend(splitter.finish()?);
        Ok(lines)
    }

    proptest! {
        #[test]
        fn lines_are_the_same_wherever_the_stream_was_cut(
            text in prop::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b' '), any::<u8>(),
            ], 0..300),
            cuts in prop::collection::vec(0..300_usize, 0..20),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let mut chunks = Vec::new();
            for cut in cuts {
                chunks.push(&text[from..cut]);
                from = cut;
            }
            chunks.push(&text[from..]);
            let whole = split(&[&text], 1000).unwrap();
            prop_assert_eq!(&split(&chunks, 1000).unwrap(), &whole);
            let expected: Vec<Bytes> = text
                .split(|byte| *byte == b'\n')
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
                .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
                .map(Bytes::copy_from_slice)
                .collect();
            prop_assert_eq!(whole, expected);
        }

        #[test]
        fn a_line_is_refused_exactly_when_it_is_too_long(len in 1..40_usize, ended: bool) {
            let mut text = vec![b'x'; len];
            if ended { text.push(b'\n'); }
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(split(&bytes, 20).is_err(), len > 20);
        }
    }
}
