use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use proto::{Account, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Ceiling, Owner, QueueError};

/// Names a file or a batch: made of letters, digits and `_-` by the relay, never secret.
pub type DocumentId = String;

/// A file that was uploaded or that a batch wrote. Its content is kept in parts beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Found by this.
    pub id: DocumentId,
    /// Whose it is.
    pub account: Account,
    /// What its owner calls it.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// How long it is.
    pub bytes: u64,
    /// When it came.
    pub created_at: Timestamp,
    /// Erased then.
    pub expires_at: Timestamp,
}

/// Where a batch is in its life; the last four are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Its file is looked at.
    Validating,
    /// Its lines are answered.
    InProgress,
    /// Its answers are written to files.
    Finalizing,
    /// No further line is begun.
    Cancelling,
    /// Every line has its answer or its error.
    Completed,
    /// Its file is no batch.
    Failed,
    /// Time was up before all lines were answered.
    Expired,
    /// Its owner withdrew it.
    Cancelled,
}

impl BatchState {
    /// Whether nothing about the batch can change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Expired | Self::Cancelled
        )
    }
}

/// Many requests in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Found by this.
    pub id: DocumentId,
    /// Whose it is.
    pub account: Account,
    /// The name of the key that asked, for the worker's owner.
    pub who: String,
    /// How far that key reaches.
    #[serde(default)]
    pub ceiling: Ceiling,
    /// Which of OpenAI's routes answers the lines.
    pub endpoint: String,
    /// The file of requests.
    pub input: DocumentId,
    /// Where it is in its life.
    pub state: BatchState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its lines stop being wanted.
    pub expires_at: Timestamp,
    /// When it came to which state.
    pub times: Vec<(BatchState, Timestamp)>,
    /// How many lines it has; 0 until that is known.
    pub total: u32,
    /// How many were answered and how many failed, once that is final.
    pub counts: Option<(u32, u32)>,
    /// The file of answers.
    pub output: Option<DocumentId>,
    /// The file of errors.
    pub errors: Option<DocumentId>,
    /// Why the file is no batch, or not whole any more: line and reason.
    pub refusals: Vec<(u32, String)>,
    /// What its owner noted, as JSON.
    pub metadata: String,
}

impl BatchRecord {
    /// Moves on.
    pub fn enter(&mut self, now: Timestamp, state: BatchState) {
        self.state = state;
        self.times.push((state, now));
    }

    /// When it came to this state.
    #[must_use]
    pub fn entered(&self, state: BatchState) -> Option<Timestamp> {
        let time = self.times.iter().find(|(entered, _)| *entered == state);
        time.map(|(_, at)| *at)
    }
}

/// What became of one line of a batch, as it will stand in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct LineResult {
    /// Which line, from 1.
    pub n: u32,
    /// Whether it belongs among the errors.
    pub is_error: bool,
    /// One line of JSON.
    pub line: Bytes,
}

impl fmt::Debug for LineResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineResult")
            .field("n", &self.n)
            .field("is_error", &self.is_error)
            .finish_non_exhaustive()
    }
}

/// Files and batches. Every change is on disk when it is answered.
#[async_trait]
pub trait Batches: fmt::Debug + Send + Sync {
    /// Keeps a part of a file, numbered from 0; replaces what had its place.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn put_part(&self, id: &str, n: u32, part: Bytes) -> Result<(), QueueError>;

    /// Keeps a file whose parts are there already; replaces one with the same id.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn put_file(&self, file: FileRecord) -> Result<(), QueueError>;

    /// One file.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn file(&self, owner: Owner<'_>, id: &str) -> Result<Option<FileRecord>, QueueError>;

    /// The owner's files, newest first.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn files(&self, owner: Owner<'_>) -> Result<Vec<FileRecord>, QueueError>;

    /// A part of a file; `None` after the last.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn part(&self, id: &str, n: u32) -> Result<Option<Bytes>, QueueError>;

    /// Erases a file and its parts, also one that never got its record.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn erase_file(&self, id: &str) -> Result<(), QueueError>;

    /// Keeps a batch; replaces one with the same id.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn put_batch(&self, batch: BatchRecord) -> Result<(), QueueError>;

    /// One batch.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn batch(&self, owner: Owner<'_>, id: &str) -> Result<Option<BatchRecord>, QueueError>;

    /// The owner's batches, newest first.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn batches(&self, owner: Owner<'_>) -> Result<Vec<BatchRecord>, QueueError>;

    /// Keeps what became of a line; a repeat changes nothing.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn put_result(&self, batch: &str, result: LineResult) -> Result<(), QueueError>;

    /// The lines that have a result, and whether it is an error.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn results(&self, batch: &str) -> Result<Vec<(u32, bool)>, QueueError>;

    /// The first result after line `after`, of one kind.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn next_result(
        &self,
        batch: &str,
        after: u32,
        is_error: bool,
    ) -> Result<Option<LineResult>, QueueError>;

    /// Erases a batch's results, which are in its files by then.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn erase_results(&self, batch: &str) -> Result<(), QueueError>;

    /// Erases the files whose time has passed, and the final batches whose input is among them, or
    /// was erased before and which began [`crate::BATCH_KEPT`] ago. Answers when the next one's time will have.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn expire_files(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError>;
}
