//! What is erased when, and from where.
//!
//! `secure_delete` overwrites in the file what is deleted there. The write-ahead log beside it
//! still holds what was written before: it is taken into the file and cut off.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use proto::{
    Account, Dialect, JobId, JobState, Timestamp,
    limits::{JOB_COST, LINE_COST},
};
use queue::Terms;
use rusqlite::{Connection, MAIN_DB, OptionalExtension};

use crate::{error::Fault, group::Group, row};

/// About how many bytes one group erases, so that others are not kept waiting: what is erased is
/// overwritten, and goes through the log.
const ERASED_AT_ONCE: u64 = 4 * 1024 * 1024;
/// And while the disk is full: erasing needs room too.
const ERASED_WHEN_FULL: u64 = 512 * 1024;
/// What each job counts at least.
const ERASED_JOB: u64 = 8 * 1024;
/// Most fetched jobs that are noted between two groups; of more it is forgotten that they were
/// fetched, and they are kept longer.
const NOTED_MAX: usize = 100_000;
/// The log is cut off at most this often: each time its space must be made anew.
const CUT_EVERY: Duration = Duration::from_secs(60);
/// How long a reader is waited for, who still looks at what is in the log.
const CUT_WAIT: Duration = Duration::from_millis(50);

/// The jobs that were fetched since the last group.
#[derive(Debug, Default)]
pub(crate) struct Fetched(Mutex<HashMap<JobId, Timestamp>>);

impl Fetched {
    pub(crate) fn note(&self, now: Timestamp, id: JobId) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < NOTED_MAX {
            noted.entry(id).or_insert(now);
        }
    }

    pub(crate) fn take(&self) -> HashMap<JobId, Timestamp> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes that these were fetched, where that counts: see [`Terms::goes_early`].
pub(crate) fn note(conn: &Connection, fetched: &HashMap<JobId, Timestamp>) -> rusqlite::Result<()> {
    let mut update = conn.prepare_cached(
        "UPDATE jobs SET fetched_at = ?2 WHERE id = ?1 AND finished_at IS NOT NULL
         AND state = ?3 AND dialect <> ?4 AND fetched_at IS NULL AND is_erased = 0",
    )?;
    let state = row::state_number(JobState::Completed);
    let dialect = row::text(&Dialect::Queries)?;
    for (id, at) in fetched {
        update.execute((id.0, at.0, state, &dialect))?;
    }
    Ok(())
}

/// A job that was kept for long enough.
struct Due {
    seq: i64,
    account: Account,
    kept: i64,
    /// Or else its request and its answer only.
    whole: bool,
    /// Some of its request is gone already.
    is_begun: bool,
}

impl Due {
    /// What it takes of what one group erases.
    fn weight(&self) -> u64 {
        u64::try_from(self.kept).unwrap_or_default().max(ERASED_JOB)
    }
}

impl Group<'_> {
    /// Erases some of what was kept for long enough; answers when to look again.
    pub(crate) fn erase(&mut self) -> Result<Option<Timestamp>, Fault> {
        let (now, terms) = {
            let live = self.live();
            (live.machine.now(), live.machine.terms())
        };
        let most = if self.is_full {
            ERASED_WHEN_FULL
        } else {
            ERASED_AT_ONCE
        };
        let mut left = most;
        for due in self.due(now, terms, most / ERASED_JOB)? {
            let in_parts = due.is_begun || due.weight() > most;
            let is_gone = if in_parts {
                self.erase_in_parts(&due, &mut left)?
            } else if due.weight() <= left {
                left -= due.weight();
                true
            } else {
                false
            };
            self.erases();
            if !is_gone {
                break;
            }
            self.finish(&due)?;
        }
        let next = self.next_erasure(now, terms)?;
        self.live().erases(next.is_some());
        Ok(next)
    }

    fn due(&self, now: Timestamp, terms: Terms, most: u64) -> rusqlite::Result<Vec<Due>> {
        let find = |whole, column, kept| {
            let mut select = self.conn.prepare_cached(&format!(
                "SELECT seq, account, kept, is_erased AND
                     (SELECT length(body) > 0 FROM bodies WHERE bodies.seq = jobs.seq) AS is_begun
                 FROM jobs WHERE {column} IS NOT NULL AND {column} <= ?1
                 ORDER BY {column} LIMIT ?2"
            ))?;
            let before = now.0.saturating_sub(millis(kept));
            let found = select.query_map((before, row::number(most)), |found| {
                Ok(Due {
                    seq: found.get("seq")?,
                    account: row::account(found)?,
                    kept: found.get("kept")?,
                    whole,
                    is_begun: found.get("is_begun")?,
                })
            });
            found?.collect::<rusqlite::Result<Vec<_>>>()
        };
        let mut due = find(true, "finished_at", terms.kept)?;
        due.extend(find(false, "fetched_at", terms.fetched_kept)?);
        Ok(due)
    }

    /// Erases of a large one as much as there is room for; whether nothing is left but small things.
    fn erase_in_parts(&mut self, due: &Due, left: &mut u64) -> rusqlite::Result<bool> {
        // Nobody shall read the rest.
        let begin = "UPDATE jobs SET is_erased = 1 WHERE seq = ?1";
        self.conn.prepare_cached(begin)?.execute([due.seq])?;
        while *left > 0 {
            let gone = match self.erase_body(due.seq, *left)? {
                0 => match self.erase_lines(due.seq, *left)? {
                    0 if due.whole => self.erase_query(due.seq)?,
                    gone => gone,
                },
                gone => gone,
            };
            if gone == 0 {
                return Ok(true);
            }
            *left = left.saturating_sub(gone);
            let gone = row::number(gone);
            let update = "UPDATE jobs SET kept = kept - ?2 WHERE seq = ?1";
            let mut update = self.conn.prepare_cached(update)?;
            update.execute((due.seq, gone))?;
            self.weigh(&due.account, -gone);
        }
        Ok(false)
    }

    /// Overwrites up to so many bytes of a request, from its end; `bytes` are those that are left.
    fn erase_body(&self, seq: i64, most: u64) -> rusqlite::Result<u64> {
        let select = "SELECT min(bytes, length(body)) AS left, length(body) AS length
            FROM jobs JOIN bodies USING (seq) WHERE seq = ?1";
        let found = self.conn.prepare_cached(select)?.query_row([seq], |found| {
            Ok((row::count(found, "left")?, row::count(found, "length")?))
        });
        let Some((left, length)) = found.optional()? else {
            return Ok(0);
        };
        let gone = left.min(most);
        let (first, count) = (in_memory(left - gone), in_memory(gone));
        if gone > 0 {
            let mut body = self.conn.blob_open(MAIN_DB, "bodies", "body", seq, false)?;
            body.write_at(&vec![0; count], first)?;
        }
        let update = "UPDATE jobs SET bytes = ?2 WHERE seq = ?1";
        let mut update = self.conn.prepare_cached(update)?;
        update.execute((seq, row::number(left - gone)))?;
        if left == gone && length > 0 {
            // It was overwritten: not once more while its pages are given back.
            self.conn.execute_batch("PRAGMA secure_delete = FAST")?;
            let freed = self.empty_body(seq);
            self.conn.execute_batch("PRAGMA secure_delete = ON")?;
            freed?;
        }
        Ok(gone)
    }

    fn empty_body(&self, seq: i64) -> rusqlite::Result<()> {
        let empty = "UPDATE bodies SET body = x'' WHERE seq = ?1";
        self.conn.prepare_cached(empty)?.execute([seq]).map(drop)
    }

    /// Erases the last lines of an answer: whoever reads it meanwhile finds no gap.
    fn erase_lines(&self, seq: i64, most: u64) -> rusqlite::Result<u64> {
        let select = "SELECT n, length(line) AS bytes FROM lines WHERE seq = ?1 ORDER BY n DESC";
        let mut select = self.conn.prepare_cached(select)?;
        let mut rows = select.query([seq])?;
        let (mut from, mut gone) = (0, 0);
        while gone < most
            && let Some(found) = rows.next()?
        {
            from = found.get("n")?;
            gone += row::count(found, "bytes")? + LINE_COST as u64;
        }
        drop(rows);
        let delete = "DELETE FROM lines WHERE seq = ?1 AND n >= ?2";
        let mut delete = self.conn.prepare_cached(delete)?;
        delete.execute((seq, from))?;
        Ok(gone)
    }

    /// Erases what was written to a query, its draft first.
    fn erase_query(&self, seq: i64) -> rusqlite::Result<u64> {
        for [length, erase] in [
            [
                "SELECT coalesce(length(draft), 0) AS bytes FROM queries WHERE seq = ?1",
                "UPDATE queries SET draft = NULL WHERE seq = ?1",
            ],
            [
                "SELECT coalesce(sum(length(text)), 0) AS bytes FROM query_logs
                 WHERE query = (SELECT query FROM queries WHERE seq = ?1)",
                "DELETE FROM query_logs
                 WHERE query = (SELECT query FROM queries WHERE seq = ?1)",
            ],
        ] {
            let mut length = self.conn.prepare_cached(length)?;
            let bytes = length.query_row([seq], |found| row::count(found, "bytes"));
            let bytes = bytes.optional()?.unwrap_or_default();
            if bytes > 0 {
                self.conn.prepare_cached(erase)?.execute([seq])?;
                return Ok(bytes);
            }
        }
        Ok(0)
    }

    /// Erases what is left of it.
    fn finish(&mut self, due: &Due) -> rusqlite::Result<()> {
        let kept = "SELECT kept FROM jobs WHERE seq = ?1";
        let mut kept = self.conn.prepare_cached(kept)?;
        let kept: Option<i64> = kept.query_row([due.seq], |row| row.get(0)).optional()?;
        let Some(kept) = kept else {
            return Ok(());
        };
        let left = if due.whole {
            let delete = "DELETE FROM jobs WHERE seq = ?1";
            self.conn.prepare_cached(delete)?.execute([due.seq])?;
            0
        } else {
            row::clear_lines(self.conn, due.seq.cast_unsigned())?;
            self.empty_body(due.seq)?;
            let left = row::number(JOB_COST);
            let empty =
                "UPDATE jobs SET is_erased = 1, fetched_at = NULL, kept = ?2 WHERE seq = ?1";
            self.conn.prepare_cached(empty)?.execute((due.seq, left))?;
            left
        };
        self.weigh(&due.account, left - kept);
        Ok(())
    }

    /// When something must be erased.
    pub(crate) fn next_erasure(
        &self,
        now: Timestamp,
        terms: Terms,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let first = |select| {
            let mut select = self.conn.prepare_cached(select)?;
            let first = select.query_row([], |row| row.get(0).map(Timestamp));
            first.optional()
        };
        let ended = first(
            "SELECT finished_at FROM jobs WHERE finished_at IS NOT NULL
             ORDER BY finished_at LIMIT 1",
        )?;
        let Some(ended) = ended else {
            return Ok(None);
        };
        let fetched = first(
            "SELECT fetched_at FROM jobs WHERE fetched_at IS NOT NULL
             ORDER BY fetched_at LIMIT 1",
        )?;
        let next = [
            Some(ended + terms.kept),
            fetched.map(|at| at + terms.fetched_kept),
            // Nothing that is fetched after this is due before that.
            Some(now + terms.fetched_kept),
        ];
        Ok(next.into_iter().flatten().min())
    }
}

/// Parts of files that never got their record, and results of batches that are over: whoever
/// wrote them was cut short.
pub(crate) fn erase_remains(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "DELETE FROM file_parts WHERE id NOT IN (SELECT id FROM files);
         DELETE FROM batch_lines WHERE batch NOT IN (SELECT id FROM batches WHERE is_over = 0);",
    )
}

/// Cuts off the log after something was erased.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    is_due: Cell<bool>,
    last: Cell<Option<Instant>>,
}

impl Cutter {
    /// Something was erased.
    pub(crate) fn note(&self) {
        self.is_due.set(true);
    }

    /// Cuts, if that is due; answers after how long to try again.
    pub(crate) fn cut(&self, conn: &Connection, at: Instant) -> Option<Duration> {
        if !self.is_due.get() {
            return None;
        }
        let rest = self.last.get().map_or(Duration::ZERO, |last| {
            CUT_EVERY.saturating_sub(at.saturating_duration_since(last))
        });
        if !rest.is_zero() {
            return Some(rest);
        }
        self.last.set(Some(at));
        match cut(conn) {
            Ok(true) => {
                self.is_due.set(false);
                None
            }
            Ok(false) => Some(CUT_EVERY),
            Err(error) => {
                tracing::warn!(%error, "what was erased may still be in the log of the queue file");
                Some(CUT_EVERY)
            }
        }
    }
}

/// Takes the log into the file and cuts it off; false if a reader was in the way.
pub(crate) fn cut(conn: &Connection) -> rusqlite::Result<bool> {
    conn.busy_timeout(CUT_WAIT)?;
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, i64>(0)
    });
    conn.busy_timeout(crate::schema::BUSY)?;
    Ok(busy? == 0)
}

/// A length of what fits into memory.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn millis(kept: Duration) -> i64 {
    i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)
}
