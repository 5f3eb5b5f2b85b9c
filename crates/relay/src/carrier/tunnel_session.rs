//! One tunnel after its upgrade: one request at a time, pings, and the answers.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dialect::bridge::{
    Answer, EngineRequest,
    tunnel::{TunnelMessage, ping, pong},
};
use futures_util::{
    FutureExt as _, Sink, SinkExt as _, StreamExt as _, future::BoxFuture, stream::SplitStream,
};
use proto::{
    End, ErrorCode, JobError, LeaseToken, Op, Timestamp, WorkerId, limits::FRAME_MAX, worker::Retry,
};
use queue::{Lease, LeaseQuery, QueueError};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Instant, interval_at, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error, Message, Utf8Bytes,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use super::{
    arrivals::Arrivals,
    desktop::{ANSWER_WITHIN, end_cancelled, query, settle},
    farewell::Farewell,
    meter::Meter,
    pace::Pace,
    tunnel::TunnelEnd,
};
use crate::{Relay, auth::Caller, payload::fair_time};

/// Interval of pings.
pub(crate) const PING: Duration = Duration::from_secs(30);
/// Time without any frame after which a desktop counts as dead.
pub(crate) const DEAD: Duration = Duration::from_secs(90);
/// Maximum number of messages that wait to be written: a request, and pings.
const OUTGOING_MAX: usize = 16;

type Leasing = BoxFuture<'static, Result<Lease, QueueError>>;

struct Session<'a> {
    relay: &'a Relay,
    query: LeaseQuery,
    /// Whose requests count together while they are being written.
    holder: String,
    out: mpsc::Sender<Message>,
    current: Option<Current>,
    /// Paces what the desktop sends besides answers.
    pace: Pace,
}

/// The request that the desktop works on.
struct Current {
    token: LeaseToken,
    op: Op,
    answer_by: Instant,
    renewed: Timestamp,
    /// Whether its job has ended. The desktop cannot be told, and gets no other request before it
    /// has answered this one.
    is_withdrawn: bool,
}

/// Serves a tunnel until it ends, or `over` says why it has to.
pub(super) async fn run_session<S: AsyncRead + AsyncWrite + Unpin>(
    relay: &Relay,
    caller: &Caller,
    worker: &WorkerId,
    socket: &mut WebSocketStream<S>,
    meter: &Meter,
    over: impl Future<Output = TunnelEnd>,
) -> TunnelEnd {
    let (mut sink, source) = socket.split();
    let (out, mut outgoing) = mpsc::channel(OUTGOING_MAX);
    let mut session = Session {
        relay,
        query: query(caller, worker, None),
        holder: caller.claimant(),
        out,
        current: None,
        pace: Pace::new(&relay.settings),
    };
    let is_writing = AtomicBool::new(false);
    let patience = relay.settings.body_patience;
    let ended = tokio::select! {
        biased;
        ended = over => ended,
        ended = session.run(source, &is_writing, meter) => match ended {
            Ok(never) => match never {},
            Err(ended) => ended,
        },
        () = write(&mut sink, &mut outgoing, &is_writing, patience) => {
            TunnelEnd::Lost(Farewell::None)
        }
    };
    session.give_back(ended).await;
    ended
}

/// Writes until the desktop disconnects or reads too slowly. That it stopped reading is noticed by
/// the connection itself.
async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    outgoing: &mut mpsc::Receiver<Message>,
    is_writing: &AtomicBool,
    patience: Duration,
) {
    while let Some(message) = outgoing.recv().await {
        is_writing.store(true, Ordering::Relaxed);
        // A request is in memory until it is written, so it may take no longer than the body of one.
        let longest = fair_time(message.len(), patience);
        if !matches!(timeout(longest, send(sink, message)).await, Ok(Ok(()))) {
            return;
        }
        is_writing.store(false, Ordering::Relaxed);
    }
}

/// Sends a text in parts. The library copies each frame whole, and keeps the memory for it until
/// the connection ends.
async fn send(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    message: Message,
) -> Result<(), Error> {
    let Message::Text(text) = message else {
        return sink.send(message).await;
    };
    let mut rest = Bytes::from(text);
    let mut kind = Data::Text;
    loop {
        let part = rest.split_to(rest.len().min(FRAME_MAX));
        let frame = Frame::message(part, OpCode::Data(kind), rest.is_empty());
        sink.send(Message::Frame(frame)).await?;
        if rest.is_empty() {
            return Ok(());
        }
        kind = Data::Continue;
    }
}

impl Session<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        mut source: SplitStream<&mut WebSocketStream<S>>,
        is_writing: &AtomicBool,
        meter: &Meter,
    ) -> Result<std::convert::Infallible, TunnelEnd> {
        let relay = self.relay;
        let mut leasing: Option<Leasing> = None;
        let mut dead = Instant::now() + DEAD;
        let mut pings = interval_at(Instant::now() + PING, PING);
        let mut pinged = 0_u64;
        let mut received = 0;
        loop {
            let is_free = self.current.is_none();
            if is_free && relay.drain.is_cancelled() {
                return Err(TunnelEnd::Drain);
            }
            if is_free && leasing.is_none() {
                leasing =
                    Some(next_job(relay.clone(), self.holder.clone(), self.query.clone()).boxed());
            }
            let answer_by = self.current.as_ref().map(|current| current.answer_by);
            tokio::select! {
                message = source.next() => {
                    let control = match &message {
                        Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => {
                            Some(payload.len())
                        }
                        Some(_) | None => None,
                    };
                    self.hear(message).await?;
                    match control {
                        Some(payload) => meter.control_processed(payload),
                        None => meter.processed(),
                    }
                    received = meter.received();
                    dead = Instant::now() + DEAD;
                }
                lease = under_way(&mut leasing) => {
                    leasing = None;
                    self.ask(&lease.map_err(|_| TunnelEnd::Store)?).await?;
                }
                () = withdrawn(relay, self.current.as_ref()) => self.withdraw().await?,
                _ = pings.tick() => {
                    pinged += 1;
                    self.say(ping(&format!("ping-{pinged}"), relay.now()));
                    // Answered by the client's library, whatever its program makes of the other.
                    let _ = self.out.try_send(Message::Ping(Bytes::new()));
                }
                () = sleep_until(dead) => {
                    // While a long message is on its way, its progress is a sign of life.
                    let is_arriving = meter.received() != received;
                    if !is_arriving && !is_writing.load(Ordering::Relaxed) {
                        return Err(TunnelEnd::Silent);
                    }
                    received = meter.received();
                    dead = Instant::now() + DEAD;
                    self.renew().await;
                }
                () = sleep_until(answer_by.unwrap_or(dead)), if answer_by.is_some() => {
                    return Err(TunnelEnd::Overdue);
                }
                () = relay.drain.cancelled(), if is_free => return Err(TunnelEnd::Drain),
            }
        }
    }

    /// Sends a leased job as a request.
    async fn ask(&mut self, lease: &Lease) -> Result<(), TunnelEnd> {
        let (token, job) = (lease.token, &lease.job);
        let Some(request) = EngineRequest::of(token, job.op, &job.body.0) else {
            // No route accepts a body that is not UTF-8.
            let why = JobError::new(ErrorCode::BadRequest, "the request is not UTF-8");
            return self.nack(token, Retry::Never, why).await;
        };
        tracing::info!(job.id = %token.job, job.attempt = token.attempt, "leased to a tunnel");
        self.current = Some(Current {
            token,
            op: job.op,
            answer_by: Instant::now() + ANSWER_WITHIN,
            renewed: self.relay.now(),
            is_withdrawn: false,
        });
        let message = self
            .relay
            .sending
            .counted(&self.holder, request.http_request());
        if self.say(message) {
            Ok(())
        } else {
            Err(TunnelEnd::Lost(Farewell::None))
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, Error>>) -> Result<(), TunnelEnd> {
        let message = match message {
            Some(Ok(message)) if !message.is_close() => message,
            last => {
                let end = TunnelEnd::after(last.as_ref());
                if end == TunnelEnd::Busy {
                    tracing::warn!(
                        "tunnel closed: too much is arriving at once; --arriving-mib-max allows \
                         more"
                    );
                    self.relay.metrics.refused(ErrorCode::Busy);
                }
                return Err(end);
            }
        };
        self.renew().await;
        let Message::Text(text) = message else {
            self.pace.wait().await;
            return Ok(());
        };
        match TunnelMessage::parse(&text) {
            TunnelMessage::Answer(answer) => self.answered(&answer).await,
            TunnelMessage::Ping(id) => {
                self.pace.wait().await;
                self.say(pong(&id, self.relay.now()));
                Ok(())
            }
            TunnelMessage::Other => {
                self.pace.wait().await;
                Ok(())
            }
        }
    }

    /// Ends the current job with its answer. An answer to anything else came too late.
    async fn answered(&mut self, answer: &Answer) -> Result<(), TunnelEnd> {
        let id = answer.id.as_deref();
        let token = id.and_then(dialect::relay_polling::token);
        let current = self.current.as_ref();
        let Some(current) = current.filter(|current| Some(current.token) == token) else {
            self.pace.wait().await;
            return Ok(());
        };
        let token = current.token;
        // The job stays the current one until it is settled: if the tunnel ends meanwhile, or the
        // store fails, it is given back.
        let settled = if current.is_withdrawn {
            Err(QueueError::StaleLease(token.job))
        } else {
            settle(self.relay, token, current.op, answer).await
        };
        match settled {
            Ok(()) => {}
            Err(error) if error.is_late() => {
                tracing::info!(job.id = %token.job, job.attempt = token.attempt, "late answer dropped");
            }
            Err(_) => return Err(TunnelEnd::Store),
        }
        self.current = None;
        Ok(())
    }

    /// Gives up a job that its requester has cancelled, or that has ended otherwise.
    async fn withdraw(&mut self) -> Result<(), TunnelEnd> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.is_withdrawn = true;
        let token = current.token;
        let ended = end_cancelled(self.relay, token).await;
        ended.map_err(|_| TunnelEnd::Store)
    }

    /// Renews the lease once a quarter of it has passed.
    async fn renew(&mut self) {
        let (now, length) = (self.relay.now(), self.relay.settings.legacy_lease);
        let current = self.current.as_mut();
        let current = current.filter(|current| !current.is_withdrawn);
        let Some(current) = current.filter(|current| now.since(current.renewed) >= length / 4)
        else {
            return;
        };
        current.renewed = now;
        // If the lease has ended, the session is told separately.
        let _ = self.relay.store.extend(now, current.token, length).await;
    }

    /// Gives the current job back at the end of the tunnel, whose desktop cannot resume it.
    async fn give_back(&mut self, ended: TunnelEnd) {
        let current = self.current.take();
        let Some(current) = current.filter(|current| !current.is_withdrawn) else {
            return;
        };
        let (token, relay) = (current.token, self.relay);
        let given_back = match ended {
            TunnelEnd::TooLarge => {
                let error = JobError::new(
                    ErrorCode::TooLarge,
                    "the engine's answer exceeds 16 MiB, which cannot be forwarded; ask for less \
                     at once",
                );
                let end = End::Failed { error };
                relay.store.complete(relay.now(), token, 0, end).await
            }
            TunnelEnd::Overdue => {
                let why = "the desktop did not answer within 30 minutes";
                let why = JobError::new(ErrorCode::EngineFailed, why);
                let retry = Retry::AfterMs(0);
                relay.store.nack(relay.now(), token, retry, why).await
            }
            TunnelEnd::Drain => {
                let why = JobError::new(ErrorCode::Draining, "the relay is shutting down");
                relay.store.nack(relay.now(), token, Retry::Now, why).await
            }
            TunnelEnd::Lost(_)
            | TunnelEnd::Silent
            | TunnelEnd::Busy
            | TunnelEnd::Store
            | TunnelEnd::Revoked => {
                let why = "the worker disconnected before it answered";
                let why = JobError::new(ErrorCode::WorkerLost, why);
                // Counted, because the request itself may be what ends its desktop.
                let retry = Retry::AfterMs(0);
                relay.store.nack(relay.now(), token, retry, why).await
            }
        };
        if let Err(error) = given_back {
            tracing::info!(job.id = %token.job, error = proto::causes(&error), "lease ended");
        }
    }

    /// Gives a job back; a lease that has ended is none of its concern.
    async fn nack(&self, token: LeaseToken, retry: Retry, why: JobError) -> Result<(), TunnelEnd> {
        let store = &self.relay.store;
        match store.nack(self.relay.now(), token, retry, why).await {
            Err(error) if error.is_of_store() => Err(TunnelEnd::Store),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Sends a message; `false` if too many wait to be written.
    fn say(&self, message: Bytes) -> bool {
        let text = Utf8Bytes::try_from(message).unwrap_or_default();
        self.out.try_send(Message::Text(text)).is_ok()
    }
}

/// Waits for a job. Dropping the call gives back what was leased meanwhile.
async fn next_job(relay: Relay, holder: String, query: LeaseQuery) -> Result<Lease, QueueError> {
    let mut arrivals = Arrivals::of(&relay, holder);
    loop {
        arrivals.mark_seen();
        let length = relay.settings.legacy_lease;
        if let Some(lease) = relay.lease(&arrivals, &query, length).await? {
            return Ok(lease);
        }
        arrivals.changed().await.map_err(|_| QueueError::closed())?;
    }
}

async fn under_way(leasing: &mut Option<Leasing>) -> Result<Lease, QueueError> {
    match leasing {
        Some(leasing) => leasing.await,
        None => std::future::pending().await,
    }
}

/// Waits until the current job has ended or was cancelled.
async fn withdrawn(relay: &Relay, current: Option<&Current>) {
    match current {
        Some(current) if !current.is_withdrawn => relay.store.cancelled(current.token).await,
        Some(_) | None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
