//! Shared memory budgets. Bytes are released when the client has received the data.

use bytes::Bytes;
use proto::ErrorCode;

use crate::{
    error::ApiError,
    tally::{Part, Tally},
};

/// Bytes that each request may always take, even if the budget is used up.
const SMALL: usize = 1024 * 1024;
/// Divisor of the budget: one key may take at most a quarter of it.
const OF_HOLDER: usize = 4;

/// A limit on bytes in memory, shared by all clones.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    taken: Tally,
    max: usize,
    refusal: &'static str,
}

impl Budget {
    /// Creates a budget of `max` bytes; requests beyond it fail with the message `refusal`.
    pub(crate) fn new(max: usize, refusal: &'static str) -> Self {
        Self {
            taken: Tally::default(),
            max,
            refusal,
        }
    }

    /// Returns an empty share for one request of this holder.
    pub(crate) fn share(&self, holder: &str) -> BudgetShare {
        BudgetShare {
            part: self.taken.part(holder),
            max: self.max,
            refusal: self.refusal,
        }
    }

    /// Returns an empty share for the relay's own use. It is never refused, and takes nothing from
    /// the requests of clients: its callers have bounds of their own.
    pub(crate) fn own_share(&self) -> BudgetShare {
        BudgetShare {
            part: Tally::default().part(""),
            max: usize::MAX,
            refusal: self.refusal,
        }
    }
}

/// Bytes that one request holds; returned to the budget on drop.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    part: Part,
    max: usize,
    refusal: &'static str,
}

impl BudgetShare {
    pub(crate) const fn bytes(&self) -> usize {
        self.part.bytes()
    }

    /// Reserves `more` bytes.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`], if the share is over 1 MiB, and the budget or this holder's part of it
    /// is used up together with other shares. A share without others is never refused: trying
    /// again later could not help it.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), ApiError> {
        self.part.set(self.bytes() + more);
        let own = self.bytes();
        let is_over = |taken: usize, max: usize| taken > max && taken > own;
        let is_used_up = is_over(self.part.of_all(), self.max)
            || is_over(self.part.of_holder(), self.max / OF_HOLDER);
        if own > SMALL && is_used_up {
            return Err(ApiError::new(ErrorCode::Busy, self.refusal));
        }
        Ok(())
    }

    /// Ties the share to the finished bytes: they count until their last clone is dropped.
    pub(crate) fn held(mut self, whole: Bytes) -> Bytes {
        self.part.set(whole.len());
        Bytes::from_owner(CountedBytes {
            whole,
            _share: self,
        })
    }

    /// Releases some of the bytes.
    pub(crate) fn shrink(&mut self, less: usize) {
        self.part.set(self.bytes().saturating_sub(less));
    }

    /// Releases all bytes, to fill the share again.
    pub(crate) fn clear(&mut self) {
        self.part.set(0);
    }
}

struct CountedBytes {
    whole: Bytes,
    _share: BudgetShare,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_counts_until_its_last_copy_is_gone_and_what_is_small_is_never_refused() {
        let all = Budget::new(12 * SMALL, "too much");
        let mut first = all.share("a");
        first.grow(2 * SMALL).unwrap();
        let written = first.held(Bytes::from(vec![b'x'; 2 * SMALL]));
        let part = written.slice(..10);
        drop(written);
        let refused = all.share("a").grow(2 * SMALL).unwrap_err();
        assert_eq!(
            (refused.code, &*refused.message),
            (ErrorCode::Busy, "too much")
        );
        all.share("a").grow(SMALL).unwrap();
        let mut own = all.own_share();
        own.grow(99 * SMALL).unwrap();
        all.share("b").grow(3 * SMALL).unwrap();
        drop(own);
        drop(part);
        let mut last = all.share("a");
        last.grow(2 * SMALL).unwrap();
        last.clear();
        last.grow(3 * SMALL).unwrap();
        drop(last);
        assert_eq!(all.taken.bytes(), 0);
    }

    #[test]
    fn one_alone_is_taken_however_small_the_budget_and_a_second_is_not() {
        let all = Budget::new(SMALL, "too much");
        let mut alone = all.share("a");
        alone.grow(30 * SMALL).unwrap();
        for holder in ["a", "b"] {
            let mut second = all.share(holder);
            second.grow(SMALL).unwrap();
            assert!(second.grow(1).is_err(), "{holder}");
        }
        drop(alone);
        all.share("a").grow(30 * SMALL).unwrap();
    }

    #[test]
    fn no_holder_takes_what_is_everybodys() {
        let all = Budget::new(12 * SMALL, "too much");
        let mut greedy: Vec<BudgetShare> = (0..100).map(|_| all.share("a")).collect();
        let had = greedy
            .iter_mut()
            .filter_map(|share| share.grow(3 * SMALL).ok());
        assert_eq!(had.count(), 1);
        greedy.truncate(1);
        let mut others = ["b", "c", "d"].map(|holder| all.share(holder));
        for share in &mut others {
            share.grow(3 * SMALL).unwrap();
        }
        assert!(all.share("e").grow(2 * SMALL).is_err(), "there is no more");
    }
}
