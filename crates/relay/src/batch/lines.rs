//! Reads a stored file line by line.

use bytes::{Bytes, BytesMut};
use proto::ErrorCode;
use queue::Owner;

use crate::{Relay, error::ApiError};

/// Maximum length of a line, in bytes.
const LINE_MAX: usize = 8 * 1024 * 1024;

/// Reader of a file's lines; loads one part at a time.
pub(super) struct Lines<'a> {
    relay: &'a Relay,
    file: &'a str,
    read: BytesMut,
    /// Number of bytes already searched for a line feed.
    seen: usize,
    part: u32,
    bytes: u64,
    line: u32,
}

impl<'a> Lines<'a> {
    pub(super) fn new(relay: &'a Relay, file: &'a str) -> Self {
        Self {
            relay,
            file,
            read: BytesMut::new(),
            seen: 0,
            part: 0,
            bytes: 0,
            line: 0,
        }
    }

    /// Returns the number of the next line, from 1.
    pub(super) const fn at(&self) -> u32 {
        self.line.saturating_add(1)
    }

    /// Returns the next non-empty line and its number, from 1.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`] if the line is too long, [`ErrorCode::Erased`] if part of the file
    /// is missing, and errors of the store.
    pub(super) async fn next(&mut self) -> Result<Option<(u32, Bytes)>, ApiError> {
        loop {
            let end = self.read[self.seen..].iter().position(|c| *c == b'\n');
            let end = end.map(|end| self.seen + end);
            if end.unwrap_or(self.read.len()) > LINE_MAX {
                let message = format!("line {} is longer than {LINE_MAX} bytes", self.at());
                return Err(ApiError::new(ErrorCode::TooLarge, message));
            }
            if let Some(end) = end {
                let mut line = self.read.split_to(end + 1);
                line.truncate(line.len() - 1);
                if let Some(found) = self.found(line) {
                    return Ok(Some(found));
                }
                continue;
            }
            self.seen = self.read.len();
            let Some(part) = self.relay.store.part(self.file, self.part).await? else {
                self.check_whole().await?;
                let rest = self.read.split();
                return Ok(self.found(rest));
            };
            self.part += 1;
            self.bytes += part.len() as u64;
            self.read.extend_from_slice(&part);
        }
    }

    /// Checks that all bytes of the upload were read.
    async fn check_whole(&self) -> Result<(), ApiError> {
        let file = self.relay.store.file(Owner::Anyone, self.file).await?;
        if file.is_some_and(|file| file.bytes == self.bytes) {
            return Ok(());
        }
        let message = "part of the input file was erased; upload it again";
        Err(ApiError::new(ErrorCode::Erased, message))
    }

    fn found(&mut self, line: BytesMut) -> Option<(u32, Bytes)> {
        self.seen = 0;
        self.line = self.line.saturating_add(1);
        let is_empty = line.trim_ascii().is_empty();
        (!is_empty).then(|| (self.line, line.freeze()))
    }
}
