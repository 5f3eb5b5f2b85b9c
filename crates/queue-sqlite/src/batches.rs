//! Files and batches in the queue file, and the erasure of expired ones.

use std::ops::ControlFlow;

use async_trait::async_trait;
use bytes::Bytes;
use proto::{Account, Timestamp};
use queue::{
    BATCH_RETENTION, BatchRecord, Batches, FileRecord, LineResult, Owner, QueueError, ResultFile,
};
use rusqlite::{OptionalExtension, Params, Row};
use serde::de::DeserializeOwned;

use crate::{SqliteQueue, erasure::ERASED_WHEN_FULL, group::Group, row};

impl SqliteQueue {
    /// Writes something new; fails while the disk is full.
    async fn add<P: Params + Clone + Send + 'static>(
        &self,
        statement: &'static str,
        values: P,
    ) -> Result<(), QueueError> {
        self.ask(move |group| {
            group.admits()?;
            group
                .conn
                .prepare_cached(statement)?
                .execute(values.clone())?;
            Ok(())
        })
        .await
    }

    /// Reads an owner's records from a table, newest first: one of them, or all.
    async fn records<T: DeserializeOwned + Send + 'static>(
        &self,
        statement: &'static str,
        owner: Owner<'_>,
        id: Option<&str>,
    ) -> Result<Vec<T>, QueueError> {
        self.check_open()?;
        let account = match owner {
            Owner::Account(account) => Some(account.clone()),
            Owner::Anyone => None,
        };
        let id = id.map(str::to_owned);
        // A lookup of one record does not wait for lists.
        let reader = if id.is_some() {
            &self.reader
        } else {
            &self.lists
        };
        reader
            .read(move |conn| {
                let account = account.as_ref().map(Account::as_str);
                conn.prepare_cached(statement)?
                    .query_map((id, account), record)?
                    .collect()
            })
            .await
    }
}

const FILE: &str = "SELECT record FROM files WHERE id = ?1 AND (?2 IS NULL OR account = ?2)";
const FILES: &str = "SELECT record FROM files WHERE (?1 IS NULL) AND (?2 IS NULL OR account = ?2)
    ORDER BY seq DESC";
const BATCH: &str = "SELECT record FROM batches WHERE id = ?1 AND (?2 IS NULL OR account = ?2)";
const BATCHES: &str = "SELECT record FROM batches WHERE (?1 IS NULL)
    AND (?2 IS NULL OR account = ?2) ORDER BY seq DESC";

/// Whether a result that goes to this file is an error, as the table has it.
const fn is_error(file: ResultFile) -> bool {
    match file {
        ResultFile::Output => false,
        ResultFile::Errors => true,
    }
}

const fn file_of(is_error: bool) -> ResultFile {
    if is_error {
        ResultFile::Errors
    } else {
        ResultFile::Output
    }
}

#[async_trait]
impl Batches for SqliteQueue {
    async fn put_part(&self, id: &str, n: u32, part: Bytes) -> Result<(), QueueError> {
        let values = (id.to_owned(), n, part.to_vec());
        let insert = "INSERT OR REPLACE INTO file_parts (id, n, part) VALUES (?1, ?2, ?3)";
        self.add(insert, values).await
    }

    async fn put_file(&self, file: FileRecord) -> Result<(), QueueError> {
        let text = json(&file)?;
        let insert = "INSERT INTO files (id, account, expires_at, record) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (id) DO UPDATE SET expires_at = ?3, record = ?4";
        let account = file.account.to_string();
        self.add(insert, (file.id, account, file.expires_at.0, text))
            .await
    }

    async fn file(&self, owner: Owner<'_>, id: &str) -> Result<Option<FileRecord>, QueueError> {
        Ok(self.records(FILE, owner, Some(id)).await?.pop())
    }

    async fn files(&self, owner: Owner<'_>) -> Result<Vec<FileRecord>, QueueError> {
        self.records(FILES, owner, None).await
    }

    async fn part(&self, id: &str, n: u32) -> Result<Option<Bytes>, QueueError> {
        self.check_open()?;
        let id = id.to_owned();
        self.reader
            .read(move |conn| {
                // One that is being erased may be half overwritten.
                let select = "SELECT part FROM file_parts WHERE id = ?1 AND n = ?2
                    AND NOT EXISTS (SELECT 1 FROM erasures WHERE kind = 0 AND id = ?1)";
                let part = conn
                    .prepare_cached(select)?
                    .query_row((id, n), |found| found.get::<_, Vec<u8>>("part"));
                Ok(part.optional()?.map(Bytes::from))
            })
            .await
    }

    async fn forget_file(&self, id: &str) -> Result<(), QueueError> {
        let id = id.to_owned();
        self.ask(move |group| Ok(group.forget_file(&id)?)).await
    }

    async fn erase_file(&self, id: &str) -> Result<(), QueueError> {
        self.forget_file(id).await?;
        loop {
            let _turn = self.erasing.lock().await;
            let id = id.to_owned();
            let erased = self.ask(move |group| Ok(group.erase_pieces(Some(&id))?));
            if !erased.await? {
                return Ok(());
            }
        }
    }

    async fn put_batch(&self, batch: BatchRecord) -> Result<(), QueueError> {
        let text = json(&batch)?;
        let account = batch.account.to_string();
        let is_over = batch.state.is_final();
        self.ask(move |group| {
            let insert = "INSERT INTO batches (id, account, input, is_over, record)
                VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT (id) DO UPDATE SET is_over = ?4, record = ?5";
            let values = (&batch.id, &account, &batch.input, is_over, &text);
            group.conn.prepare_cached(insert)?.execute(values)?;
            if is_over {
                group.forget_results(&batch.id)?;
            }
            Ok(())
        })
        .await
    }

    async fn batch(&self, owner: Owner<'_>, id: &str) -> Result<Option<BatchRecord>, QueueError> {
        Ok(self.records(BATCH, owner, Some(id)).await?.pop())
    }

    async fn batches(&self, owner: Owner<'_>) -> Result<Vec<BatchRecord>, QueueError> {
        self.records(BATCHES, owner, None).await
    }

    async fn put_result(&self, batch: &str, result: LineResult) -> Result<(), QueueError> {
        let LineResult { n, file, line } = result;
        let batch = batch.to_owned();
        self.ask(move |group| {
            // On a full disk a long line would use up the reserve.
            if line.len() as u64 > ERASED_WHEN_FULL {
                group.admits()?;
            }
            let insert = "INSERT OR IGNORE INTO batch_lines (batch, n, is_error, line)
                VALUES (?1, ?2, ?3, ?4)";
            let values = (&batch, n, is_error(file), &line[..]);
            group.conn.prepare_cached(insert)?.execute(values)?;
            Ok(())
        })
        .await
    }

    async fn results(&self, batch: &str) -> Result<Vec<(u32, ResultFile)>, QueueError> {
        self.check_open()?;
        let batch = batch.to_owned();
        self.reader
            .read(move |conn| {
                let select = "SELECT n, is_error FROM batch_lines WHERE batch = ?1 ORDER BY n";
                conn.prepare_cached(select)?
                    .query_map([batch], |found| Ok((found.get(0)?, file_of(found.get(1)?))))?
                    .collect()
            })
            .await
    }

    async fn next_result(
        &self,
        batch: &str,
        after: u32,
        file: ResultFile,
    ) -> Result<Option<LineResult>, QueueError> {
        self.check_open()?;
        let batch = batch.to_owned();
        self.reader
            .read(move |conn| {
                let select = "SELECT n, line FROM batch_lines
                    WHERE batch = ?1 AND n > ?2 AND is_error = ?3 ORDER BY n LIMIT 1";
                let found = conn.prepare_cached(select)?.query_row(
                    (batch, after, is_error(file)),
                    |found| {
                        Ok(LineResult {
                            n: found.get("n")?,
                            file,
                            line: found.get::<_, Vec<u8>>("line")?.into(),
                        })
                    },
                );
                found.optional()
            })
            .await
    }

    async fn expire_files(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError> {
        loop {
            let _turn = self.erasing.lock().await;
            let did = self.ask(move |group| Ok(expire_some(group, now)?));
            if let ControlFlow::Break(next) = did.await? {
                return Ok(next);
            }
        }
    }
}

/// SQL condition: the final batches whose input file is gone.
macro_rules! left {
    () => {
        "FROM batches WHERE is_over
         AND NOT EXISTS (SELECT 1 FROM files WHERE files.id = batches.input)"
    };
}

/// Does as much as fits into one group; breaks with the time of the next expiry once nothing is
/// left to do.
fn expire_some(
    group: &mut Group<'_>,
    now: Timestamp,
) -> rusqlite::Result<ControlFlow<Option<Timestamp>>> {
    if forget_expired(group, now)? || group.erase_pieces(None)? {
        return Ok(ControlFlow::Continue(()));
    }
    expire(group, now).map(ControlFlow::Break)
}

/// Forgets one expired file and the final batches that read it. Returns whether there was one.
fn forget_expired(group: &mut Group<'_>, now: Timestamp) -> rusqlite::Result<bool> {
    let conn = group.conn;
    let expired = conn
        .prepare_cached("SELECT id FROM files WHERE expires_at <= ?1 LIMIT 1")?
        .query_row([now.0], |found| found.get::<_, String>(0))
        .optional()?;
    if let Some(id) = &expired {
        group.forget_file(id)?;
        conn.prepare_cached("DELETE FROM batches WHERE input = ?1 AND is_over")?
            .execute([id])?;
    }
    Ok(expired.is_some())
}

/// Deletes the expired batches; returns when the next file or batch expires.
fn expire(group: &mut Group<'_>, now: Timestamp) -> rusqlite::Result<Option<Timestamp>> {
    let conn = group.conn;
    let kept = i64::try_from(BATCH_RETENTION.as_millis()).unwrap_or(i64::MAX);
    let gone = conn
        .prepare_cached(concat!(
            "DELETE ",
            left!(),
            " AND json_extract(record, '$.created_at') + ?1 <= ?2"
        ))?
        .execute((kept, now.0))?;
    if gone > 0 {
        group.mark_erasing();
    }
    let next = conn
        .prepare_cached(concat!(
            "SELECT min(at) FROM (SELECT min(expires_at) AS at FROM files UNION ALL
             SELECT min(json_extract(record, '$.created_at') + ?1) ",
            left!(),
            ")"
        ))?
        .query_row([kept], |found| found.get::<_, Option<i64>>(0))?;
    Ok(next.map(Timestamp))
}

fn json(value: &impl serde::Serialize) -> Result<String, QueueError> {
    serde_json::to_string(value).map_err(|error| QueueError::Store(error.into()))
}

fn record<T: DeserializeOwned>(found: &Row<'_>) -> rusqlite::Result<T> {
    let text: String = found.get("record")?;
    serde_json::from_str(&text).map_err(|error| row::wrong("record", error))
}
