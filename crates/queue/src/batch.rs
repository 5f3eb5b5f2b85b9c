//! Uploaded files and batches of requests: their records, and the trait of a store that keeps them.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use proto::{Account, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Ceiling, Owner, QueueError};

/// Identifier of a file or a batch: letters, digits, `_` and `-`, chosen by the relay. Not a
/// secret.
pub type DocumentId = String;

/// Metadata of a file that was uploaded or written by a batch. Its content is stored separately, in
/// parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Identifier.
    pub id: DocumentId,
    /// Account that owns the file.
    pub account: Account,
    /// File name given by its owner.
    pub name: String,
    /// Purpose given by its owner, for example `batch`.
    pub purpose: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the upload.
    pub created_at: Timestamp,
    /// Time after which the file is erased.
    pub expires_at: Timestamp,
}

/// State of a batch; the last four are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// The input file is being checked.
    Validating,
    /// Its requests are being answered.
    InProgress,
    /// The answers are being written to files.
    Finalizing,
    /// Cancelled, but requests that already started are still running.
    Cancelling,
    /// Every line has a result.
    Completed,
    /// The input file is not a valid batch.
    Failed,
    /// The batch expired before every line had a result.
    Expired,
    /// Cancelled by its owner.
    Cancelled,
}

impl BatchState {
    /// Whether this state can never change again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Expired | Self::Cancelled
        )
    }
}

/// A batch: many requests in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Identifier.
    pub id: DocumentId,
    /// Account that owns the batch.
    pub account: Account,
    /// Name of the key that submitted the batch; shown to the worker's owner.
    pub who: String,
    /// Models and priority that the submitting key permits.
    #[serde(default)]
    pub ceiling: Ceiling,
    /// OpenAI route that answers each line.
    pub endpoint: String,
    /// Identifier of the file of requests.
    pub input: DocumentId,
    /// Current state.
    pub state: BatchState,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time after which no further line is answered.
    pub expires_at: Timestamp,
    /// Time at which each state was entered.
    pub times: Vec<(BatchState, Timestamp)>,
    /// Number of lines in the input file; 0 while unknown.
    pub total: u32,
    /// Numbers of answered and of failed lines; set once they are final.
    pub counts: Option<(u32, u32)>,
    /// Identifier of the file of answers.
    pub output: Option<DocumentId>,
    /// Identifier of the file of errors.
    pub errors: Option<DocumentId>,
    /// Line numbers and reasons why the input file is invalid or can no longer be read in full.
    pub refusals: Vec<(u32, String)>,
    /// Metadata given by the owner, as JSON.
    pub metadata: String,
}

impl BatchRecord {
    /// Enters `state` and records the time.
    pub fn enter(&mut self, now: Timestamp, state: BatchState) {
        self.state = state;
        self.times.push((state, now));
    }

    /// Returns the time at which this state was entered.
    #[must_use]
    pub fn entered(&self, state: BatchState) -> Option<Timestamp> {
        let time = self.times.iter().find(|(entered, _)| *entered == state);
        time.map(|(_, at)| *at)
    }
}

/// File of a batch that a result is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultFile {
    /// The file of answers.
    Output,
    /// The file of errors.
    Errors,
}

impl ResultFile {
    /// Both files.
    pub const ALL: [Self; 2] = [Self::Output, Self::Errors];

    /// Returns the name, a part of the file's id.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Errors => "errors",
        }
    }
}

/// Result of one line of a batch, as it will be written to a file.
#[derive(Clone, PartialEq, Eq)]
pub struct LineResult {
    /// Line number, starting at 1.
    pub n: u32,
    /// The file it goes to.
    pub file: ResultFile,
    /// The result: one line of JSON.
    pub line: Bytes,
}

impl fmt::Debug for LineResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineResult")
            .field("n", &self.n)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Storage of files and batches. A change is durable when its method returns `Ok`.
///
/// Every method fails with [`QueueError::Store`] if the store cannot be read or written, and with
/// [`QueueError::Unconfirmed`] if it is not known whether it was written.
#[async_trait]
pub trait Batches: fmt::Debug + Send + Sync {
    /// Stores part `n` of a file, counted from 0; replaces an earlier part with that number.
    async fn put_part(&self, id: &str, n: u32, part: Bytes) -> Result<(), QueueError>;

    /// Stores the metadata of a file whose parts are already stored; replaces metadata with the
    /// same id.
    async fn put_file(&self, file: FileRecord) -> Result<(), QueueError>;

    /// Returns the metadata of one file, if it exists and belongs to `owner`.
    async fn file(&self, owner: Owner<'_>, id: &str) -> Result<Option<FileRecord>, QueueError>;

    /// Returns the owner's files, newest first.
    async fn files(&self, owner: Owner<'_>) -> Result<Vec<FileRecord>, QueueError>;

    /// Returns part `n` of a file, or `None` after the last part.
    async fn part(&self, id: &str, n: u32) -> Result<Option<Bytes>, QueueError>;

    /// Removes a file, so that neither it nor its parts are found any more; also parts without
    /// metadata. [`Batches::expire_files`] erases the parts, which may take many transactions.
    async fn forget_file(&self, id: &str) -> Result<(), QueueError>;

    /// Removes a file and erases its parts; also parts without metadata. What an error leaves is
    /// erased by [`Batches::expire_files`].
    async fn erase_file(&self, id: &str) -> Result<(), QueueError>;

    /// Stores a batch; replaces a batch with the same id. The results of a final batch are not
    /// needed any more: [`Batches::expire_files`] erases them.
    async fn put_batch(&self, batch: BatchRecord) -> Result<(), QueueError>;

    /// Returns one batch, if it exists and belongs to `owner`.
    async fn batch(&self, owner: Owner<'_>, id: &str) -> Result<Option<BatchRecord>, QueueError>;

    /// Returns the owner's batches, newest first.
    async fn batches(&self, owner: Owner<'_>) -> Result<Vec<BatchRecord>, QueueError>;

    /// Stores the result of a line. A second result for the same line is ignored.
    async fn put_result(&self, batch: &str, result: LineResult) -> Result<(), QueueError>;

    /// Returns the numbers of all lines that have a result, and the file of each.
    async fn results(&self, batch: &str) -> Result<Vec<(u32, ResultFile)>, QueueError>;

    /// Returns the first result after line `after` that goes to `file`.
    async fn next_result(
        &self,
        batch: &str,
        after: u32,
        file: ResultFile,
    ) -> Result<Option<LineResult>, QueueError>;

    /// Erases expired and forgotten files, the results of final batches, and the final batches
    /// whose input file is erased now, or was erased before and which began
    /// [`crate::BATCH_RETENTION`] ago. Returns the expiry time of the next file or batch.
    async fn expire_files(&self, now: Timestamp) -> Result<Option<Timestamp>, QueueError>;
}
