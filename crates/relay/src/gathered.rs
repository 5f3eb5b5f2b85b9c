//! How much the answers take that are put together in memory, until their readers have them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use proto::ErrorCode;

use crate::error::ApiError;

/// An answer of so many bytes is put together whatever others take.
const SMALL: usize = 1024 * 1024;

/// The bytes of all of them. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered(Arc<AtomicUsize>);

impl Gathered {
    /// The share of one answer, while all of them may take `max` bytes.
    pub(crate) const fn share(self, max: usize) -> Share {
        Share {
            own: 0,
            max,
            all: self,
        }
    }
}

/// The bytes of one answer; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    own: usize,
    max: usize,
    all: Gathered,
}

impl Share {
    pub(crate) const fn bytes(&self) -> usize {
        self.own
    }

    /// Takes room for more of the answer.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`], if other answers took it: whoever reads them does so too slowly.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), ApiError> {
        self.own += more;
        let total = self.all.0.fetch_add(more, Ordering::Relaxed) + more;
        if self.own > SMALL && total > self.max {
            let message = "too many long answers are being fetched in one piece; \
                           try again soon, or ask for a stream";
            return Err(ApiError::new(ErrorCode::Busy, message));
        }
        Ok(())
    }

    /// The answer as it is sent: it counts until the last of it was written, or its reader left.
    pub(crate) fn held(mut self, answer: Bytes) -> Bytes {
        self.count(answer.len());
        Bytes::from_owner(Held {
            answer,
            _share: self,
        })
    }

    /// The answer begins anew.
    pub(crate) fn clear(&mut self) {
        self.count(0);
    }

    fn count(&mut self, bytes: usize) {
        self.all.0.fetch_add(bytes, Ordering::Relaxed);
        self.all.0.fetch_sub(self.own, Ordering::Relaxed);
        self.own = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.count(0);
    }
}

struct Held {
    answer: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_counts_until_its_reader_has_it_and_a_small_one_is_never_refused() {
        let all = Gathered::default();
        let max = 3 * SMALL;
        let mut first = all.clone().share(max);
        first.grow(2 * SMALL).unwrap();
        let written = first.held(Bytes::from(vec![b'x'; 2 * SMALL]));
        let part = written.slice(..10);
        drop(written);
        let refused = all.clone().share(max).grow(2 * SMALL).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy);
        all.clone().share(max).grow(SMALL).unwrap();
        drop(part);
        let mut last = all.clone().share(max);
        last.grow(2 * SMALL).unwrap();
        last.clear();
        last.grow(3 * SMALL).unwrap();
        drop(last);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
