//! Tracks whether a request's body was read to its end: until then its connection cannot serve
//! another request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// Whether part of a body is unread.
#[derive(Debug, Clone)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Wraps a body to track its end.
    pub(crate) fn of(body: Body) -> (Self, Body) {
        let left = Self(Arc::new(AtomicBool::new(!body.is_end_stream())));
        let followed = Followed {
            body,
            left: left.clone(),
        };
        (left, Body::new(followed))
    }

    /// Whether part of the body was not read.
    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Followed {
    body: Body,
    left: Unread,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.left.0.store(false, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_is_unread_until_its_end_was_seen() {
        let (unread, body) = Unread::of(Body::empty());
        assert!(!unread.is_any(), "there is none");
        drop(body);
        let parts = ["a", "b"].map(|part| Ok::<_, std::convert::Infallible>(Bytes::from(part)));
        let parts = || Body::from_stream(futures_util::stream::iter(parts.clone()));
        let (unread, mut body) = Unread::of(parts());
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "a");
        assert!(unread.is_any());
        drop(body);
        assert!(unread.is_any(), "it was given up");
        let (unread, body) = Unread::of(parts());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
        assert!(!unread.is_any());
    }
}
