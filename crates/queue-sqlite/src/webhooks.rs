//! Webhooks in the queue file.

use async_trait::async_trait;
use proto::{JobId, SecretBytes, Timestamp, WebhookState};
use queue::{DeliveryOutcome, DueWebhooks, NewWebhook, QueueError, Webhook, Webhooks};
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::watch;

use crate::{SqliteQueue, row};

/// The columns that [`webhook`] reads; a job has a column `tries`, too.
macro_rules! columns {
    () => {
        "url, secret, hook_state, webhooks.tries AS hook_tries, next_at, hook_error"
    };
}

/// Writes the webhook of a job that was just accepted.
pub(crate) fn insert(conn: &Connection, seq: u64, new: &NewWebhook) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO webhooks (seq, url, secret, hook_state, tries, next_at, hook_error)
         VALUES (?1, ?2, ?3, 0, 0, 0, NULL)",
    )?;
    insert
        .execute((row::number(seq), &new.url, new.secret.expose()))
        .map(drop)
}

#[async_trait]
impl Webhooks for SqliteQueue {
    async fn webhook(&self, id: JobId) -> Result<Option<Webhook>, QueueError> {
        self.check_open()?;
        let seq = self.unfinished(id);
        self.reader.read(move |conn| find(conn, id, seq)).await
    }

    async fn due_webhooks(
        &self,
        now: Timestamp,
        limit: usize,
        of_each: usize,
    ) -> Result<DueWebhooks, QueueError> {
        self.check_open()?;
        self.lists
            .read(move |conn| {
                // One transaction, so that the three reads see the same state.
                let tx = conn.unchecked_transaction()?;
                due(&tx, now, limit, of_each)
            })
            .await
    }

    async fn webhook_tried(&self, id: JobId, told: DeliveryOutcome) -> Result<(), QueueError> {
        self.ask(move |group| {
            let Some(mut webhook) = find(group.conn, id, None)? else {
                return Ok(());
            };
            webhook.tried(told.clone());
            update(group.conn, id, &webhook)?;
            Ok(())
        })
        .await
    }

    fn endings(&self) -> watch::Receiver<u64> {
        self.endings.subscribe()
    }
}

/// Finds the webhook of a job; `seq` is its number if it is unfinished.
fn find(conn: &Connection, id: JobId, seq: Option<u64>) -> rusqlite::Result<Option<Webhook>> {
    let found = match seq {
        Some(seq) => conn
            .prepare_cached(concat!(
                "SELECT ",
                columns!(),
                " FROM webhooks WHERE seq = ?1"
            ))?
            .query_row([row::number(seq)], webhook),
        None => conn
            .prepare_cached(concat!(
                "SELECT ",
                columns!(),
                " FROM webhooks WHERE seq =
                 (SELECT seq FROM jobs WHERE id = ?1 AND finished_at IS NOT NULL)"
            ))?
            .query_row([id.0], webhook),
    };
    found.optional()
}

fn due(
    conn: &Connection,
    now: Timestamp,
    limit: usize,
    of_each: usize,
) -> rusqlite::Result<DueWebhooks> {
    let mut select = conn.prepare_cached(concat!(
        "SELECT ",
        row::columns!(),
        ", ",
        columns!(),
        " FROM (
             SELECT seq, row_number() OVER
                 (PARTITION BY account ORDER BY next_at, finished_at) AS place
             FROM webhooks JOIN jobs USING (seq)
             WHERE hook_state = 0 AND next_at <= ?1 AND finished_at IS NOT NULL)
         JOIN webhooks USING (seq) JOIN jobs USING (seq)
         WHERE place <= ?2 ORDER BY place, next_at, finished_at LIMIT ?3"
    ))?;
    let [limit, of_each] = [limit, of_each].map(|n| row::number(n as u64));
    let due = select.query_map((now.0, of_each, limit), |found| {
        Ok((row::record(found)?.job, webhook(found)?))
    })?;
    let due = due.collect::<rusqlite::Result<_>>()?;
    let mut select = conn.prepare_cached(
        "SELECT min(next_at) FROM webhooks WHERE hook_state = 0 AND next_at > ?1",
    )?;
    let next = select.query_row([now.0], |found| found.get::<_, Option<i64>>(0))?;
    let mut select = conn.prepare_cached("SELECT 1 FROM webhooks WHERE hook_state = 0")?;
    Ok(DueWebhooks {
        due,
        next: next.map(Timestamp),
        any: select.exists([])?,
    })
}

fn update(conn: &Connection, id: JobId, webhook: &Webhook) -> rusqlite::Result<()> {
    let mut update = conn.prepare_cached(
        "UPDATE webhooks SET hook_state = ?2, tries = ?3, next_at = ?4, hook_error = ?5
         WHERE seq = (SELECT seq FROM jobs WHERE id = ?1 AND finished_at IS NOT NULL)",
    )?;
    let values = (
        id.0,
        state_number(webhook.state),
        webhook.tries,
        webhook.next_at.0,
        &webhook.error,
    );
    update.execute(values).map(drop)
}

fn webhook(found: &Row<'_>) -> rusqlite::Result<Webhook> {
    use WebhookState::{Delivered, GivenUp, Waiting};
    let number: u8 = found.get("hook_state")?;
    let state = [Waiting, Delivered, GivenUp]
        .into_iter()
        .find(|state| state_number(*state) == number);
    Ok(Webhook {
        new: NewWebhook {
            url: found.get("url")?,
            secret: SecretBytes::new(found.get("secret")?),
        },
        state: state.ok_or_else(|| row::wrong("hook_state", "it is not from 0 to 2"))?,
        tries: found.get("hook_tries")?,
        next_at: Timestamp(found.get("next_at")?),
        error: found.get("hook_error")?,
    })
}

const fn state_number(state: WebhookState) -> u8 {
    match state {
        WebhookState::Waiting => 0,
        WebhookState::Delivered => 1,
        WebhookState::GivenUp => 2,
    }
}
