//! Counts what a connection has received and not yet processed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::budget::BudgetShare;

/// Length of the header of a client's control frame in its shortest form, in bytes. The rest of a
/// longer one counts until the next message with data.
const CONTROL_HEAD: usize = 6;

/// What a connection has received: in all, and since its last whole message.
#[derive(Debug)]
pub(super) struct Meter {
    received: AtomicU64,
    /// The bytes of the message that is arriving. A message that the budget has no room for ends
    /// the connection.
    arriving: Mutex<BudgetShare>,
}

impl Meter {
    pub(super) fn new(share: BudgetShare) -> Arc<Self> {
        Arc::new(Self {
            received: AtomicU64::new(0),
            arriving: Mutex::new(share),
        })
    }

    /// Number of bytes received so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Notes that a whole message with data was processed.
    pub(super) fn processed(&self) {
        self.arriving.lock().clear();
    }

    /// Notes that a control frame with a payload of this length was processed. It may stand between
    /// the parts of a message, which stay in memory.
    pub(super) fn control_processed(&self, payload: usize) {
        self.arriving.lock().shrink(CONTROL_HEAD + payload);
    }

    fn add(&self, bytes: usize) -> io::Result<()> {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        let grown = self.arriving.lock().grow(bytes);
        grown.map_err(|full| io::Error::new(io::ErrorKind::OutOfMemory, full))
    }
}

/// A connection with its meter.
#[derive(Debug)]
pub(super) struct Metered<S> {
    pub(super) io: S,
    pub(super) meter: Arc<Meter>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let had = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        Poll::Ready(self.meter.add(buffer.filled().len() - had))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::budget::Budget;

    const MIB: usize = 1024 * 1024;

    #[tokio::test]
    async fn what_one_key_lets_arrive_at_once_has_a_bound_and_is_free_again_once_processed() {
        let budget = Budget::new(16 * MIB, "too much");
        let (mut to, from) = duplex(MIB);
        let meter = Meter::new(budget.share("key"));
        let mut metered = Metered {
            io: from,
            meter: meter.clone(),
        };
        let mut beside = budget.share("key");
        beside.grow(MIB).unwrap();
        let mut received = vec![0; MIB];
        for megabytes in 1..=3 {
            to.write_all(&received).await.unwrap();
            metered.read_exact(&mut received).await.unwrap();
            assert_eq!(meter.received(), (megabytes * MIB) as u64);
        }
        to.write_all(b"x").await.unwrap();
        let refused = metered.read(&mut received).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
        meter.processed();
        to.write_all(&received).await.unwrap();
        metered.read_exact(&mut received).await.unwrap();
    }
}
