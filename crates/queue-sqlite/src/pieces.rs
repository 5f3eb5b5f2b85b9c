//! Erasing of what is stored in pieces: the parts of files and the results of batches.
//!
//! It takes many small transactions. A row of the table `erasures` names each file and each batch
//! whose pieces are being erased: it is inserted in the transaction that removes the file or ends
//! the batch, and deleted in the one that erases the last piece. What a full disk, a stop or a
//! crash cuts short is therefore continued later.

use rusqlite::{Connection, MAIN_DB, OptionalExtension};

use crate::{
    erasure::{ERASED_PIECE, without_overwriting},
    group::Group,
    row,
};

/// A table of pieces.
struct Table {
    /// `erasures.kind`.
    kind: i64,
    name: &'static str,
    column: &'static str,
    /// Selects the first piece of a file or a batch.
    first: &'static str,
    delete: &'static str,
    /// Inserts a row of `erasures` for a file or a batch that has pieces.
    remember: &'static str,
}

const PARTS: Table = Table {
    kind: 0,
    name: "file_parts",
    column: "part",
    first: "SELECT rowid, length(part) AS bytes FROM file_parts WHERE id = ?1 ORDER BY n LIMIT 1",
    delete: "DELETE FROM file_parts WHERE rowid = ?1",
    remember: "INSERT OR IGNORE INTO erasures (kind, id)
        SELECT 0, ?1 WHERE EXISTS (SELECT 1 FROM file_parts WHERE id = ?1)",
};
const RESULTS: Table = Table {
    kind: 1,
    name: "batch_lines",
    column: "line",
    first: "SELECT rowid, length(line) AS bytes FROM batch_lines WHERE batch = ?1
        ORDER BY n LIMIT 1",
    delete: "DELETE FROM batch_lines WHERE rowid = ?1",
    remember: "INSERT OR IGNORE INTO erasures (kind, id)
        SELECT 1, ?1 WHERE EXISTS (SELECT 1 FROM batch_lines WHERE batch = ?1)",
};

/// A row of `erasures`.
struct Erasure {
    seq: i64,
    of: &'static Table,
    id: String,
    /// Number of bytes of the first piece that are overwritten already.
    overwritten: u64,
}

impl Group<'_> {
    /// Removes a file and remembers to erase its parts.
    pub(crate) fn forget_file(&mut self, id: &str) -> rusqlite::Result<()> {
        let delete = "DELETE FROM files WHERE id = ?1";
        if self.conn.prepare_cached(delete)?.execute([id])? > 0 {
            self.mark_erasing();
        }
        self.remember(&PARTS, id)
    }

    /// Remembers to erase the results of a batch.
    pub(crate) fn forget_results(&self, batch: &str) -> rusqlite::Result<()> {
        self.remember(&RESULTS, batch)
    }

    fn remember(&self, of: &Table, id: &str) -> rusqlite::Result<()> {
        let mut remember = self.conn.prepare_cached(of.remember)?;
        remember.execute([id]).map(drop)
    }

    /// Erases as many pieces as one group may, those of one file or those that were remembered
    /// first. Returns false if there was nothing to erase.
    pub(crate) fn erase_pieces(&mut self, file: Option<&str>) -> rusqlite::Result<bool> {
        let Some(mut erasure) = self.next_erasure_of(file)? else {
            return Ok(false);
        };
        self.mark_erasing();
        let mut left = self.erased_at_once();
        while left > 0 {
            let Some(erased) = self.erase_piece(&mut erasure, left)? else {
                let done = "DELETE FROM erasures WHERE seq = ?1";
                self.conn.prepare_cached(done)?.execute([erasure.seq])?;
                return Ok(true);
            };
            left = left.saturating_sub(erased.max(ERASED_PIECE));
        }
        let update = "UPDATE erasures SET overwritten = ?2 WHERE seq = ?1";
        let overwritten = row::number(erasure.overwritten);
        let mut update = self.conn.prepare_cached(update)?;
        update.execute((erasure.seq, overwritten))?;
        Ok(true)
    }

    fn next_erasure_of(&self, file: Option<&str>) -> rusqlite::Result<Option<Erasure>> {
        let select = "SELECT seq, kind, id, overwritten FROM erasures
            WHERE ?1 IS NULL OR (kind = 0 AND id = ?1) ORDER BY seq LIMIT 1";
        let found = self
            .conn
            .prepare_cached(select)?
            .query_row([file], |found| {
                let is_file = found.get::<_, i64>("kind")? == PARTS.kind;
                Ok(Erasure {
                    seq: found.get("seq")?,
                    of: if is_file { &PARTS } else { &RESULTS },
                    id: found.get("id")?,
                    overwritten: row::count(found, "overwritten")?,
                })
            });
        found.optional()
    }

    /// Erases at most `most` bytes of the first piece that is left, and the piece once all of it
    /// is overwritten. Returns the number of bytes, `None` if no piece is left.
    fn erase_piece(&self, erasure: &mut Erasure, most: u64) -> rusqlite::Result<Option<u64>> {
        let mut first = self.conn.prepare_cached(erasure.of.first)?;
        let first = first.query_row([&erasure.id], |found| {
            Ok((found.get("rowid")?, row::count(found, "bytes")?))
        });
        let Some((piece, bytes)) = first.optional()? else {
            return Ok(None);
        };
        let from = erasure.overwritten;
        let erased = bytes.saturating_sub(from).min(most);
        let is_whole = from + erased >= bytes;
        if is_whole && from == 0 {
            self.delete_piece(erasure.of, piece)?;
            return Ok(Some(erased));
        }
        overwrite(self.conn, erasure.of, piece, from, erased)?;
        erasure.overwritten = from + erased;
        if is_whole {
            without_overwriting(self.conn, || self.delete_piece(erasure.of, piece))?;
            erasure.overwritten = 0;
        }
        Ok(Some(erased))
    }

    fn delete_piece(&self, of: &Table, piece: i64) -> rusqlite::Result<()> {
        let mut delete = self.conn.prepare_cached(of.delete)?;
        delete.execute([piece]).map(drop)
    }
}

fn overwrite(
    conn: &Connection,
    of: &Table,
    piece: i64,
    from: u64,
    count: u64,
) -> rusqlite::Result<()> {
    let [from, count] = [from, count].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut piece = conn.blob_open(MAIN_DB, of.name, of.column, piece, false)?;
    piece.write_at(&vec![0; count], from)
}

/// Remembers to erase the parts of files without metadata, and the results of batches that ended:
/// a stop or a crash cut short what wrote them.
pub(crate) fn remember_remains(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "INSERT OR IGNORE INTO erasures (kind, id)
             SELECT DISTINCT 0, id FROM file_parts WHERE id NOT IN (SELECT id FROM files);
         INSERT OR IGNORE INTO erasures (kind, id)
             SELECT DISTINCT 1, batch FROM batch_lines
             WHERE batch NOT IN (SELECT id FROM batches WHERE is_over = 0);",
    )
}
