//! How much memory something may take of everybody, until whoever it is for has it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use proto::ErrorCode;

use crate::error::ApiError;

/// So many bytes are kept for one, whatever others take.
const SMALL: usize = 1024 * 1024;

/// The bytes that all together may take. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    taken: Arc<AtomicUsize>,
    max: usize,
    refusal: &'static str,
}

impl Budget {
    /// So many bytes; whoever wants more is told so.
    pub(crate) fn new(max: usize, refusal: &'static str) -> Self {
        Self {
            taken: Arc::default(),
            max,
            refusal,
        }
    }

    /// The share of one, of nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            own: 0,
            all: self.clone(),
        }
    }

    /// The same for the relay's own use, which is counted and not refused.
    pub(crate) fn own_share(&self) -> Share {
        let mut share = self.share();
        share.all.max = usize::MAX;
        share
    }
}

/// The bytes of one; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    own: usize,
    all: Budget,
}

impl Share {
    pub(crate) const fn bytes(&self) -> usize {
        self.own
    }

    /// Takes room for more.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`], if others took it: theirs comes or goes too slowly.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), ApiError> {
        self.own += more;
        let total = self.all.taken.fetch_add(more, Ordering::Relaxed) + more;
        if self.own > SMALL && total > self.all.max {
            return Err(ApiError::new(ErrorCode::Busy, self.all.refusal));
        }
        Ok(())
    }

    /// What was made of them: it counts until its last copy is gone.
    pub(crate) fn held(mut self, whole: Bytes) -> Bytes {
        self.count(whole.len());
        Bytes::from_owner(Held {
            whole,
            _share: self,
        })
    }

    /// It begins anew.
    pub(crate) fn clear(&mut self) {
        self.count(0);
    }

    fn count(&mut self, bytes: usize) {
        self.all.taken.fetch_add(bytes, Ordering::Relaxed);
        self.all.taken.fetch_sub(self.own, Ordering::Relaxed);
        self.own = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.count(0);
    }
}

struct Held {
    whole: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_counts_until_its_last_copy_is_gone_and_what_is_small_is_never_refused() {
        let all = Budget::new(3 * SMALL, "too much");
        let mut first = all.share();
        first.grow(2 * SMALL).unwrap();
        let written = first.held(Bytes::from(vec![b'x'; 2 * SMALL]));
        let part = written.slice(..10);
        drop(written);
        let refused = all.share().grow(2 * SMALL).unwrap_err();
        assert_eq!(
            (refused.code, &*refused.message),
            (ErrorCode::Busy, "too much")
        );
        all.share().grow(SMALL).unwrap();
        all.own_share().grow(2 * SMALL).unwrap();
        drop(part);
        let mut last = all.share();
        last.grow(2 * SMALL).unwrap();
        last.clear();
        last.grow(3 * SMALL).unwrap();
        drop(last);
        assert_eq!(all.taken.load(Ordering::Relaxed), 0);
    }
}
