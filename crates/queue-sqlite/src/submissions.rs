//! Idempotency keys and searches in the queue file.

use std::borrow::Cow;

use async_trait::async_trait;
use proto::{Account, JobId, Timestamp, limits::KEY_COST};
use queue::{
    Cursor, Extras, IdempotencyKey, JobFilter, JobPage, NewJob, Owner, QueueError,
    RETRY_KEY_PREFIX, Submissions, Submitted, machine::Record,
};
use rusqlite::{Connection, OptionalExtension};

use crate::{SqliteQueue, error::Fault, group::Group, row, webhooks};

/// SQL condition: the failed jobs of an account, or of all, that were not retried.
macro_rules! dead {
    ($what:expr, $more:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM jobs INDEXED BY jobs_failed
             WHERE state = 3 AND seq < ?1 AND (?2 IS NULL OR account = ?2) AND NOT EXISTS
                (SELECT 1 FROM submissions AS tried WHERE tried.account = jobs.account
                    AND tried.key = ?3 || lower(hex(jobs.id))) ",
            $more
        )
    };
}

impl Group<'_> {
    /// Accepts a job with its extras, see [`Submissions::submit`]. The idempotency key and the job
    /// are written in one transaction.
    fn submit(
        &mut self,
        now: Timestamp,
        job: &NewJob,
        extras: &Extras,
    ) -> Result<Submitted, Fault> {
        if let Some(idempotency_key) = &extras.idempotency_key
            && let Some((before, fingerprint)) =
                find(self.conn, &job.account, &idempotency_key.key)?
        {
            idempotency_key.check_same(&fingerprint)?;
            return Ok(Submitted::Known(before));
        }
        let accepted = self.enqueue(now, job)?;
        let (seq, job) = (accepted.seq, Box::new(accepted.job.clone()));
        if let Some(idempotency_key) = &extras.idempotency_key {
            insert(self.conn, seq, &job.new.account, idempotency_key)?;
        }
        if let Some(webhook) = &extras.webhook {
            webhooks::insert(self.conn, seq, webhook)?;
        }
        Ok(Submitted::New(job))
    }

    /// Keeps the key of a job that is erased at `now`, if it outlives the job. Returns the bytes
    /// that it counts.
    pub(crate) fn keep_key(&self, seq: i64, now: Timestamp) -> rusqlite::Result<i64> {
        let mut select = self.conn.prepare_cached(KEY_OF)?;
        let mut found = select.query([seq])?;
        let Some(found) = found.next()? else {
            return Ok(0);
        };
        let key: String = found.get("key")?;
        let submitted = Timestamp(found.get("created_at")?);
        let Some(until) = IdempotencyKey::outlives_job(&key, submitted, now) else {
            return Ok(0);
        };
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO past_submissions (account, key, fingerprint, id, until)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        insert.execute((
            row::account(found)?.as_str(),
            key,
            found.get::<_, [u8; 32]>("fingerprint")?,
            found.get::<_, [u8; 16]>("id")?,
            until.0,
        ))?;
        Ok(row::number(KEY_COST))
    }

    /// Erases up to `most` keys that outlived their job for long enough; returns their number.
    pub(crate) fn erase_keys(&mut self, now: Timestamp, most: u64) -> rusqlite::Result<u64> {
        let mut delete = self.conn.prepare_cached(ERASE_KEYS)?;
        let gone = delete.query_map((now.0, row::number(most)), row::account)?;
        let gone: Vec<Account> = gone.collect::<rusqlite::Result<_>>()?;
        for account in &gone {
            self.weigh(account, -row::number(KEY_COST));
        }
        Ok(gone.len() as u64)
    }
}

/// The key of a job. Most jobs have none, so it is looked up first.
const KEY_OF: &str = "
    SELECT submissions.account, key, fingerprint, id, created_at
    FROM submissions CROSS JOIN jobs USING (seq) WHERE submissions.seq = ?1";

/// Erases the keys that were due first.
pub(crate) const ERASE_KEYS: &str = "
    DELETE FROM past_submissions WHERE (account, key) IN (
        SELECT account, key FROM past_submissions WHERE until <= ?1 ORDER BY until LIMIT ?2)
    RETURNING account";

#[async_trait]
impl Submissions for SqliteQueue {
    async fn submit(
        &self,
        now: Timestamp,
        job: NewJob,
        extras: Extras,
    ) -> Result<Submitted, QueueError> {
        // A repeated submission is answered even if there is no room for another job.
        if extras.idempotency_key.is_none() {
            self.check_room(&job)?;
        }
        self.try_ask(move |group| group.submit(now, &job, &extras))
            .await
    }

    async fn submitted(
        &self,
        account: &Account,
        key: &str,
    ) -> Result<Option<(JobId, [u8; 32])>, QueueError> {
        self.check_open()?;
        let (account, key) = (account.clone(), key.to_owned());
        self.reader
            .read(move |conn| find(conn, &account, &key))
            .await
    }

    async fn search(&self, owner: Owner<'_>, filter: &JobFilter) -> Result<JobPage, QueueError> {
        self.check_open()?;
        let is_unfinished = filter.state.is_some_and(|state| !state.is_final());
        if is_unfinished && matches!(owner, Owner::Anyone) {
            return Ok(self.shared.live.lock().machine.search(filter));
        }
        let filter = filter.clone();
        let account = match owner {
            Owner::Account(account) => Some(account.clone()),
            Owner::Anyone => None,
        };
        self.lists
            .read(move |conn| search(conn, account.as_ref(), &filter))
            .await
    }

    async fn count_dead(&self, at_most: usize) -> Result<usize, QueueError> {
        self.check_open()?;
        let counted = self.lists.read(move |conn| {
            let mut select = conn.prepare_cached(concat!(
                "SELECT count(*) FROM (",
                dead!("1", "LIMIT ?4"),
                ")"
            ))?;
            let everybody: Option<&str> = None;
            let values = (
                i64::MAX,
                everybody,
                RETRY_KEY_PREFIX,
                row::number(at_most as u64),
            );
            select.query_row(values, |row| row.get::<_, i64>(0))
        });
        Ok(usize::try_from(counted.await?).unwrap_or_default())
    }
}

fn find(
    conn: &Connection,
    account: &Account,
    key: &str,
) -> rusqlite::Result<Option<(JobId, [u8; 32])>> {
    let mut select = conn.prepare_cached(
        "SELECT jobs.id, submissions.fingerprint FROM submissions JOIN jobs USING (seq)
         WHERE submissions.account = ?1 AND submissions.key = ?2
         UNION ALL
         SELECT id, fingerprint FROM past_submissions WHERE account = ?1 AND key = ?2
         LIMIT 1",
    )?;
    let found = select.query_row((account.as_str(), key), |row| {
        Ok((JobId(row.get(0)?), row.get(1)?))
    });
    found.optional()
}

fn insert(
    conn: &Connection,
    seq: u64,
    account: &Account,
    idempotency_key: &IdempotencyKey,
) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO submissions (seq, account, key, fingerprint) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let values = (
        row::number(seq),
        account.as_str(),
        &idempotency_key.key,
        idempotency_key.fingerprint,
    );
    insert.execute(values).map(drop)
}

/// Walks back in time along an index: one account's jobs by age, all jobs by number.
fn search(
    conn: &Connection,
    account: Option<&Account>,
    filter: &JobFilter,
) -> rusqlite::Result<JobPage> {
    let last = (i64::MAX, i64::MAX);
    let (at, seq) = filter
        .after
        .map_or(last, |after| (after.created_at.0, row::number(after.seq)));
    let since = filter.since.map_or(i64::MIN, |since| since.0);
    let until = filter.until.map_or(i64::MAX, |until| until.0);
    let (mut of_all, mut of_one, mut of_dead);
    let mut rows = match account {
        _ if filter.dead => {
            of_dead = conn.prepare_cached(dead!(row::columns!(), "ORDER BY seq DESC"))?;
            of_dead.query((seq, account.map(Account::as_str), RETRY_KEY_PREFIX))?
        }
        Some(account) => {
            of_one = conn.prepare_cached(concat!(
                "SELECT ",
                row::columns!(),
                " FROM jobs WHERE account = ?1 AND created_at >= ?2 AND created_at < ?3
                 AND (created_at, seq) < (?4, ?5) ORDER BY created_at DESC, seq DESC"
            ))?;
            of_one.query((account.as_str(), since, until, at, seq))?
        }
        None => {
            of_all = conn.prepare_cached(concat!(
                "SELECT ",
                row::columns!(),
                " FROM jobs WHERE seq < ?1 ORDER BY seq DESC"
            ))?;
            of_all.query([seq])?
        }
    };
    let mut page = JobPage::default();
    while let Some(found) = rows.next()? {
        let Record { seq, job, .. } = row::record(found)?;
        let at = Cursor {
            created_at: job.created_at,
            seq,
        };
        if !page.offer(filter, at, Cow::Owned(job)) {
            break;
        }
    }
    Ok(page)
}
