//! Queries of the query service in the queue file.

use async_trait::async_trait;
use proto::{Account, Body, JobId, JobState, Timestamp};
use queue::{
    COUNTED_MAX, Claim, LISTED_MAX, LOGS_MAX, NewQuery, Owner, Queries, Query, QueryId, QueryLog,
    QueueError,
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    SqliteQueue,
    group::Group,
    row::{self, count, number, state_number},
};

/// Selects a query with its job and the number of its log entries.
const SELECT: &str = concat!(
    "SELECT ",
    row::columns!(),
    ", queries.*, (SELECT count(*) FROM query_logs WHERE query_logs.query = queries.query) AS logs
     FROM queries JOIN jobs USING (seq)"
);

#[async_trait]
impl Queries for SqliteQueue {
    async fn create_query(&self, now: Timestamp, new: NewQuery) -> Result<QueryId, QueueError> {
        self.try_ask(move |group| {
            let seq = group.enqueue(now, &new.job)?.seq;
            let mut insert = group.conn.prepare_cached(
                "INSERT INTO queries (seq, project, user, account) VALUES (?1, ?2, ?3, ?4)
                 RETURNING query",
            )?;
            let account = new.job.account.as_str();
            let values = (number(seq), new.project, new.user.map(number), account);
            Ok(insert.query_row(values, |found| count(found, "query"))?)
        })
        .await
    }

    async fn find_query(&self, owner: Owner<'_>, id: QueryId) -> Result<Option<Query>, QueueError> {
        self.check_open()?;
        let found = self.reader.read(move |conn| find(conn, id)).await?;
        Ok(found.filter(|query| owner.owns(&query.job.new.account)))
    }

    async fn query_of(&self, job: JobId) -> Result<Option<QueryId>, QueueError> {
        self.check_open()?;
        let seq = self.unfinished(job);
        self.reader
            .read(move |conn| {
                let found = match seq {
                    Some(seq) => conn
                        .prepare_cached("SELECT query FROM queries WHERE seq = ?1")?
                        .query_row([number(seq)], |found| count(found, "query")),
                    None => conn
                        .prepare_cached(
                            "SELECT query FROM queries WHERE seq =
                             (SELECT seq FROM jobs WHERE id = ?1 AND finished_at IS NOT NULL)",
                        )?
                        .query_row([job.0], |found| count(found, "query")),
                };
                found.optional()
            })
            .await
    }

    async fn list_queries(
        &self,
        owner: Owner<'_>,
        states: &[JobState],
        skip: u64,
        limit: usize,
    ) -> Result<(u64, Vec<Query>), QueueError> {
        self.check_open()?;
        let account: Option<Account> = match owner {
            Owner::Account(account) => Some(account.clone()),
            Owner::Anyone => None,
        };
        let wanted = states.iter().map(|state| state_number(*state));
        let wanted: Vec<_> = wanted.map(i64::from).collect();
        // As JSON, because SQL parameters cannot be lists.
        let wanted = serde_json::to_string(&wanted).unwrap_or_default();
        // Unfinished jobs are known in memory; ended ones are far more numerous.
        let unfinished = !states.is_empty() && states.iter().all(|state| !state.is_final());
        let unfinished = unfinished.then(|| self.unfinished_queries(owner, states));
        self.lists
            .read(move |conn| {
                let tx = conn.unchecked_transaction()?;
                let account = account.as_ref().map(Account::as_str);
                let seqs = unfinished.and_then(|seqs| serde_json::to_string(&seqs).ok());
                let all = tx
                    .prepare_cached(&counting(account, &wanted, seqs.as_deref()))?
                    .query_row((account, &wanted, seqs.as_deref()), |found| {
                        count(found, "n")
                    })?;
                let some = format!(
                    "{SELECT} WHERE {} ORDER BY {} DESC LIMIT ?4 OFFSET ?5",
                    wanted_by(account, &wanted, seqs.as_deref()),
                    if seqs.is_some() { "+query" } else { "query" },
                );
                let mut select = tx.prepare_cached(&some)?;
                let (limit, skip) = (number(limit as u64), number(skip));
                let values = (account, &wanted, seqs.as_deref(), limit, skip);
                let found = select.query_map(values, |found| {
                    let mut query = query(found)?;
                    query.draft.take_if(|draft| draft.0.len() > LISTED_MAX);
                    Ok(query)
                })?;
                let mut found: Vec<Query> = found.collect::<rusqlite::Result<_>>()?;
                for query in &mut found {
                    with_body(&tx, query, LISTED_MAX)?;
                }
                Ok((all, found))
            })
            .await
    }

    async fn claim_query(&self, id: QueryId, claim: Claim) -> Result<(), QueueError> {
        self.ask(move |group| {
            if let Some(kept) = Kept::of(group.conn, id)? {
                let mut update = group.conn.prepare_cached(
                    "UPDATE queries SET claimed_by = ?2, claimed_attempt = ?3, claimed_at = ?4,
                     draft = NULL WHERE query = ?1",
                )?;
                update.execute((number(id), &claim.by, claim.attempt, claim.at.0))?;
                kept.grows(group, -kept.draft)?;
            }
            Ok(())
        })
        .await
    }

    async fn draft_query(&self, id: QueryId, draft: Body) -> Result<(), QueueError> {
        self.ask(move |group| {
            group.admits()?;
            if let Some(kept) = Kept::of(group.conn, id)? {
                group.check_kept(&kept.account, draft.0.len())?;
                let mut update = group
                    .conn
                    .prepare_cached("UPDATE queries SET draft = ?2 WHERE query = ?1")?;
                update.execute((number(id), draft.0.as_ref()))?;
                kept.grows(group, number(draft.0.len() as u64) - kept.draft)?;
            }
            Ok(())
        })
        .await
    }

    async fn log_query(
        &self,
        now: Timestamp,
        id: QueryId,
        text: Body,
        most: u64,
    ) -> Result<Option<QueryLog>, QueueError> {
        self.ask(move |group| {
            group.admits()?;
            let Some(kept) = Kept::of(group.conn, id)? else {
                return Ok(None);
            };
            group.check_kept(&kept.account, text.0.len())?;
            let mut insert = group.conn.prepare_cached(
                "INSERT INTO query_logs (query, text, written_at)
                 SELECT query, ?2, ?3 FROM queries WHERE query = ?1
                 AND (SELECT count(*) < ?4 AND coalesce(sum(length(text)), 0) <= ?5
                      FROM query_logs WHERE query = ?1) RETURNING entry",
            )?;
            let room = LOGS_MAX.saturating_sub(text.0.len());
            let values = (
                number(id),
                text.0.as_ref(),
                now.0,
                number(most),
                number(room as u64),
            );
            let entry = insert.query_row(values, |found| count(found, "entry"));
            let entry = entry.optional()?;
            if entry.is_some() {
                kept.grows(group, number(text.0.len() as u64))?;
            }
            Ok(entry.map(|entry| QueryLog {
                id: entry,
                query: id,
                text: text.clone(),
                created_at: now,
            }))
        })
        .await
    }

    async fn query_logs(&self, id: QueryId) -> Result<Vec<QueryLog>, QueueError> {
        self.check_open()?;
        self.reader
            .read(move |conn| {
                let mut select = conn
                    .prepare_cached("SELECT * FROM query_logs WHERE query = ?1 ORDER BY entry")?;
                let logs = select.query_map([number(id)], |found| {
                    Ok(QueryLog {
                        id: count(found, "entry")?,
                        query: id,
                        text: found.get::<_, Vec<u8>>("text")?.into(),
                        created_at: Timestamp(found.get("written_at")?),
                    })
                })?;
                logs.collect()
            })
            .await
    }

    async fn delete_query(&self, id: QueryId) -> Result<bool, QueueError> {
        self.ask(move |group| {
            let mut delete = group.conn.prepare_cached(
                "DELETE FROM jobs WHERE finished_at IS NOT NULL
                 AND seq = (SELECT seq FROM queries WHERE query = ?1) RETURNING account, kept",
            )?;
            let gone = delete.query_row([number(id)], |found| {
                Ok((row::account(found)?, found.get::<_, i64>("kept")?))
            });
            let gone = gone.optional()?;
            if let Some((account, kept)) = &gone {
                group.mark_erasing();
                group.weigh(account, -kept);
            }
            Ok(gone.is_some())
        })
        .await
    }
}

impl SqliteQueue {
    /// Returns the numbers of the owner's unfinished jobs that are queries in one of these states.
    fn unfinished_queries(&self, owner: Owner<'_>, states: &[JobState]) -> Vec<u64> {
        let live = self.shared.live.lock();
        let wanted = live.machine.queries(owner);
        let wanted = wanted.filter(|record| states.contains(&record.job.state));
        wanted.map(|record| record.seq).collect()
    }
}

/// Builds the SQL condition for an account (1), states (2) and job numbers (3), as far as given.
fn wanted_by(account: Option<&str>, states: &str, seqs: Option<&str>) -> String {
    let asked = [
        // The job numbers are few, so they are searched by number instead of by account.
        (
            account.is_some() && seqs.is_none(),
            "queries.account = ?1",
            "(?1 IS NULL OR +queries.account = ?1)",
        ),
        (
            states != "[]",
            "state IN (SELECT value FROM json_each(?2))",
            "?2 = '[]'",
        ),
        (
            seqs.is_some(),
            "queries.seq IN (SELECT value FROM json_each(?3))",
            "?3 IS NULL",
        ),
    ];
    let asked =
        asked.map(|(is_asked, where_it_is, else_)| if is_asked { where_it_is } else { else_ });
    asked.join(" AND ")
}

/// Builds the SQL that counts queries; with states, up to [`COUNTED_MAX`] only.
pub(crate) fn counting(account: Option<&str>, states: &str, seqs: Option<&str>) -> String {
    let wanted = wanted_by(account, states, seqs);
    let (jobs, most) = if states == "[]" {
        ("", u64::MAX)
    } else {
        ("JOIN jobs USING (seq)", COUNTED_MAX)
    };
    let most = number(most);
    format!("SELECT count(*) AS n FROM (SELECT 1 FROM queries {jobs} WHERE {wanted} LIMIT {most})")
}

/// The bytes of a query that count against its account.
struct Kept {
    seq: i64,
    account: Account,
    draft: i64,
}

impl Kept {
    fn of(conn: &Connection, id: QueryId) -> rusqlite::Result<Option<Self>> {
        let mut select = conn.prepare_cached(
            "SELECT seq, account, coalesce(length(draft), 0) AS draft FROM queries WHERE query = ?1",
        )?;
        let found = select.query_row([number(id)], |found| {
            Ok(Self {
                seq: found.get("seq")?,
                account: row::account(found)?,
                draft: found.get("draft")?,
            })
        });
        found.optional()
    }

    fn grows(&self, group: &mut Group<'_>, bytes: i64) -> rusqlite::Result<()> {
        let update = "UPDATE jobs SET kept = kept + ?2 WHERE seq = ?1";
        let mut update = group.conn.prepare_cached(update)?;
        update.execute((self.seq, bytes))?;
        group.weigh(&self.account, bytes);
        Ok(())
    }
}

fn find(conn: &Connection, id: QueryId) -> rusqlite::Result<Option<Query>> {
    // One transaction, so that the job is not erased between the two reads.
    let tx = conn.unchecked_transaction()?;
    let mut select = tx.prepare_cached(&format!("{SELECT} WHERE query = ?1"))?;
    let Some(mut found) = select.query_row([number(id)], query).optional()? else {
        return Ok(None);
    };
    with_body(&tx, &mut found, usize::MAX)?;
    Ok(Some(found))
}

/// Reads the body if it has at most `most` bytes. SQLite knows the length of a blob without reading
/// it.
fn with_body(conn: &Connection, query: &mut Query, most: usize) -> rusqlite::Result<()> {
    // A body that is erased in parts is still partly there.
    if query.job.is_erased {
        return Ok(());
    }
    let mut select = conn.prepare_cached(
        "SELECT CASE WHEN length(body) <= ?2 THEN body ELSE x'' END FROM bodies
         WHERE seq = (SELECT seq FROM queries WHERE query = ?1)",
    )?;
    let values = (number(query.id), number(most as u64));
    let body: Vec<u8> = select.query_row(values, |found| found.get(0))?;
    query.job.new.body = body.into();
    Ok(())
}

fn query(found: &Row<'_>) -> rusqlite::Result<Query> {
    let claim = match found.get::<_, Option<String>>("claimed_by")? {
        Some(by) => Some(Claim {
            by,
            attempt: found.get("claimed_attempt")?,
            at: Timestamp(found.get("claimed_at")?),
        }),
        None => None,
    };
    let user: Option<i64> = found.get("user")?;
    Ok(Query {
        id: count(found, "query")?,
        project: found.get("project")?,
        user: user.and_then(|user| u64::try_from(user).ok()),
        claim,
        draft: found.get::<_, Option<Vec<u8>>>("draft")?.map(Body::from),
        logs: count(found, "logs")?,
        job: row::record(found)?.job,
    })
}
