//! Erasure of jobs, requests and answers whose retention time is over.
//!
//! `secure_delete` overwrites deleted data in the database file. The write-ahead log still holds
//! what was written before, so it is checkpointed and truncated afterwards.

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::{
    Account, Dialect, JobId, JobState, Timestamp,
    limits::{JOB_COST, LINE_COST},
};
use queue::QueueLimits;
use rusqlite::{Connection, MAIN_DB, OptionalExtension};

use crate::{error::Fault, group::Group, row};

/// Approximate number of bytes that one group erases of jobs, and again of files and results.
/// Erased data is overwritten and goes through the write-ahead log; more would delay other groups.
const ERASED_AT_ONCE: u64 = 4 * 1024 * 1024;
/// Bytes that one group erases while the disk is full, because erasing needs space, too.
pub(crate) const ERASED_WHEN_FULL: u64 = 512 * 1024;
/// Minimum number of bytes that a piece of a file or a result counts as.
pub(crate) const ERASED_PIECE: u64 = 1024;
/// Minimum number of bytes that a job counts as, and what a key does: each writes several pages.
const ERASED_JOB: u64 = 8 * 1024;
/// Maximum number of fetched jobs recorded between two groups. Further ones are not recorded as
/// fetched and are kept longer.
const NOTED_MAX: usize = 100_000;
/// Minimum time between truncations of the write-ahead log, because its space must be allocated
/// again after each.
const CUT_EVERY: Duration = Duration::from_secs(60);
/// Maximum time to wait for readers that still use the write-ahead log.
const CUT_WAIT: Duration = Duration::from_millis(50);

/// The jobs whose answers were fetched since the last group.
#[derive(Debug, Default)]
pub(crate) struct Fetched(Mutex<HashMap<JobId, Timestamp>>);

impl Fetched {
    pub(crate) fn note(&self, now: Timestamp, id: JobId) {
        let mut noted = self.0.lock();
        if noted.len() < NOTED_MAX {
            noted.entry(id).or_insert(now);
        }
    }

    pub(crate) fn take(&self) -> HashMap<JobId, Timestamp> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Writes the fetch time of those jobs that are erased early, see [`QueueLimits::is_erased_early`].
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

/// A job whose retention time is over.
struct Due {
    seq: i64,
    account: Account,
    kept: i64,
    /// Whether the whole job is erased, or only its request and answer.
    whole: bool,
    /// Whether a part of the request is already erased.
    is_begun: bool,
}

impl Due {
    /// Number of bytes that the job counts as in one group.
    fn weight(&self) -> u64 {
        u64::try_from(self.kept).unwrap_or_default().max(ERASED_JOB)
    }
}

impl Group<'_> {
    /// Returns the number of bytes to erase in this group.
    pub(crate) const fn erased_at_once(&self) -> u64 {
        if self.is_full {
            ERASED_WHEN_FULL
        } else {
            ERASED_AT_ONCE
        }
    }

    /// Erases some of the data whose retention time is over; returns when to continue.
    pub(crate) fn erase(&mut self) -> Result<Option<Timestamp>, Fault> {
        let (now, limits) = {
            let live = self.live();
            (live.machine.now(), live.machine.limits())
        };
        let most = self.erased_at_once();
        let mut left = most;
        for due in self.due(now, limits, most / ERASED_JOB)? {
            let in_parts = due.is_begun || due.weight() > most;
            let is_gone = if in_parts {
                self.erase_in_parts(&due, &mut left)?
            } else if due.weight() <= left {
                left -= due.weight();
                true
            } else {
                false
            };
            self.mark_erasing();
            if !is_gone {
                break;
            }
            self.finish(&due, now)?;
        }
        // Keys come last: jobs have the private data, and more of it.
        if self.erase_keys(now, left / ERASED_JOB)? > 0 {
            self.mark_erasing();
        }
        Ok(self.plan_erasure(now, limits)?)
    }

    fn due(&self, now: Timestamp, limits: QueueLimits, most: u64) -> rusqlite::Result<Vec<Due>> {
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
        let mut due = find(true, "finished_at", limits.kept)?;
        due.extend(find(false, "fetched_at", limits.fetched_kept)?);
        Ok(due)
    }

    /// Erases as much of a large job as `left` allows. Returns whether only small data is left.
    fn erase_in_parts(&mut self, due: &Due, left: &mut u64) -> rusqlite::Result<bool> {
        // From now on readers see the job as erased.
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

    /// Overwrites up to `most` bytes of a request, from its end. The column `bytes` holds the
    /// length that is left.
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
            without_overwriting(self.conn, || self.empty_body(seq))?;
        }
        Ok(gone)
    }

    fn empty_body(&self, seq: i64) -> rusqlite::Result<()> {
        let empty = "UPDATE bodies SET body = x'' WHERE seq = ?1";
        self.conn.prepare_cached(empty)?.execute([seq]).map(drop)
    }

    /// Erases the last lines of an answer first, so that a concurrent reader finds no gap.
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

    /// Erases what was written to a query, beginning with its draft.
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

    /// Erases the rest of the job, except a key that outlives it.
    fn finish(&mut self, due: &Due, now: Timestamp) -> rusqlite::Result<()> {
        let kept = "SELECT kept FROM jobs WHERE seq = ?1";
        let mut kept = self.conn.prepare_cached(kept)?;
        let kept: Option<i64> = kept.query_row([due.seq], |row| row.get(0)).optional()?;
        let Some(kept) = kept else {
            return Ok(());
        };
        let left = if due.whole {
            let left = self.keep_key(due.seq, now)?;
            let delete = "DELETE FROM jobs WHERE seq = ?1";
            self.conn.prepare_cached(delete)?.execute([due.seq])?;
            left
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

    /// Returns the time of the next erasure, and sets whether the caller of `reap` has a timer for
    /// those of ended jobs.
    pub(crate) fn plan_erasure(
        &self,
        now: Timestamp,
        limits: QueueLimits,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let first = |select| {
            let mut select = self.conn.prepare_cached(select)?;
            let first = select.query_row([], |row| row.get(0).map(Timestamp));
            first.optional()
        };
        let key = first("SELECT until FROM past_submissions ORDER BY until LIMIT 1")?;
        let ended = first(
            "SELECT finished_at FROM jobs WHERE finished_at IS NOT NULL
             ORDER BY finished_at LIMIT 1",
        )?;
        self.live().set_erasing(ended.is_some());
        let Some(ended) = ended else {
            return Ok(key);
        };
        let fetched = first(
            "SELECT fetched_at FROM jobs WHERE fetched_at IS NOT NULL
             ORDER BY fetched_at LIMIT 1",
        )?;
        let next = [
            key,
            Some(ended + limits.kept),
            fetched.map(|at| at + limits.fetched_kept),
            // Nothing that is fetched after this is due earlier.
            Some(now + limits.fetched_kept),
        ];
        Ok(next.into_iter().flatten().min())
    }
}

/// Deletes data that is already overwritten, without overwriting it again when its pages are freed.
pub(crate) fn without_overwriting(
    conn: &Connection,
    delete: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    conn.execute_batch("PRAGMA secure_delete = FAST")?;
    let deleted = delete();
    conn.execute_batch("PRAGMA secure_delete = ON")?;
    deleted
}

/// Truncates the write-ahead log after an erasure.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    is_due: Cell<bool>,
    last: Cell<Option<Instant>>,
}

impl Cutter {
    /// Records that something was erased.
    pub(crate) fn note(&self) {
        self.is_due.set(true);
    }

    /// Truncates the log if that is due; returns the time until the next attempt.
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
                tracing::warn!(
                    error = proto::causes(&error),
                    "the write-ahead log was not truncated and may contain erased data; retrying \
                     in 60 s"
                );
                Some(CUT_EVERY)
            }
        }
    }
}

/// Checkpoints and truncates the log; returns `false` if a reader prevented it.
pub(crate) fn cut(conn: &Connection) -> rusqlite::Result<bool> {
    conn.busy_timeout(CUT_WAIT)?;
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, i64>(0)
    });
    conn.busy_timeout(crate::schema::BUSY)?;
    Ok(busy? == 0)
}

/// Converts the length of something that fits into memory.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn millis(kept: Duration) -> i64 {
    i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)
}
