//! How much memory something may take of everybody, until whoever it is for has it.

use bytes::Bytes;
use proto::ErrorCode;

use crate::{
    error::ApiError,
    tally::{Part, Tally},
};

/// So many bytes are kept for one, whatever others take.
const SMALL: usize = 1024 * 1024;
/// One holder of a key takes at most such a part of what there is for all.
const OF_HOLDER: usize = 4;

/// The bytes that all together may take. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    taken: Tally,
    max: usize,
    refusal: &'static str,
}

impl Budget {
    /// So many bytes; whoever wants more is told so.
    pub(crate) fn new(max: usize, refusal: &'static str) -> Self {
        Self {
            taken: Tally::default(),
            max,
            refusal,
        }
    }

    /// The share of one thing that is for this holder, of nothing yet.
    pub(crate) fn share(&self, holder: &str) -> Share {
        Share {
            part: self.taken.part(holder),
            max: self.max,
            refusal: self.refusal,
        }
    }

    /// The same for the relay's own use, which is counted and not refused.
    pub(crate) fn own_share(&self) -> Share {
        Share {
            max: usize::MAX,
            ..self.share("")
        }
    }
}

/// The bytes of one; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    part: Part,
    max: usize,
    refusal: &'static str,
}

impl Share {
    pub(crate) const fn bytes(&self) -> usize {
        self.part.bytes()
    }

    /// Takes room for more.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`], if others took it, or what else this holder has: it comes or goes too
    /// slowly.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), ApiError> {
        self.part.set(self.bytes() + more);
        let is_much = self.part.of_all() > self.max || self.part.of_holder() > self.max / OF_HOLDER;
        if self.bytes() > SMALL && is_much {
            return Err(ApiError::new(ErrorCode::Busy, self.refusal));
        }
        Ok(())
    }

    /// What was made of them: it counts until its last copy is gone.
    pub(crate) fn held(mut self, whole: Bytes) -> Bytes {
        self.part.set(whole.len());
        Bytes::from_owner(Held {
            whole,
            _share: self,
        })
    }

    /// It begins anew.
    pub(crate) fn clear(&mut self) {
        self.part.set(0);
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
        all.own_share().grow(9 * SMALL).unwrap();
        drop(part);
        let mut last = all.share("a");
        last.grow(2 * SMALL).unwrap();
        last.clear();
        last.grow(3 * SMALL).unwrap();
        drop(last);
        assert_eq!(all.taken.bytes(), 0);
    }

    #[test]
    fn no_holder_takes_what_is_everybodys() {
        let all = Budget::new(12 * SMALL, "too much");
        let mut greedy: Vec<Share> = (0..100).map(|_| all.share("a")).collect();
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
