//! Files of earlier layouts are upgraded, and keep what is in them.

use std::{fs, path::Path, time::Duration};

use proto::{Dialect, ErrorCode};
use queue::{
    Batches as _, Extras, Keys as _, LineResult, NewJob, NewQuery, NewWebhook, Owner, Queries as _,
    Queue, QueueLimits, ResultFile, SessionId, Sessions as _, Submissions as _, Users as _,
    Webhooks as _,
    conformance::{
        batches,
        sample::{T0, account, after, failed, found, id, job, job_of, lines, next, page, texts},
        sessions,
        submissions::named,
        users,
    },
};

use super::{
    files::{key, reason},
    run,
};
use crate::{SqliteKeys, SqliteQueue, schema};

/// Makes a file of the first layout, with a job.
fn first_layout(path: &Path) -> rusqlite::Connection {
    let first = rusqlite::Connection::open(path).unwrap();
    first
        .execute_batch(include_str!("first_layout.sql"))
        .unwrap();
    first
}

#[test]
fn a_file_of_the_first_layout_keeps_its_jobs_and_a_copy_stays_beside_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        drop(first_layout(&path));

        let queue = SqliteQueue::open(&path, T0).unwrap();
        assert_eq!(next(&queue, T0).await.unwrap().job, job(1));
        queue.enqueue(T0, job(2)).await.unwrap();
        queue.close().await.unwrap();

        let copy = rusqlite::Connection::open(folder.path().join("queue.db.layout-1")).unwrap();
        let kept: (i64, i64) = copy
            .query_row("SELECT count(*), max(state) FROM jobs", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(kept, (1, 0), "as it was");
        drop(SqliteQueue::open(&path, T0).unwrap());
    });
}

/// Makes a file with a key whose job is erased.
async fn with_a_past_job(path: &Path) {
    let at_once = QueueLimits {
        kept: Duration::ZERO,
        ..QueueLimits::default()
    };
    let queue = SqliteQueue::open_limited(path, T0, at_once).unwrap();
    let past = job_of(9, "b");
    queue.submit(T0, past, named("past", 1)).await.unwrap();
    queue.cancel(T0, Owner::Anyone, id(9)).await.unwrap();
    queue.reap(T0).await.unwrap();
    queue.close().await.unwrap();
}

/// Writes a row to every other table.
async fn filled(queue: &SqliteQueue) {
    queue.create_key(key()).await.unwrap();
    let user = queue.create_user(users::user("eva")).await.unwrap();
    queue.token_key([7; 32]).await.unwrap();
    queue
        .open_session(T0, sessions::session(1, user))
        .await
        .unwrap();
    let webhook = NewWebhook {
        url: "http://localhost/".into(),
        secret: proto::SecretBytes::new(vec![2; 32]),
    };
    let extras = Extras {
        webhook: Some(webhook),
        ..named("mine", 1)
    };
    queue.submit(T0, job(1), extras).await.unwrap();
    let lease = next(queue, T0).await.unwrap();
    queue
        .append(T0, lease.token, 1, lines(&["x", "y"]))
        .await
        .unwrap();
    queue
        .complete(T0, lease.token, 2, failed(ErrorCode::Internal))
        .await
        .unwrap();
    let query = NewQuery {
        job: NewJob {
            dialect: Dialect::Queries,
            ..job(2)
        },
        project: 3,
        user: Some(user),
    };
    let query = queue.create_query(T0, query).await.unwrap();
    queue.log_query(T0, query, "entry".into(), 9).await.unwrap();
    queue.draft_query(query, "draft".into()).await.unwrap();
    queue.enqueue(T0, job(3)).await.unwrap();
    queue.put_part("f1", 0, "abc".into()).await.unwrap();
    queue.put_file(batches::file("f1", "a", 60)).await.unwrap();
    queue.put_batch(batches::batch("b1", "a")).await.unwrap();
    let result = LineResult {
        n: 1,
        file: ResultFile::Output,
        line: "x".into(),
    };
    queue.put_result("b1", result).await.unwrap();
    queue.put_part("f2", 0, "abc".into()).await.unwrap();
    queue.forget_file("f2").await.unwrap();
}

/// Copies the rows to a file of an earlier layout, as far as it has columns for them.
fn written_in_layout(layout: usize, from: &Path, to: &Path) {
    let old = rusqlite::Connection::open(to).unwrap();
    for step in &schema::STEPS[..layout] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", layout as i64)
        .unwrap();
    old.execute("ATTACH ?1 AS now", [from.to_str().unwrap()])
        .unwrap();
    let names = |sql: &str| -> Vec<String> {
        let mut select = old.prepare(sql).unwrap();
        let names = select.query_map([], |row| row.get("name")).unwrap();
        names.map(Result::unwrap).collect()
    };
    let tables = "SELECT name FROM main.sqlite_schema WHERE type = 'table'
        AND name NOT LIKE 'sqlite_%'";
    for table in names(tables) {
        let columns = names(&format!(
            "SELECT name FROM pragma_table_info('{table}', 'main')"
        ));
        let columns = columns.join(", ");
        let copied = old
            .execute(
                &format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}"),
                [],
            )
            .unwrap();
        assert!(copied > 0, "{table} is empty");
    }
}

#[test]
fn a_file_of_any_layout_keeps_what_is_in_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("now.db");
        with_a_past_job(&path).await;
        let now = SqliteQueue::open(&path, T0).unwrap();
        filled(&now).await;
        now.close().await.unwrap();
        drop(now);
        let now = SqliteQueue::open(&path, T0).unwrap();
        let layouts = schema::STEPS.len();
        for layout in 1..layouts {
            let path = folder.path().join(format!("layout-{layout}.db"));
            written_in_layout(layout, &folder.path().join("now.db"), &path);
            let then = SqliteQueue::open(&path, T0).unwrap();
            assert_eq!(
                then.list(Owner::Anyone, 9).await.unwrap(),
                now.list(Owner::Anyone, 9).await.unwrap(),
                "{layout}"
            );
            for n in 1..=3 {
                let job = found(&now, id(n)).await;
                assert_eq!(found(&then, id(n)).await, job, "{layout}");
            }
            let lines = texts(&page(&then, id(1), after(1, 0)).await);
            assert_eq!(lines, ["x", "y"], "{layout}");
            assert_eq!(
                then.list_keys().await.unwrap(),
                now.list_keys().await.unwrap()
            );
            let named = then.submitted(&job(1).account, "mine").await.unwrap();
            assert_eq!(named.is_some(), layout >= 2, "{layout}");
            let past = then.submitted(&account("b"), "past").await.unwrap();
            assert_eq!(past.is_some(), layout >= 16, "{layout}");
            let webhook = then.webhook(id(1)).await.unwrap();
            assert_eq!(webhook.is_some(), layout >= 3, "{layout}");
            if layout >= 4 {
                assert_eq!(
                    then.list_users().await.unwrap(),
                    now.list_users().await.unwrap()
                );
                assert_eq!(then.token_key([9; 32]).await.unwrap(), [7; 32]);
            }
            if layout >= 5 {
                let files = now.files(Owner::Anyone).await.unwrap();
                assert_eq!(then.files(Owner::Anyone).await.unwrap(), files);
                let batches = now.batches(Owner::Anyone).await.unwrap();
                assert_eq!(then.batches(Owner::Anyone).await.unwrap(), batches);
                assert_eq!(then.results("b1").await.unwrap().len(), 1);
            }
            if layout >= 6 {
                let account = job(1).account;
                let owner = Owner::Account(&account);
                let queries = now.list_queries(owner, &[], 0, 9).await.unwrap();
                assert_eq!(queries.0, 1);
                assert_eq!(then.list_queries(owner, &[], 0, 9).await.unwrap(), queries);
                let kept = |queue: &SqliteQueue| queue.shared.live.lock().machine.kept(&account);
                assert_eq!(kept(&then), kept(&now), "{layout}");
            }
            if layout >= 11 {
                let session = SessionId([1; 16]);
                assert!(then.find_session(session).await.unwrap().is_some());
            }
            then.close().await.unwrap();
        }
    });
}

#[test]
fn a_file_in_use_by_an_older_relay_is_not_changed_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    drop(first_layout(&path));
    let held = crate::files::Lock::take(&path).unwrap();
    let reason = reason(&SqliteKeys::open(&path).unwrap_err());
    assert!(reason.contains("in use by another relay"), "{reason}");
    drop(held);
    SqliteKeys::open(&path).unwrap();
}

#[test]
fn an_upgrade_that_breaks_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let first = first_layout(&path);
    // The next layout creates this table itself.
    first.execute_batch("CREATE TABLE submissions (x)").unwrap();
    drop(first);
    SqliteQueue::open(&path, T0).unwrap_err();
    let after = rusqlite::Connection::open(&path).unwrap();
    let layout: i64 = after
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(layout, 1);
    let indexed = "SELECT count(*) FROM sqlite_schema WHERE sql LIKE '%jobs (account)%'";
    let indexed: i64 = after.query_row(indexed, [], |row| row.get(0)).unwrap();
    assert_eq!(indexed, 1);
}

/// Who went back to the older version still has the file as it was before the upgrade.
#[test]
fn an_upgrade_that_cannot_make_its_copy_leaves_an_older_copy_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let first = first_layout(&path);
    let jobs = "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'";
    let page: u32 = first.query_row(jobs, [], |row| row.get(0)).unwrap();
    let size: u32 = first
        .pragma_query_value(None, "page_size", |row| row.get(0))
        .unwrap();
    drop(first);
    let mut damaged = fs::read(&path).unwrap();
    let (page, size) = (page as usize, size as usize);
    damaged[(page - 1) * size..page * size].fill(0);
    fs::write(&path, damaged).unwrap();
    let older = folder.path().join("queue.db.layout-1");
    fs::write(&older, "the file before").unwrap();

    let refused = reason(&SqliteQueue::open(&path, T0).unwrap_err());
    assert!(refused.contains("damaged"), "{refused}");
    assert_eq!(fs::read(&older).unwrap(), b"the file before");
}
