//! Files and batches of the store in memory.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use proto::Timestamp;

use super::MemoryQueue;
use crate::{
    BATCH_RETENTION, BatchRecord, Batches, FileRecord, LineResult, Owner, QueueError, ResultFile,
};

/// Files and batches, in the order in which they were stored.
#[derive(Default)]
pub(super) struct Documents {
    files: Vec<FileRecord>,
    parts: BTreeMap<(String, u32), Bytes>,
    batches: Vec<BatchRecord>,
    results: BTreeMap<(String, u32), LineResult>,
}

impl Documents {
    fn erase_file(&mut self, id: &str) {
        self.files.retain(|file| file.id != id);
        self.parts.retain(|(file, _), _| file != id);
    }

    fn erase_results(&mut self) {
        let finals = self.batches.iter().filter(|batch| batch.state.is_final());
        let finals: HashSet<_> = finals.map(|batch| &*batch.id).collect();
        self.results
            .retain(|(batch, _), _| !finals.contains(&**batch));
    }
}

#[async_trait]
impl Batches for MemoryQueue {
    async fn put_part(&self, id: &str, n: u32, part: Bytes) -> Result<(), QueueError> {
        let mut inner = self.open()?;
        inner.documents.parts.insert((id.to_owned(), n), part);
        Ok(())
    }

    async fn put_file(&self, file: FileRecord) -> Result<(), QueueError> {
        let mut inner = self.open()?;
        let files = &mut inner.documents.files;
        match files.iter_mut().find(|had| had.id == file.id) {
            Some(had) => *had = file,
            None => files.push(file),
        }
        Ok(())
    }

    async fn file(&self, owner: Owner<'_>, id: &str) -> Result<Option<FileRecord>, QueueError> {
        let inner = self.open()?;
        let found = inner.documents.files.iter().find(|file| file.id == id);
        Ok(found.filter(|file| owner.owns(&file.account)).cloned())
    }

    async fn files(&self, owner: Owner<'_>) -> Result<Vec<FileRecord>, QueueError> {
        let inner = self.open()?;
        let files = inner.documents.files.iter().rev();
        let owned = files.filter(|file| owner.owns(&file.account));
        Ok(owned.cloned().collect())
    }

    async fn part(&self, id: &str, n: u32) -> Result<Option<Bytes>, QueueError> {
        let inner = self.open()?;
        Ok(inner.documents.parts.get(&(id.to_owned(), n)).cloned())
    }

    async fn forget_file(&self, id: &str) -> Result<(), QueueError> {
        self.open()?.documents.erase_file(id);
        Ok(())
    }

    async fn erase_file(&self, id: &str) -> Result<(), QueueError> {
        self.forget_file(id).await
    }

    async fn put_batch(&self, batch: BatchRecord) -> Result<(), QueueError> {
        let mut inner = self.open()?;
        let batches = &mut inner.documents.batches;
        match batches.iter_mut().find(|had| had.id == batch.id) {
            Some(had) => *had = batch,
            None => batches.push(batch),
        }
        Ok(())
    }

    async fn batch(&self, owner: Owner<'_>, id: &str) -> Result<Option<BatchRecord>, QueueError> {
        let inner = self.open()?;
        let found = inner.documents.batches.iter().find(|batch| batch.id == id);
        Ok(found.filter(|batch| owner.owns(&batch.account)).cloned())
    }

    async fn batches(&self, owner: Owner<'_>) -> Result<Vec<BatchRecord>, QueueError> {
        let inner = self.open()?;
        let batches = inner.documents.batches.iter().rev();
        let owned = batches.filter(|batch| owner.owns(&batch.account));
        Ok(owned.cloned().collect())
    }

    async fn put_result(&self, batch: &str, result: LineResult) -> Result<(), QueueError> {
        let mut inner = self.open()?;
        let place = (batch.to_owned(), result.n);
        inner.documents.results.entry(place).or_insert(result);
        Ok(())
    }

    async fn results(&self, batch: &str) -> Result<Vec<(u32, ResultFile)>, QueueError> {
        let inner = self.open()?;
        let results = inner.documents.results.iter();
        let of_batch = results.filter(|((of, _), _)| of == batch);
        Ok(of_batch.map(|((_, n), result)| (*n, result.file)).collect())
    }

    async fn next_result(
        &self,
        batch: &str,
        after: u32,
        file: ResultFile,
    ) -> Result<Option<LineResult>, QueueError> {
        let inner = self.open()?;
        let from = (batch.to_owned(), after.saturating_add(1));
        let later = inner.documents.results.range(from..);
        let mut of_batch = later.take_while(|((of, _), _)| of == batch);
        let found = of_batch.find(|(_, result)| result.file == file);
        Ok(found.map(|(_, result)| result.clone()))
    }

    async fn expire_files(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        let mut inner = self.open()?;
        let documents = &mut inner.documents;
        documents.erase_results();
        let late = documents.files.iter().filter(|file| file.expires_at <= now);
        let late: Vec<_> = late.map(|file| file.id.clone()).collect();
        for id in late {
            documents.erase_file(&id);
            let is_over = |batch: &BatchRecord| batch.input == id && batch.state.is_final();
            documents.batches.retain(|batch| !is_over(batch));
        }
        let Documents { files, batches, .. } = documents;
        let is_left = |batch: &BatchRecord| {
            batch.state.is_final() && files.iter().all(|file| file.id != batch.input)
        };
        let end = |batch: &BatchRecord| batch.created_at + BATCH_RETENTION;
        batches.retain(|batch| !is_left(batch) || end(batch) > now);
        let left = batches.iter().filter(|batch| is_left(batch)).map(end);
        Ok(left.chain(files.iter().map(|file| file.expires_at)).min())
    }
}
