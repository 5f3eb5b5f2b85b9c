//! Everything the relay says on one worker's socket, written from one place.

use std::time::Duration;

use futures_util::{Sink, SinkExt as _};
use proto::{
    limits,
    worker::{Frame, LeaseHead, RelayMessage},
};
use queue::Lease;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, interval_at, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

/// How long one write may stall before the worker is taken for dead.
const STALLED: Duration = Duration::from_secs(10);

/// Writes until the peer stops reading. Control messages go between the parts of a large body,
/// so that a cancellation never waits for one.
pub(super) async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    mut control: Receiver<RelayMessage>,
    mut leases: Receiver<Lease>,
) -> Result<(), Error> {
    let first_ping = Instant::now() + limits::CARRIER_PING;
    let mut ping = interval_at(first_ping, limits::CARRIER_PING);
    loop {
        tokio::select! {
            biased;
            Some(message) = control.recv() => feed(sink, text(&message)).await?,
            _ = ping.tick() => feed(sink, Message::Ping(Bytes::new())).await?,
            Some(lease) = leases.recv() => {
                feed(sink, text(&RelayMessage::Lease(head_of(&lease)))).await?;
                for part in Frame::body(lease.token, &lease.job.body.0) {
                    while let Ok(message) = control.try_recv() {
                        feed(sink, text(&message)).await?;
                    }
                    feed(sink, Message::Binary(part.encode())).await?;
                }
            }
            else => return Ok(()),
        }
        while let Ok(message) = control.try_recv() {
            feed(sink, text(&message)).await?;
        }
        stalled(sink.flush()).await?;
    }
}

async fn feed(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    message: Message,
) -> Result<(), Error> {
    stalled(sink.feed(message)).await
}

async fn stalled(write: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let written = timeout(STALLED, write).await;
    written.unwrap_or_else(|_| Err(Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// A message as its frame. Ours always serialise; an empty text would be the sign of a fault.
pub(super) fn text(message: &RelayMessage) -> Message {
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

/// What a worker is told of a lease before its body.
pub(super) fn head_of(lease: &Lease) -> LeaseHead {
    LeaseHead {
        token: lease.token,
        op: lease.job.op,
        model: lease.job.model.clone(),
        who: lease.job.who.clone(),
        deadline: lease.job.deadline,
        body_len: lease.job.body.0.len(),
    }
}
