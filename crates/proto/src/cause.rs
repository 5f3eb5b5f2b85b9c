//! Reads the causes of an error.

use std::{error::Error, iter};

/// Returns the innermost cause of an error, or the error itself if it has none.
#[must_use]
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    iter::successors(Some(error), |&error| error.source())
        .last()
        .unwrap_or(error)
}

/// Returns the text of the innermost cause, which names the failure; the outer ones repeat the
/// address.
#[must_use]
pub fn cause(error: &(dyn Error + 'static)) -> String {
    innermost(error).to_string()
}

/// Returns the texts of an error and its causes, for a log. A cause that the text contains already
/// is left out.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("not written")]
        Written(#[source] Box<Self>),
        #[error("sync of {file} failed: {source}")]
        Synced {
            file: &'static str,
            source: Box<Self>,
        },
        #[error("error 1034")]
        Code,
    }

    #[test]
    fn all_causes_of_an_error_are_read_and_none_twice() {
        let synced = Failed::Synced {
            file: "a.db",
            source: Box::new(Failed::Code),
        };
        let written = Failed::Written(Box::new(synced));
        assert_eq!(
            causes(&written),
            "not written: sync of a.db failed: error 1034"
        );
        assert_eq!(cause(&written), "error 1034");
        for one in [causes(&Failed::Code), cause(&Failed::Code)] {
            assert_eq!(one, "error 1034");
        }
    }
}
