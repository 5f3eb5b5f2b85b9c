//! A connection with timeouts for the arrival of a request's head and for stalled writes.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// State of a connection. An idle one may wait longer for its next request than a head may take to
/// arrive.
#[derive(Debug, Clone)]
pub(crate) struct Phase(Arc<AtomicU8>);

impl Phase {
    const HEAD: u8 = 0;
    const BUSY: u8 = 1;
    const IDLE: u8 = 2;

    /// Returns the state of a new connection, whose first request is due.
    pub(crate) fn first() -> Self {
        Self(Arc::new(AtomicU8::new(Self::HEAD)))
    }

    /// Records that the head of a request has arrived.
    pub(crate) fn busy(&self) {
        self.0.store(Self::BUSY, Ordering::Relaxed);
    }

    /// Wraps a response body: once it is dropped, the connection is idle and `answering` is
    /// released.
    pub(crate) fn until_end_of(&self, body: Body, answering: Option<TaskTrackerToken>) -> Body {
        Body::new(TrackedBody {
            body,
            _answering: answering,
            phase: self.clone(),
        })
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Relaxed) == phase
    }
}

/// A response body that sets the connection's state when it is dropped.
struct TrackedBody {
    body: Body,
    phase: Phase,
    _answering: Option<TaskTrackerToken>,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.phase.0.store(Phase::IDLE, Ordering::Relaxed);
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum time for the whole head of a request, from its first byte on.
    pub(crate) head: Duration,
    /// Maximum time without progress of a write.
    pub(crate) write: Duration,
}

/// A stream that fails when a write makes no progress, or a request's head does not arrive, within
/// its timeout.
#[derive(Debug)]
pub(crate) struct StallTimeout<S> {
    inner: S,
    limits: Limits,
    phase: Phase,
    /// Runs while a head is awaited.
    head: Pin<Box<Sleep>>,
    /// Runs while the client reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> StallTimeout<S> {
    pub(crate) fn new(inner: S, limits: Limits, phase: Phase) -> Self {
        Self {
            inner,
            limits,
            phase,
            head: Box::pin(sleep(limits.head)),
            stalled: None,
        }
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.limits.write;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        let message = "the client stopped reading";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let had = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.phase.is(Phase::IDLE) && buffer.filled().len() > had {
            self.phase.0.store(Phase::HEAD, Ordering::Relaxed);
            self.head = Box::pin(sleep(self.limits.head));
        }
        if read.is_ready() || !self.phase.is(Phase::HEAD) {
            return read;
        }
        ready!(self.head.as_mut().poll(context));
        let message = "the request head took too long to arrive";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
