//! The limits on what waits, and on what is kept for each account.

use proto::Account;

use super::Machine;
use crate::{NewJob, QueueError};

impl Machine {
    /// Number of bytes kept for an account: requests and answers of all its jobs, including ended
    /// ones, and idempotency keys of erased ones.
    #[must_use]
    pub fn kept(&self, account: &Account) -> u64 {
        self.kept.get(account).copied().unwrap_or_default()
    }

    /// Adds `bytes`, which may be negative, to what is kept for an account. The request of a job is
    /// counted when the job is accepted; the store reports everything else, including what is on
    /// disk at the start.
    pub fn weigh(&mut self, account: &Account, bytes: i64) {
        let kept = self.kept(account).saturating_add_signed(bytes);
        match self.kept.get_mut(account) {
            Some(had) if kept > 0 => *had = kept,
            Some(_) => drop(self.kept.remove(account)),
            None => drop(self.kept.insert(account.clone(), kept)),
        }
    }

    /// Copies the per-account usage of an earlier machine.
    pub fn copy_usage_from(&mut self, earlier: &Self) {
        self.kept.clone_from(&earlier.kept);
    }

    /// Checks whether `bytes` more may be kept for an account.
    ///
    /// # Errors
    /// [`QueueError::AccountFull`].
    pub fn check_kept(&self, account: &Account, bytes: usize) -> Result<(), QueueError> {
        if self.kept(account).saturating_add(bytes as u64) > self.limits.account_kept_max {
            return Err(QueueError::AccountFull(
                "what is stored of the account (requests, answers, and idempotency keys of the \
                 last 48 hours) has reached its limit; try again when older ones are erased",
            ));
        }
        Ok(())
    }

    /// Checks whether one more job is within the limits.
    ///
    /// # Errors
    /// [`QueueError::Full`], [`QueueError::AccountFull`].
    pub fn check_room(&self, new: &NewJob) -> Result<(), QueueError> {
        let (limits, bytes) = (&self.limits, new.body.0.len());
        let own = self.table.queued_by(&new.account);
        if own.jobs >= limits.account_jobs_max {
            return Err(QueueError::AccountFull(
                "the account has too many waiting jobs; try again when some have ended",
            ));
        }
        if own.bytes + bytes > limits.account_bytes_max {
            return Err(QueueError::AccountFull(
                "the account's waiting requests are too large in total; try again when some have \
                 ended",
            ));
        }
        self.check_kept(&new.account, bytes)?;
        let all = self.table.counts();
        if all.queued >= limits.jobs_max {
            return Err(QueueError::Full(
                "too many jobs are waiting; try again when some have ended",
            ));
        }
        if all.queued_bytes + bytes > limits.bytes_max {
            return Err(QueueError::Full(
                "the waiting requests are too large in total; try again when some have ended",
            ));
        }
        Ok(())
    }
}

/// Converts a number of bytes for a signed sum.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX / 2)
}
