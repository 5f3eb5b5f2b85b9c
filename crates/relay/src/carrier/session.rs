//! One worker's WebSocket connection after the hello.
//!
//! Three tasks run concurrently: reading frames into the queue, leasing jobs (see
//! [`super::lending`]), and writing. They share the leases that the connection holds, and those
//! that are not yet written to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{FuturesUnordered, SplitStream},
};
use parking_lot::{Mutex, MutexGuard};
use proto::{
    ErrorCode, JobError, LeaseToken, Priority, WorkerReport, limits,
    worker::{Frame, FrameKind, RelayMessage, WorkerMessage},
};
use queue::{Extended, Owner, QueueError};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    farewell::Farewell,
    leases::{LeaseState, Leases, UnconfirmedLease},
    lending::Unsent,
    pace::Pace,
    socket::{CloseReason, Socket},
};
use crate::{
    Relay,
    auth::Caller,
    routing::{ReportedModels, reported_models},
    workers::{Link, OnlineId},
};

/// Delay before a worker is told that its lines are on disk.
const TELL_STORED: Duration = Duration::from_millis(100);

type Ends = FuturesUnordered<BoxFuture<'static, (LeaseToken, Result<(), QueueError>)>>;

pub(super) struct Session {
    pub(super) relay: Relay,
    pub(super) caller: Arc<Caller>,
    pub(super) link: Link,
    id: OnlineId,
    state: Mutex<State>,
    /// Notified when the state changes in a way that may allow another lease.
    pub(super) room: Notify,
    /// Notified when a lease was removed.
    fewer: Notify,
    control: mpsc::Sender<Box<RelayMessage>>,
    pub(super) unsent: Unsent,
}

pub(super) struct State {
    pub(super) report: Arc<WorkerReport>,
    /// The models of the report, for the ranking.
    pub(super) models: ReportedModels,
    pub(super) slots: u32,
    pub(super) open: Leases,
}

impl Session {
    pub(super) fn new(
        relay: Relay,
        caller: Arc<Caller>,
        link: Link,
        id: OnlineId,
        report: Arc<WorkerReport>,
    ) -> (Self, mpsc::Receiver<Box<RelayMessage>>) {
        // Boxed, because the channel always reserves space for 32 messages, for each of thousands
        // of workers.
        let (control, control_out) = mpsc::channel(256);
        let session = Self {
            relay,
            caller,
            link,
            id,
            state: Mutex::new(State {
                models: reported_models(&report),
                report,
                slots: 0,
                open: Leases::default(),
            }),
            room: Notify::new(),
            fewer: Notify::new(),
            control,
            unsent: Unsent::default(),
        };
        (session, control_out)
    }

    pub(super) async fn run(
        &self,
        source: SplitStream<&mut Socket>,
        held: &[LeaseToken],
    ) -> CloseReason {
        if let Err(ended) = self.resume(held).await {
            return ended;
        }
        let ended = tokio::select! {
            ended = self.read(source) => ended,
            ended = self.lend() => ended,
            ended = self.drain() => ended,
        };
        match ended {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    /// At a shutdown, gives back the leases that the worker does not know of, notifies the worker,
    /// and waits until it holds no lease.
    async fn drain(&self) -> Result<std::convert::Infallible, CloseReason> {
        self.relay.drain.cancelled().await;
        self.link.routing_entry.leave();
        let unheard = self.unsent.take_waiting();
        for lease in &unheard {
            self.state().open.close(lease.token);
        }
        self.relay.give_back(unheard).await;
        self.say(RelayMessage::Drain).await?;
        while self.state().open.len() > 0 {
            self.fewer.notified().await;
        }
        Err(CloseReason::Drain)
    }

    /// Resumes leases from an earlier connection, if they are still valid.
    async fn resume(&self, held: &[LeaseToken]) -> Result<(), CloseReason> {
        for token in held.iter().take(limits::HELD_MAX) {
            match self.relay.check_serves(&self.caller, *token).await {
                Ok(()) => {}
                Err(error) if error.code == ErrorCode::UnknownJob => {
                    self.closed(*token, Some(ErrorCode::UnknownJob)).await?;
                    continue;
                }
                Err(_) => return Err(CloseReason::Store),
            }
            let store = &self.relay.store;
            let job = store.get(Owner::Anyone, token.job).await;
            let job = job.map_err(|_| CloseReason::Store)?;
            let priority = job.map_or(Priority::DEFAULT, |job| job.new.priority);
            let renewed = store
                .extend(self.relay.now(), *token, self.relay.settings.lease)
                .await;
            let stored = store.stored(*token).await;
            match (renewed, stored) {
                (Ok(leased), Ok(stored)) => {
                    self.state().open.open(*token, stored, priority);
                    self.say(RelayMessage::Resume {
                        token: *token,
                        stored,
                    })
                    .await?;
                    if leased == Extended::Cancelled {
                        self.say(RelayMessage::Cancel { token: *token }).await?;
                    }
                }
                (Err(error), _) | (_, Err(error)) => self.lost(*token, &error).await?,
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        mut source: SplitStream<&mut Socket>,
    ) -> Result<std::convert::Infallible, CloseReason> {
        let mut ends = Ends::new();
        let mut pace = Pace::new(&self.relay.settings);
        pace.expect_details(self.state().report.models.len());
        let patience = self.relay.settings.carrier_patience;
        let mut dead = Instant::now() + patience;
        let mut tell_stored: Option<Instant> = None;
        loop {
            tokio::select! {
                message = source.next() => {
                    let message = match message {
                        Some(Ok(message)) if !message.is_close() => message,
                        last => return Err(CloseReason::Lost(Farewell::after(last.as_ref()))),
                    };
                    if self.link.maybe_dead.settle() {
                        self.room.notify_one();
                    }
                    match message {
                        Message::Binary(bytes) => {
                            self.line(&bytes).await?;
                            tell_stored.get_or_insert_with(|| Instant::now() + TELL_STORED);
                        }
                        // Boxed, like everything large and rare, to keep the task of an idle worker
                        // small; there are thousands.
                        Message::Text(text) => {
                            Box::pin(self.hear(&text, &mut ends, &mut pace)).await?;
                        }
                        Message::Ping(_)
                        | Message::Pong(_)
                        | Message::Close(_)
                        | Message::Frame(_) => {
                            Box::pin(pace.wait()).await;
                        }
                    }
                    dead = Instant::now() + patience;
                }
                Some((token, ended)) = ends.next(), if !ends.is_empty() => {
                    self.ended(token, ended).await?;
                }
                () = sleep_until(tell_stored.unwrap_or(dead)), if tell_stored.is_some() => {
                    let more = self.tell_stored().await?;
                    tell_stored = more.then(|| Instant::now() + TELL_STORED);
                }
                () = sleep_until(dead) => return Err(CloseReason::Lost(Farewell::None)),
            }
        }
    }

    /// Handles a binary frame: a line or a part of one.
    async fn line(&self, bytes: &Bytes) -> Result<(), CloseReason> {
        let frame = Frame::decode(bytes).map_err(|_| CloseReason::Protocol("not a frame"))?;
        if frame.kind != FrameKind::Line {
            return Err(CloseReason::Protocol(
                "a worker may send only lines in binary frames",
            ));
        }
        let Some(line) = self.state().open.assemble(&frame)? else {
            return Ok(());
        };
        let (token, n) = (frame.token, frame.n);
        let now = self.relay.now();
        let appended = self.relay.store.append(now, token, n, vec![line]);
        match appended.await {
            Ok(_) => {
                self.state().open.accepted(token, n);
                Ok(())
            }
            Err(QueueError::Gap { .. }) => Err(CloseReason::Protocol("a line is missing")),
            Err(error) => self.lost(token, &error).await,
        }
    }

    async fn hear(&self, text: &str, ends: &mut Ends, pace: &mut Pace) -> Result<(), CloseReason> {
        let Ok(message) = serde_json::from_str(text) else {
            return Err(CloseReason::Protocol("not a message"));
        };
        if matches!(message, WorkerMessage::Detail { .. }) {
            pace.wait_for_detail().await;
        } else if !self.is_paid(&message) {
            pace.wait().await;
        }
        match message {
            WorkerMessage::Report { report } => {
                pace.expect_details(report.models.len());
                let report = Arc::new(self.caller.permitted(report));
                self.relay.workers.report(&self.id, report.clone());
                let models = reported_models(&report);
                let mut state = self.state();
                (state.report, state.models) = (report, models);
                drop(state);
                self.room.notify_one();
            }
            WorkerMessage::Detail { detail } => {
                self.relay.workers.tell(&self.id, vec![detail]);
            }
            WorkerMessage::Capacity { slots } => {
                self.state().slots = slots;
                self.relay.workers.capacity(&self.id, slots);
                self.room.notify_one();
            }
            WorkerMessage::Extend { tokens } => {
                for token in tokens {
                    if self.state().open.state(token) == LeaseState::Gone {
                        pace.wait().await;
                    }
                    self.extend(token).await?;
                }
            }
            WorkerMessage::End { token, lines, end } => {
                let relay = self.relay.clone();
                self.end(
                    token,
                    ends,
                    async move { relay.end(token, lines, end).await },
                )
                .await?;
            }
            WorkerMessage::Nack {
                token,
                retry,
                code,
                message,
                engine_status,
            } => {
                let why = JobError {
                    engine_status,
                    ..JobError::new(code, message)
                };
                let relay = self.relay.clone();
                let nack = async move { relay.nack(token, retry, why).await };
                self.end(token, ends, nack).await?;
            }
            WorkerMessage::Hello { .. } => {
                return Err(CloseReason::Protocol("hello was already sent"));
            }
            WorkerMessage::Unknown | _ => {}
        }
        Ok(())
    }

    /// Whether a lease pays for a message: it is the end of a job that the connection holds.
    fn is_paid(&self, message: &WorkerMessage) -> bool {
        if let WorkerMessage::End { token, .. } | WorkerMessage::Nack { token, .. } = message {
            self.state().open.state(*token) == LeaseState::Held
        } else {
            false
        }
    }

    pub(super) async fn extend(&self, token: LeaseToken) -> Result<(), CloseReason> {
        let state = self.state().open.state(token);
        match state {
            LeaseState::Held => {}
            // Its end is being written and will be confirmed, so it needs no renewal.
            LeaseState::Ending => return Ok(()),
            LeaseState::Gone => return self.closed(token, Some(ErrorCode::StaleLease)).await,
        }
        let (now, length) = (self.relay.now(), self.relay.settings.lease);
        match self.relay.store.extend(now, token, length).await {
            Ok(Extended::Active) => Ok(()),
            Ok(Extended::Cancelled) => self.say(RelayMessage::Cancel { token }).await,
            Err(error) => self.lost(token, &error).await,
        }
    }

    /// Writes an end without delaying the lines of other jobs.
    async fn end(
        &self,
        token: LeaseToken,
        ends: &mut Ends,
        end: impl Future<Output = Result<(), QueueError>> + Send + 'static,
    ) -> Result<(), CloseReason> {
        if !self.state().open.begin_end(token) {
            return self.closed(token, Some(ErrorCode::StaleLease)).await;
        }
        ends.push(end.map(move |ended| (token, ended)).boxed());
        // The slot is free now; the next job does not wait until this end is on disk.
        self.room.notify_one();
        Ok(())
    }

    async fn ended(
        &self,
        token: LeaseToken,
        ended: Result<(), QueueError>,
    ) -> Result<(), CloseReason> {
        match ended {
            Ok(()) => self.closed(token, None).await,
            Err(error) => self.lost(token, &error).await,
        }
    }

    /// Tells the worker which lines are on disk; returns whether more will be soon.
    async fn tell_stored(&self) -> Result<bool, CloseReason> {
        let unconfirmed = self.state().open.unconfirmed();
        let mut more = false;
        for UnconfirmedLease {
            token,
            told,
            accepted,
        } in unconfirmed
        {
            // An error here recurs with the worker's next message about the lease.
            let Ok(n) = self.relay.store.stored(token).await else {
                continue;
            };
            more |= n < accepted;
            if n > told {
                self.state().open.told(token, n);
                self.say(RelayMessage::Stored { token, n }).await?;
            }
        }
        Ok(more)
    }

    /// Handles a refusal by the queue: either the lease has ended, or the store failed.
    pub(super) async fn lost(
        &self,
        token: LeaseToken,
        error: &QueueError,
    ) -> Result<(), CloseReason> {
        tracing::info!(job.id = %token.job, job.attempt = token.attempt, error = proto::causes(error), "lease ended");
        match error {
            QueueError::Unconfirmed(_) | QueueError::Store(_) | QueueError::DiskFull => {
                Err(CloseReason::Store)
            }
            QueueError::Ended(..) => self.closed(token, Some(ErrorCode::StaleLease)).await,
            QueueError::UnknownJob(_)
            | QueueError::StaleLease(_)
            | QueueError::Gap { .. }
            | QueueError::Erased(_)
            | QueueError::Full(_)
            | QueueError::AccountFull(_)
            | QueueError::Exists(_)
            | QueueError::OtherRequest => self.closed(token, Some(error.code())).await,
        }
    }

    pub(super) async fn closed(
        &self,
        token: LeaseToken,
        code: Option<ErrorCode>,
    ) -> Result<(), CloseReason> {
        self.drop_lease(token);
        self.say(RelayMessage::Closed { token, code }).await
    }

    /// Removes a lease from the connection.
    pub(super) fn drop_lease(&self, token: LeaseToken) {
        self.state().open.close(token);
        self.room.notify_one();
        self.fewer.notify_one();
    }

    async fn say(&self, message: RelayMessage) -> Result<(), CloseReason> {
        let sent = self.control.send(Box::new(message)).await;
        sent.map_err(|_| CloseReason::Lost(Farewell::None))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
