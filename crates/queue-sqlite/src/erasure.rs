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

use proto::{JobId, Timestamp};
use queue::Terms;
use rusqlite::{Connection, OptionalExtension, named_params};

use crate::{group::Group, row};

/// Most ended jobs that one call of `reap` erases, so that others are not kept waiting.
const ERASED_AT_ONCE: usize = 500;
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

/// Writes that these were fetched. Jobs that have not ended or are kept anyway are left alone.
pub(crate) fn note(conn: &Connection, fetched: &HashMap<JobId, Timestamp>) -> rusqlite::Result<()> {
    for (id, at) in fetched {
        let Some(record) = row::find_ended(conn, *id)? else {
            continue;
        };
        if Terms::goes_early(&record.job) {
            conn.prepare_cached(
                "UPDATE jobs SET fetched_at = ?2 WHERE seq = ?1 AND fetched_at IS NULL",
            )?
            .execute((row::number(record.seq), at.0))?;
        }
    }
    Ok(())
}

impl Group<'_> {
    /// Erases what was kept for long enough; answers when to look again.
    pub(crate) fn erase(
        &mut self,
        now: Timestamp,
        terms: Terms,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let at_once = row::number(ERASED_AT_ONCE as u64);
        let before = |kept| now.0.saturating_sub(millis(kept));
        let gone = self
            .conn
            .prepare_cached(
                "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs
                 WHERE finished_at IS NOT NULL AND finished_at <= ?1
                 ORDER BY finished_at LIMIT ?2)",
            )?
            .execute((before(terms.kept), at_once))?;
        let emptied: Vec<i64> = self
            .conn
            .prepare_cached(
                "SELECT seq FROM jobs WHERE fetched_at IS NOT NULL AND is_erased = 0
                 AND fetched_at <= ?1 ORDER BY fetched_at LIMIT ?2",
            )?
            .query_map((before(terms.fetched_kept), at_once), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for seq in &emptied {
            self.empty(*seq)?;
        }
        if gone > 0 || !emptied.is_empty() {
            self.erases();
        }
        self.next_erasure(now, terms)
    }

    fn empty(&self, seq: i64) -> rusqlite::Result<()> {
        for statement in [
            "DELETE FROM lines WHERE seq = :seq",
            "UPDATE bodies SET body = x'' WHERE seq = :seq",
            "UPDATE jobs SET is_erased = 1 WHERE seq = :seq",
        ] {
            let mut statement = self.conn.prepare_cached(statement)?;
            statement.execute(named_params! { ":seq": seq })?;
        }
        Ok(())
    }

    fn next_erasure(&self, now: Timestamp, terms: Terms) -> rusqlite::Result<Option<Timestamp>> {
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
            "SELECT fetched_at FROM jobs WHERE fetched_at IS NOT NULL AND is_erased = 0
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

fn millis(kept: Duration) -> i64 {
    i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)
}
