//! Batches: each line of an input file becomes a job of low priority, and the results are written
//! to files.
//!
//! One task runs a batch. It stores the result of a line before it starts another line in its
//! place, and the idempotency key of a line's job is derived from the line. A relay that stops at
//! any point therefore continues after its restart, and no line is answered twice. The queue holds
//! at most [`AT_ONCE`] lines of a batch.

mod answer;
mod lines;
mod parts;
mod unanswered;

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use parking_lot::{Mutex, MutexGuard};
use proto::ErrorCode;
use queue::{BatchRecord, BatchState, FileRecord, LineResult, Owner, ResultFile};
use tokio::{
    sync::{Notify, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use self::lines::Lines;
pub(crate) use self::{answer::ENDPOINTS, parts::Parts};
use crate::{Relay, error::ApiError};

/// Maximum number of lines of a batch, and of its lines in the queue at once.
pub(crate) const LINES_MAX: u32 = 10_000;
const AT_ONCE: usize = 8;
/// Maximum number of answers, of at most 64 MiB each, that are in memory at once for all batches.
const COLLECTED_MAX: usize = 4;
/// Maximum number of unfinished batches of an account.
pub(crate) const BATCHES_MAX: usize = 8;
/// Retention of a file, from its upload and again from the start of a batch that reads it.
pub(crate) const FILE_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The only completion window, as in OpenAI's API.
pub(crate) const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum number of errors reported for an input file.
const REFUSALS_MAX: usize = 20;
/// Wait after a failure of the store before the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Longest wait before files are erased, after the store failed again and again.
const AFTER_FAILURES: Duration = Duration::from_secs(60);

/// The batches that run in this process, and the files that are kept.
#[derive(Debug)]
pub(crate) struct Running {
    batches: Mutex<HashMap<String, CancellationToken>>,
    /// Held while a batch, or a file for one, is read in order to change it.
    pub(crate) alone: tokio::sync::Mutex<()>,
    /// Notified when there is something to erase: now, or at the expiry of a new file.
    pub(crate) files: Notify,
    /// Bounds the answers of lines that are in memory and not stored yet.
    collecting: Semaphore,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            batches: Mutex::default(),
            alone: tokio::sync::Mutex::default(),
            files: Notify::new(),
            collecting: Semaphore::new(COLLECTED_MAX),
        }
    }
}

impl Running {
    /// Asks a running batch to start no further lines.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(wish) = self.lock().get(id) {
            wish.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.batches.lock()
    }
}

fn file_of(batch: &BatchRecord, file: ResultFile) -> String {
    format!("file-{}-{}", batch.id, file.name())
}

/// Whether a batch that has not ended reads this file, or writes it.
pub(crate) fn uses(batch: &BatchRecord, file: &str) -> bool {
    let writes = || {
        let mut files = ResultFile::ALL.into_iter();
        files.any(|written| file_of(batch, written) == file)
    };
    !batch.state.is_final() && (batch.input == file || writes())
}

/// Resumes the batches from before the start.
pub(crate) async fn resume(relay: Relay) {
    match relay.store.batches(Owner::Anyone).await {
        Ok(batches) => {
            let unfinished = batches.into_iter().filter(|batch| !batch.state.is_final());
            unfinished.for_each(|batch| start(&relay, batch));
        }
        Err(error) => tracing::error!(
            error = proto::causes(&error),
            "cannot resume batches from before the restart"
        ),
    }
}

/// Erases expired and deleted files and the results of final batches; sleeps until the next expiry.
pub(crate) async fn expire_files(relay: Relay) {
    let mut pause = AFTER_FAILURE;
    loop {
        let now = relay.now();
        let expired = relay.store.expire_files(now);
        let wait = match relay.stop.run_until_cancelled(expired).await {
            None => return,
            Some(Ok(next)) => {
                pause = AFTER_FAILURE;
                next.map(|next| next.since(now))
            }
            Some(Err(error)) => {
                tracing::error!(error = proto::causes(&error), retry_in = ?pause, "cannot erase files");
                let wait = Some(pause);
                pause = (2 * pause).min(AFTER_FAILURES);
                wait
            }
        };
        let rest = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = relay.stop.cancelled() => return,
            () = relay.batches.files.notified() => {}
            () = rest => {}
        }
    }
}

/// Runs a batch until it is final or the relay shuts down.
pub(crate) fn start(relay: &Relay, batch: BatchRecord) {
    let wish = CancellationToken::new();
    // A cancellation that came during validation may be recorded before a later state.
    if batch.entered(BatchState::Cancelling).is_some() {
        wish.cancel();
    }
    let id = batch.id.clone();
    relay.batches.lock().insert(id.clone(), wish.clone());
    let relay = relay.clone();
    relay.tasks.clone().spawn(async move {
        let mut run = Run {
            relay: relay.clone(),
            batch,
            wish,
        };
        while !relay.drain.is_cancelled() && !run.batch.state.is_final() {
            let gone = AssertUnwindSafe(run.go_on()).catch_unwind().await;
            let went = match gone.unwrap_or_else(|_| Err(ApiError::internal())) {
                Err(error) if !passes(&error) => run.fail(error).await,
                went => went,
            };
            if let Err(error) = went
                && !relay.drain.is_cancelled()
            {
                tracing::warn!(batch = id, %error, "batch paused; retrying in 1 s");
                relay.drain.run_until_cancelled(sleep(AFTER_FAILURE)).await;
            }
        }
        relay.batches.lock().remove(&id);
    });
}

/// Whether the error is temporary: the batch continues once the store works again, or after a
/// restart.
const fn passes(error: &ApiError) -> bool {
    matches!(
        error.code,
        ErrorCode::StoreUnavailable
            | ErrorCode::OutcomeUnknown
            | ErrorCode::DiskFull
            | ErrorCode::Draining
    )
}

/// Counts the answers and the errors among the results of a batch.
pub(crate) fn counted(results: &[(u32, ResultFile)]) -> (u32, u32) {
    let count = |kind: ResultFile| {
        let of_kind = results.iter().filter(|(_, file)| *file == kind);
        u32::try_from(of_kind.count()).unwrap_or(u32::MAX)
    };
    (count(ResultFile::Output), count(ResultFile::Errors))
}

struct Run {
    relay: Relay,
    batch: BatchRecord,
    wish: CancellationToken,
}

impl Run {
    /// Takes the batch from its current state to the next.
    async fn go_on(&mut self) -> Result<(), ApiError> {
        match self.batch.state {
            BatchState::Validating => self.validate().await,
            BatchState::InProgress | BatchState::Cancelling => self.answer_all().await,
            BatchState::Finalizing => self.write_files().await,
            BatchState::Completed
            | BatchState::Failed
            | BatchState::Expired
            | BatchState::Cancelled => Ok(()),
        }
    }

    /// Checks every line before the first is started.
    async fn validate(&mut self) -> Result<(), ApiError> {
        let mut batch = self.batch.clone();
        let (mut names, mut refusals) = (HashSet::new(), Vec::new());
        let mut lines = Lines::new(&self.relay, &batch.input);
        batch.total = 0;
        loop {
            let (n, line) = match lines.next().await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) if passes(&error) => return Err(error),
                Err(error) => {
                    refusals.push((lines.at(), error.message));
                    break;
                }
            };
            batch.total += 1;
            let read = answer::Line::read(&line, &batch.endpoint);
            let wrong = match read {
                Ok(read) => (!names.insert(read.custom_id))
                    .then(|| "an earlier line has the same custom_id".to_owned()),
                Err(wrong) => Some(wrong),
            };
            refusals.extend(wrong.map(|wrong| (n, wrong)));
            if batch.total > LINES_MAX {
                refusals.push((n, format!("a batch has at most {LINES_MAX} lines")));
            }
            if batch.total > LINES_MAX || refusals.len() >= REFUSALS_MAX {
                break;
            }
        }
        if batch.total == 0 && refusals.is_empty() {
            refusals.push((1, "the file has no lines".into()));
        }
        let valid = refusals.is_empty();
        batch.refusals = refusals;
        batch.enter(
            self.relay.now(),
            if valid {
                BatchState::InProgress
            } else {
                BatchState::Failed
            },
        );
        self.keep(batch).await
    }

    /// Answers the lines that have no result yet, at most [`AT_ONCE`] at a time.
    async fn answer_all(&mut self) -> Result<(), ApiError> {
        let done = self.done().await?;
        let mut lines = Lines::new(&self.relay, &self.batch.input);
        let mut running = FuturesUnordered::new();
        let mut more = true;
        let mut broken = None;
        loop {
            while more && running.len() < AT_ONCE {
                match lines.next().await {
                    Ok(Some((n, _))) if done.contains(&n) => {}
                    // A line that was started before a restart still has a job to cancel.
                    Ok(Some((n, _))) if self.wish.is_cancelled() && !self.is_begun(n).await? => {}
                    Ok(Some((n, line))) => running.push(self.answer(n, line)),
                    Ok(None) => more = false,
                    Err(error) if passes(&error) => return Err(error),
                    // Results so far are kept.
                    Err(error) => {
                        broken = Some((lines.at(), error.message));
                        more = false;
                    }
                }
            }
            match running.next().await {
                Some(answered) => answered?,
                None => break,
            }
        }
        drop(running);
        let mut batch = self.batch.clone();
        batch.refusals.extend(broken);
        batch.enter(self.relay.now(), BatchState::Finalizing);
        self.keep(batch).await
    }

    /// Returns the lines that have a result.
    async fn done(&self) -> Result<HashSet<u32>, ApiError> {
        let results = self.relay.store.results(&self.batch.id).await?;
        Ok(results.into_iter().map(|(n, _)| n).collect())
    }

    async fn is_begun(&self, n: u32) -> Result<bool, ApiError> {
        let key = answer::key(&self.batch, n);
        let known = self
            .relay
            .store
            .submitted(&self.batch.account, &key)
            .await?;
        Ok(known.is_some())
    }

    /// Answers one line and stores its result.
    async fn answer(&self, n: u32, line: Bytes) -> Result<(), ApiError> {
        let answered = answer::answer(&self.relay, &self.batch, &self.wish, n, &line).await?;
        let result = LineResult {
            n,
            file: answered.file,
            line: answered.line.clone(),
        };
        let stored = self.relay.store.put_result(&self.batch.id, result).await;
        Ok(stored?)
    }

    /// Writes the results to files. Starts over if it was interrupted.
    async fn write_files(&mut self) -> Result<(), ApiError> {
        let mut batch = self.batch.clone();
        if !batch.refusals.is_empty() {
            self.close_lines().await?;
        }
        let results = self.relay.store.results(&batch.id).await?;
        let (good, bad) = counted(&results);
        batch.counts = Some((good, bad));
        if good > 0 {
            batch.output = Some(self.write_file(ResultFile::Output).await?);
        }
        if bad > 0 {
            batch.errors = Some(self.write_file(ResultFile::Errors).await?);
        }
        let now = self.relay.now();
        batch.enter(
            now,
            if batch.entered(BatchState::Cancelling).is_some() {
                BatchState::Cancelled
            } else if !batch.refusals.is_empty() {
                BatchState::Failed
            } else if bad > 0 && now >= batch.expires_at {
                BatchState::Expired
            } else {
                BatchState::Completed
            },
        );
        self.keep(batch).await
    }

    /// Ends the batch after an error that is not temporary. Its results so far are written to its
    /// files, unless that failed twice.
    async fn fail(&mut self, error: ApiError) -> Result<(), ApiError> {
        tracing::error!(batch = self.batch.id, %error, "batch failed");
        let results = self.relay.store.results(&self.batch.id).await?;
        let mut batch = self.batch.clone();
        batch.refusals.push((1, error.message));
        batch.counts = Some(counted(&results));
        let state = BatchState::Finalizing;
        let tries = batch.times.iter().filter(|(entered, _)| *entered == state);
        let has_jobs = batch.state != BatchState::Validating;
        let is_over = !has_jobs || tries.count() > 1;
        if is_over && has_jobs {
            // Nobody will read the answers of the lines that are left. A final batch is not taken
            // up again, so this comes before it is one.
            let withdrawn = AssertUnwindSafe(self.withdraw_lines()).catch_unwind();
            // What breaks down here would do so again: the batch ends without it.
            withdrawn.await.unwrap_or(Ok(()))?;
        }
        let next = if is_over { BatchState::Failed } else { state };
        batch.enter(self.relay.now(), next);
        self.keep(batch).await
    }

    async fn write_file(&self, file: ResultFile) -> Result<String, ApiError> {
        let Run { relay, batch, .. } = self;
        let id = file_of(batch, file);
        relay.store.erase_file(&id).await?;
        let mut parts = Parts::new(relay, &id);
        let mut after = 0;
        while let Some(result) = relay.store.next_result(&batch.id, after, file).await? {
            after = result.n;
            parts.add(&result.line).await?;
            parts.add(b"\n").await?;
        }
        let record = FileRecord {
            id: id.clone(),
            account: batch.account.clone(),
            name: format!("{}_{}.jsonl", batch.id, file.name()),
            purpose: "batch_output".into(),
            bytes: 0,
            created_at: relay.now(),
            expires_at: relay.now() + FILE_KEPT,
        };
        parts.finish(record).await?;
        Ok(id)
    }

    /// Stores the next state, together with a cancellation that a route may have stored meanwhile.
    async fn keep(&mut self, mut batch: BatchRecord) -> Result<(), ApiError> {
        let store = &self.relay.store;
        let _alone = self.relay.batches.alone.lock().await;
        let stored = store.batch(Owner::Anyone, &batch.id).await?;
        let wish = stored.and_then(|stored| stored.entered(BatchState::Cancelling));
        if let Some(wish) = wish
            && batch.entered(BatchState::Cancelling).is_none()
        {
            let wish = (BatchState::Cancelling, wish);
            batch
                .times
                .insert(batch.times.len().saturating_sub(1), wish);
            if batch.state == BatchState::Completed {
                batch.state = BatchState::Cancelled;
                batch.times.pop();
                batch.times.push((BatchState::Cancelled, self.relay.now()));
            }
        }
        store.put_batch(batch.clone()).await?;
        tracing::info!(batch = batch.id, state = ?batch.state, "batch state changed");
        if batch.state.is_final() {
            // The results are in the files now, and are erased.
            self.relay.batches.files.notify_one();
        }
        self.batch = batch;
        Ok(())
    }
}
