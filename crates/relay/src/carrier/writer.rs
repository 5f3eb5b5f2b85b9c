//! The single writer of one worker's socket.

use std::time::Duration;

use futures_util::{Sink, SinkExt as _};
use proto::{
    LeaseToken, Timestamp, limits,
    worker::{Frame, LeaseHead, RelayMessage},
};
use queue::Lease;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, interval_at, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::session::Session;

/// Time after which a stalled write ends the connection.
pub(crate) const STALLED: Duration = Duration::from_secs(10);

/// Writes until the worker stops reading. Control messages are sent between the parts of a large
/// body, so that a cancellation does not wait for the body.
pub(super) async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    control: &mut Receiver<Box<RelayMessage>>,
    session: &Session,
) -> Result<(), Error> {
    let first_ping = Instant::now() + limits::CARRIER_PING;
    let mut ping = interval_at(first_ping, limits::CARRIER_PING);
    loop {
        tokio::select! {
            biased;
            message = control.recv() => match message {
                Some(message) => feed(sink, text(&message)).await?,
                None => return Ok(()),
            },
            _ = ping.tick() => feed(sink, Message::Ping(Bytes::new())).await?,
            lease = session.unsent.next() => {
                Box::pin(lend(sink, control, &lease, session)).await?;
                session.unsent.sent();
            }
        }
        while let Ok(message) = control.try_recv() {
            feed(sink, text(&message)).await?;
        }
        stalled(sink.flush()).await?;
    }
}

/// Writes the pending control messages.
pub(super) async fn write_rest(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    control: &mut Receiver<Box<RelayMessage>>,
) -> Result<(), Error> {
    while let Ok(message) = control.try_recv() {
        sink.feed(text(&message)).await?;
    }
    sink.flush().await
}

/// Writes a lease and its request, unless the job is cancelled meanwhile. The worker cannot renew a
/// lease that it has not received in full, so each part that is written renews it.
async fn lend(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    control: &mut Receiver<Box<RelayMessage>>,
    lease: &Lease,
    session: &Session,
) -> Result<(), Error> {
    let mut renewed = session.relay.now();
    feed(sink, text(&RelayMessage::Lease(head_of(lease, renewed)))).await?;
    for part in Frame::body(lease.token, &lease.job.body.0) {
        while let Ok(message) = control.try_recv() {
            feed(sink, text(&message)).await?;
            if takes_back(&message, lease.token) {
                return Ok(());
            }
        }
        feed(sink, Message::Binary(part.encode())).await?;
        let tokens = || session.unsent.tokens();
        let length = session.relay.settings.lease;
        session
            .relay
            .renew_unheard(&mut renewed, length, tokens)
            .await;
    }
    Ok(())
}

/// Whether this message makes the worker drop the lease.
fn takes_back(message: &RelayMessage, lease: LeaseToken) -> bool {
    matches!(
        message,
        RelayMessage::Cancel { token } | RelayMessage::Closed { token, .. } if *token == lease
    )
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

/// Encodes a message as a frame. Serialising cannot fail; an empty text would indicate a bug.
pub(super) fn text(message: &RelayMessage) -> Message {
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

/// Returns the head of a lease, which is sent before the request body.
pub(super) fn head_of(lease: &Lease, now: Timestamp) -> LeaseHead {
    LeaseHead {
        token: lease.token,
        op: lease.job.op,
        model: lease.job.model.clone(),
        who: lease.job.who.clone(),
        deadline: lease.job.deadline,
        remaining_ms: lease.job.deadline.map(|deadline| {
            let remaining = deadline.since(now).as_millis();
            u64::try_from(remaining).unwrap_or(u64::MAX)
        }),
        body_len: lease.job.body.0.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::{Body, WorkerId};
    use queue::{
        MemoryQueue, NewJob, Queue as _,
        conformance::sample::{LEASE, account, anyone, job},
    };
    use tokio::{io::AsyncReadExt as _, time::sleep};
    use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

    use super::*;
    use crate::{
        Relay, RelaySettings, auth::Caller, carrier::arrivals::Arrivals, carrier::socket::config,
        workers::Link, world::SystemWorld,
    };

    /// Creates a connection that is about to write one job of this size.
    async fn with_job(bytes: usize) -> (Session, Receiver<Box<RelayMessage>>) {
        let store = Arc::new(MemoryQueue::default());
        let relay = Relay::new(
            store.clone(),
            RelaySettings::default(),
            Arc::new(SystemWorld),
        );
        let new = NewJob {
            body: Body(Bytes::from(vec![b'x'; bytes])),
            ..job(1)
        };
        store.enqueue(relay.now(), new).await.unwrap();
        let lent = relay
            .lease_many(&Arrivals::of(&relay, "a".into()), anyone(), LEASE, 1)
            .await
            .unwrap();
        let caller = Caller::on_behalf(account("a"), "laptop".into(), queue::Ceiling::default());
        let link = Link {
            worker: WorkerId::new("w").unwrap(),
            maybe_dead: Arc::default(),
            displaced: tokio_util::sync::CancellationToken::new(),
            routing_entry: Arc::new(relay.routing.join()),
        };
        let id = relay.workers.new_id();
        let report = Arc::new(proto::WorkerReport {
            engine: proto::EngineKind::Ollama,
            engine_version: String::new(),
            engine_up: true,
            model_changes: false,
            models: vec![],
        });
        let (session, control) = Session::new(relay, Arc::new(caller), link, id, report);
        session.unsent.extend(lent.take());
        (session, control)
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_gets_through_a_line_of_64_kbit_a_second() {
        let bytes = 1024 * 1024;
        let (session, mut control) = with_job(bytes).await;
        let (ours, mut theirs) = tokio::io::duplex(8 * 1024);
        let mut sink = WebSocketStream::from_raw_socket(ours, Role::Server, Some(config())).await;
        let reads = async {
            let (mut part, mut read) = ([0; 800], 0);
            while read < bytes {
                sleep(Duration::from_millis(100)).await;
                read += theirs.read(&mut part).await.unwrap();
            }
        };
        let began = Instant::now();
        tokio::select! {
            written = write(&mut sink, &mut control, &session) => {
                panic!("{written:?} after {:?}", began.elapsed());
            }
            () = reads => {}
        }
        assert!(began.elapsed() > Duration::from_secs(120));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_long_is_taken_for_dead() {
        let (session, mut control) = with_job(1024 * 1024).await;
        let (ours, _theirs) = tokio::io::duplex(8 * 1024);
        let mut sink = WebSocketStream::from_raw_socket(ours, Role::Server, Some(config())).await;
        let began = Instant::now();
        write(&mut sink, &mut control, &session).await.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), STALLED.as_secs());
    }
}
