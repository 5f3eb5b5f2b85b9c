//! Results for the lines that a broken batch leaves unanswered.

use proto::ErrorCode;
use queue::{LineResult, ResultFile};

use super::{Run, answer, lines::Lines, passes};
use crate::error::ApiError;

impl Run {
    /// Stores a result for every line that has none: that of its job if this has ended, else an
    /// error. Clients find each `custom_id` in one of the two files.
    pub(super) async fn close_lines(&self) -> Result<(), ApiError> {
        let done = self.done().await?;
        let mut lines = Lines::new(&self.relay, &self.batch.input);
        let mut seen = 0;
        loop {
            match lines.next().await {
                Ok(Some((n, _))) if done.contains(&n) => seen += 1,
                Ok(Some((n, line))) => {
                    seen += 1;
                    if answer::has_ended(&self.relay, &self.batch, n).await? {
                        self.answer(n, line).await?;
                    } else {
                        let custom_id = answer::custom_id(&line).unwrap_or_else(|| n.to_string());
                        self.close_line(n, &custom_id).await?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if passes(&error) => return Err(error),
                Err(_) => break,
            }
        }
        // The rest of the input cannot be read; its lines are named by their numbers.
        let left = self.batch.total.saturating_sub(seen);
        for n in (lines.at()..).take(usize::try_from(left).unwrap_or(usize::MAX)) {
            if !done.contains(&n) {
                self.close_line(n, &n.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Cancels the jobs of all lines that can be read and have no result.
    pub(super) async fn withdraw_lines(&self) -> Result<(), ApiError> {
        let done = self.done().await?;
        let mut lines = Lines::new(&self.relay, &self.batch.input);
        loop {
            match lines.next().await {
                Ok(Some((n, _))) if done.contains(&n) => {}
                Ok(Some((n, _))) => answer::withdraw(&self.relay, &self.batch, n).await?,
                Err(error) if passes(&error) => return Err(error),
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }

    /// Cancels the job of a line, and stores an error as its result.
    async fn close_line(&self, n: u32, custom_id: &str) -> Result<(), ApiError> {
        answer::withdraw(&self.relay, &self.batch, n).await?;
        let message = "the batch failed before this request was answered";
        let error = ApiError::new(ErrorCode::Internal, message);
        let result = LineResult {
            n,
            file: ResultFile::Errors,
            line: answer::failed(&self.batch.id, custom_id, n, &error).line,
        };
        Ok(self.relay.store.put_result(&self.batch.id, result).await?)
    }
}
