//! Conversion between jobs and rows.

use std::time::Duration;

use bytes::Bytes;
use proto::{Account, JobId, JobState, ModelName, Priority, Timestamp, WorkerId, limits::JOB_COST};
use queue::{
    Job, NewJob,
    machine::{Loan, Record},
};
use rusqlite::{
    CachedStatement, Connection, OptionalExtension, Row,
    types::{FromSql, Type, ValueRef},
};
use serde::{
    Serialize,
    de::{DeserializeOwned, IntoDeserializer as _, value::StrDeserializer},
};

// Parameters are addressed by number: a lookup by name would be repeated for thousands of rows a
// second.
const INSERT: &str = "
    INSERT INTO jobs (seq, id, account, who, op, model, priority, dialect, deadline, attended,
        bytes, created_at, state, attempt, tries, not_before, lease_until, lease_ms, cancelled,
        finished_at, error, worker, kept)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0, 0, NULL, NULL, NULL, 0, NULL,
        NULL, ?13, ?14)";
const UPDATE: &str = "
    UPDATE jobs SET state = ?2, attempt = ?3, tries = ?4, not_before = ?5, lease_until = ?6,
        lease_ms = ?7, cancelled = ?8, finished_at = ?9, error = ?10, kept = kept + ?11
    WHERE seq = ?1";

/// The columns that [`record`] reads, in its order. They must come first in a statement.
macro_rules! columns {
    () => {
        "jobs.seq, jobs.bytes, jobs.tries, jobs.not_before, jobs.lease_until, jobs.lease_ms,
         jobs.cancelled, jobs.state, jobs.attempt, jobs.created_at, jobs.finished_at, jobs.error,
         jobs.is_erased, jobs.id, jobs.account, jobs.who, jobs.op, jobs.model, jobs.priority,
         jobs.dialect, jobs.deadline, jobs.attended, jobs.worker"
    };
}
pub(crate) use columns;

const ENDED: &str = "SELECT 1 FROM jobs WHERE id = ?1 AND finished_at IS NOT NULL";
const BODY: &str = "INSERT INTO bodies (seq, body) VALUES (?1, ?2)";

/// The statements that write jobs, prepared once per group.
#[derive(Default)]
pub(crate) struct Statements<'a> {
    insert: Option<CachedStatement<'a>>,
    body: Option<CachedStatement<'a>>,
    update: Option<CachedStatement<'a>>,
    ended: Option<CachedStatement<'a>>,
}

fn prepared<'s, 'a>(
    statement: &'s mut Option<CachedStatement<'a>>,
    conn: &'a Connection,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'a>> {
    Ok(match statement {
        Some(statement) => statement,
        none => none.insert(conn.prepare_cached(sql)?),
    })
}

impl<'a> Statements<'a> {
    /// Whether a job with this id has ended and is not deleted yet.
    pub(crate) fn has_ended(&mut self, conn: &'a Connection, id: JobId) -> rusqlite::Result<bool> {
        prepared(&mut self.ended, conn, ENDED)?.exists([id.0])
    }

    /// Writes an accepted job with its request.
    pub(crate) fn insert(
        &mut self,
        conn: &'a Connection,
        record: &Record,
        body: &[u8],
    ) -> rusqlite::Result<()> {
        let new = &record.job.new;
        prepared(&mut self.insert, conn, INSERT)?.execute((
            number(record.seq),
            new.id.0,
            new.account.as_str(),
            &new.who,
            text(&new.op)?,
            new.model.as_str(),
            new.priority.level(),
            text(&new.dialect)?,
            new.deadline.map(|at| at.0),
            new.attended,
            number(record.bytes as u64),
            record.job.created_at.0,
            new.worker.as_ref().map(WorkerId::as_str),
            number(JOB_COST + record.bytes as u64),
        ))?;
        let insert = prepared(&mut self.body, conn, BODY)?;
        insert.execute((number(record.seq), body)).map(drop)
    }

    /// Writes the mutable columns of a job, and the size of its answer once it has ended.
    pub(crate) fn update(
        &mut self,
        conn: &'a Connection,
        record: &Record,
        answer: u64,
    ) -> rusqlite::Result<()> {
        let job = &record.job;
        let changed = prepared(&mut self.update, conn, UPDATE)?.execute((
            number(record.seq),
            state_number(job.state),
            job.attempt,
            record.tries,
            record.not_before.map(|at| at.0),
            record.loan.as_ref().map(|loan| loan.until.0),
            record.loan.as_ref().map(|loan| millis(loan.length)),
            record.cancelled,
            job.finished_at.map(|at| at.0),
            job.error.as_ref().map(text).transpose()?,
            number(answer),
        ))?;
        if changed == 1 {
            Ok(())
        } else {
            Err(rusqlite::Error::StatementChangedRows(changed))
        }
    }
}

/// Deletes the lines of an earlier attempt.
pub(crate) fn clear_lines(conn: &Connection, seq: u64) -> rusqlite::Result<()> {
    let mut clear = conn.prepare_cached("DELETE FROM lines WHERE seq = ?1")?;
    clear.execute([number(seq)]).map(drop)
}

/// Writes lines numbered from `first`.
pub(crate) fn insert_lines(
    conn: &Connection,
    seq: u64,
    first: u64,
    lines: &[Bytes],
) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached("INSERT INTO lines (seq, n, line) VALUES (?1, ?2, ?3)")?;
    for (n, line) in (first..).zip(lines) {
        insert.execute((number(seq), number(n), line.as_ref()))?;
    }
    Ok(())
}

/// Reads the request of a job.
pub(crate) fn body(conn: &Connection, seq: u64) -> rusqlite::Result<Vec<u8>> {
    let mut select = conn.prepare_cached("SELECT body FROM bodies WHERE seq = ?1")?;
    select.query_row([number(seq)], |row| row.get(0))
}

/// Reads the ended job with this id, without its body.
pub(crate) fn find_ended(conn: &Connection, id: JobId) -> rusqlite::Result<Option<Record>> {
    let mut select = conn.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        " FROM jobs WHERE id = ?1 AND finished_at IS NOT NULL"
    ))?;
    select.query_row([id.0], record).optional()
}

/// Reads the job with this number and id, ended or not, without its body.
pub(crate) fn find(conn: &Connection, seq: u64, id: JobId) -> rusqlite::Result<Option<Record>> {
    let mut select = conn.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        " FROM jobs WHERE seq = ?1 AND id = ?2"
    ))?;
    select.query_row((number(seq), id.0), record).optional()
}

/// Reads the account of a row.
pub(crate) fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Account::new(row.get::<_, String>("account")?).map_err(|error| wrong("account", error))
}

/// Reads the values of a row in order, which avoids a lookup by name for each.
struct Values<'a, 'stmt> {
    row: &'a Row<'stmt>,
    next: usize,
}

impl<'a> Values<'a, '_> {
    fn value(&mut self, column: &'static str) -> rusqlite::Result<ValueRef<'a>> {
        let index = self.next;
        debug_assert_eq!(
            self.row.as_ref().column_name(index).ok(),
            Some(column),
            "the columns are not those that are read"
        );
        self.next += 1;
        self.row.get_ref(index)
    }

    fn get<T: FromSql>(&mut self, column: &'static str) -> rusqlite::Result<T> {
        let value = T::column_result(self.value(column)?);
        value.map_err(|error| wrong(column, error))
    }

    fn count(&mut self, column: &'static str) -> rusqlite::Result<u64> {
        u64::try_from(self.get::<i64>(column)?).map_err(|error| wrong(column, error))
    }

    fn moment(&mut self, column: &'static str) -> rusqlite::Result<Option<Timestamp>> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp))
    }

    fn word<T: DeserializeOwned>(&mut self, column: &'static str) -> rusqlite::Result<T> {
        let word = self.value(column)?.as_str();
        parsed(column, word.map_err(|error| wrong(column, error))?)
    }
}

/// Reads a row that begins with [`columns`].
pub(crate) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let mut values = Values { row, next: 0 };
    let seq = values.count("seq")?;
    let bytes = usize::try_from(values.count("bytes")?).unwrap_or(usize::MAX);
    let tries = values.get("tries")?;
    let not_before = values.moment("not_before")?;
    let until = values.moment("lease_until")?;
    let length: Option<i64> = values.get("lease_ms")?;
    let cancelled = values.get("cancelled")?;
    let job = Job {
        state: state(values.get("state")?)?,
        attempt: values.get("attempt")?,
        created_at: Timestamp(values.get("created_at")?),
        finished_at: values.moment("finished_at")?,
        error: values
            .get::<Option<String>>("error")?
            .map(|json| serde_json::from_str(&json).map_err(|error| wrong("error", error)))
            .transpose()?,
        is_erased: values.get("is_erased")?,
        new: new_job(&mut values)?,
    };
    let loan = match (until, length) {
        (Some(until), Some(length)) => Some(Loan {
            until,
            length: Duration::from_millis(
                u64::try_from(length).map_err(|error| wrong("lease_ms", error))?,
            ),
        }),
        (Some(_), None) => return Err(wrong("lease_ms", "a lease has no length")),
        (None, _) => None,
    };
    Ok(Record {
        seq,
        job,
        bytes,
        tries,
        not_before,
        loan,
        cancelled,
    })
}

fn new_job(values: &mut Values<'_, '_>) -> rusqlite::Result<NewJob> {
    Ok(NewJob {
        id: JobId(values.get("id")?),
        account: Account::new(values.get::<String>("account")?)
            .map_err(|error| wrong("account", error))?,
        who: values.get("who")?,
        op: values.word("op")?,
        model: ModelName::new(values.get::<String>("model")?)
            .map_err(|error| wrong("model", error))?,
        priority: Priority::stored(values.get("priority")?)
            .ok_or_else(|| wrong("priority", "it is not from 0 to 10"))?,
        dialect: values.word("dialect")?,
        deadline: values.moment("deadline")?,
        attended: values.get("attended")?,
        worker: values
            .get::<Option<String>>("worker")?
            .map(|name| WorkerId::new(name).map_err(|error| wrong("worker", error)))
            .transpose()?,
        body: Bytes::new().into(),
    })
}

/// Converts to SQLite's `i64`; no number here comes near its maximum.
pub(crate) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn count(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|error| wrong(column, error))
}

fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) const fn state_number(state: JobState) -> u8 {
    match state {
        JobState::Queued => 0,
        JobState::Leased => 1,
        JobState::Completed => 2,
        JobState::Failed => 3,
        JobState::Cancelled => 4,
    }
}

fn state(number: u8) -> rusqlite::Result<JobState> {
    use JobState::{Cancelled, Completed, Failed, Leased, Queued};
    [Queued, Leased, Completed, Failed, Cancelled]
        .into_iter()
        .find(|state| state_number(*state) == number)
        .ok_or_else(|| wrong("state", "it is not from 0 to 4"))
}

/// Converts a unit variant to its name on the wire, and anything else to JSON.
pub(crate) fn text(value: &impl Serialize) -> rusqlite::Result<String> {
    let json = serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let word = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    Ok(word.map(str::to_owned).unwrap_or(json))
}

pub(crate) fn word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    parsed(column, &row.get::<_, String>(column)?)
}

fn parsed<T: DeserializeOwned>(column: &str, word: &str) -> rusqlite::Result<T> {
    let word: StrDeserializer<'_, serde::de::value::Error> = word.into_deserializer();
    T::deserialize(word).map_err(|error| wrong(column, error))
}

pub(crate) fn wrong(
    column: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    let reason = format!("column {column}: {}", error.into());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, reason.into())
}
