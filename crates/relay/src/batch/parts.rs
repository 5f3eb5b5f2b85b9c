//! Writer of stored files: those of clients, and those of batches.

use bytes::{Bytes, BytesMut};
use queue::FileRecord;

use crate::{Relay, error::ApiError};

/// Size of a part of a stored file, in bytes. Parts keep each write to the store short.
const PART: usize = 256 * 1024;

/// Writer of a file in parts; the file exists once `finish` has returned.
pub(crate) struct Parts<'a> {
    relay: &'a Relay,
    id: &'a str,
    part: BytesMut,
    count: u32,
    bytes: u64,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(relay: &'a Relay, id: &'a str) -> Self {
        Self {
            relay,
            id,
            part: BytesMut::new(),
            count: 0,
            bytes: 0,
        }
    }

    pub(crate) async fn add(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        self.part.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        while self.part.len() >= PART {
            let part = self.part.split_to(PART);
            self.put(part.freeze()).await?;
        }
        Ok(())
    }

    /// Stores the rest and the record, whose length is replaced by the true one.
    pub(crate) async fn finish(mut self, record: FileRecord) -> Result<FileRecord, ApiError> {
        let rest = self.part.split();
        if !rest.is_empty() {
            self.put(rest.freeze()).await?;
        }
        let record = FileRecord {
            bytes: self.bytes,
            ..record
        };
        self.relay.store.put_file(record.clone()).await?;
        self.relay.batches.files.notify_one();
        Ok(record)
    }

    async fn put(&mut self, part: Bytes) -> Result<(), ApiError> {
        let n = self.count;
        self.count += 1;
        Ok(self.relay.store.put_part(self.id, n, part).await?)
    }
}
