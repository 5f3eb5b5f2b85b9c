//! Loading the unfinished jobs of an earlier run.

use std::collections::HashMap;

use bytes::Bytes;
use proto::{Account, JobId, Timestamp, limits::KEY_COST};
use queue::{
    Live, QueueLimits,
    machine::{Machine, Record},
};
use rusqlite::Connection;

use crate::row;

/// Reads the unfinished jobs, oldest first.
pub(crate) fn unfinished(conn: &Connection) -> rusqlite::Result<Vec<Record>> {
    let select = concat!(
        "SELECT ",
        row::columns!(),
        " FROM jobs WHERE state < 2 ORDER BY seq"
    );
    conn.prepare(select)?.query_map([], row::record)?.collect()
}

/// Reads the number of bytes kept for each account, of its jobs and of its keys.
fn kept(conn: &Connection) -> rusqlite::Result<Vec<(Account, i64)>> {
    // Without the index by account, which would look up each job in a different page.
    let sums = "SELECT account, sum(kept) AS kept FROM jobs NOT INDEXED GROUP BY account
        UNION ALL SELECT account, count(*) * ?1 FROM past_submissions GROUP BY account";
    conn.prepare(sums)?
        .query_map([row::number(KEY_COST)], |found| {
            Ok((row::account(found)?, found.get("kept")?))
        })?
        .collect()
}

/// Maximum size in bytes of an ended answer that stays in memory for its current readers.
const ENDED_MAX: usize = 128 * 1024;

/// Loads what an earlier run left unfinished.
pub(crate) fn load(
    conn: &Connection,
    limits: QueueLimits,
    now: Timestamp,
) -> rusqlite::Result<Live> {
    let records = unfinished(conn)?;
    let mut lines: HashMap<JobId, Vec<Bytes>> = HashMap::new();
    let mut select = conn.prepare(
        "SELECT id, n, line FROM lines JOIN jobs USING (seq) WHERE state < 2 ORDER BY seq, n",
    )?;
    let mut rows = select.query([])?;
    while let Some(found) = rows.next()? {
        let of_job = lines.entry(JobId(found.get("id")?)).or_default();
        if row::count(found, "n")? != of_job.len() as u64 + 1 {
            return Err(row::wrong("n", "a line is missing"));
        }
        of_job.push(found.get::<_, Vec<u8>>("line")?.into());
    }
    let last = conn.query_row(
        "SELECT coalesce(max(seq), 0) AS last FROM jobs",
        [],
        |found| row::count(found, "last"),
    )?;
    let mut machine = Machine::restore(limits, now, records);
    machine.number_after(last);
    for (account, bytes) in kept(conn)? {
        machine.weigh(&account, bytes);
    }
    Ok(Live::restore(machine, lines).with_retained_log_max(ENDED_MAX))
}
