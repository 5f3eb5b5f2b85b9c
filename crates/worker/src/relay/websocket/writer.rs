//! Sending over the WebSocket.

use bytes::Bytes;
use futures_util::{Sink, SinkExt as _};
use proto::{
    cause,
    worker::{Frame, WorkerMessage},
};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Greeting;
use crate::{JobTable, LinkEnd, Outgoing, Tuning, relay::http::lost};

/// Difference between wall clock and elapsed time beyond which the machine must have been
/// suspended.
const SLEPT: Duration = Duration::from_secs(10);

/// Sends what is pending to the relay. Bursts share a write; nothing is delayed.
pub(super) async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    table: &JobTable,
    greeting: Greeting,
    tuning: &Tuning,
) -> LinkEnd {
    let Greeting {
        mut report_told,
        heartbeat,
    } = greeting;
    let mut capacity_told = None;
    let mut details_told = 0;
    let mut out = Out {
        sink,
        stall: tuning.write_stall,
    };
    let mut ping = interval_at(Instant::now() + tuning.ping, tuning.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let confirm_by = Instant::now() + tuning.connect;
    let mut awake = SuspendDetector::new(tuning);
    loop {
        let told = tell(&mut out, table, &mut report_told, &mut capacity_told).await;
        match told {
            Ok(Sent::All) => {
                // Details of models are sent when nothing else is pending.
                if let Some((number, detail)) = table.detail_after(details_told) {
                    details_told = number;
                    match out.say(&WorkerMessage::Detail { detail }).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
            }
            Ok(Sent::More) => continue,
            Err(end) => return end,
        }
        let due = table.next_due(heartbeat);
        let unconfirmed = table.is_unconfirmed();
        let done = tokio::select! {
            () = table.changed() => Ok(()),
            _ = ping.tick() => {
                if awake.slept(tuning) {
                    return LinkEnd::Woken;
                }
                out.now(Message::Ping(Bytes::new())).await
            }
            () = sleep_until(due.unwrap_or(confirm_by)), if due.is_some() => {
                extend(&mut out, table, heartbeat).await
            }
            () = sleep_until(confirm_by), if unconfirmed => {
                Err(lost("the relay did not confirm the held leases in time"))
            }
        };
        if let Err(end) = done {
            return end;
        }
    }
}

/// Maximum number of messages sent before the capacity is checked again, so that a pause is sent
/// quickly, however fast an engine writes.
const ROUND: usize = 16;

enum Sent {
    All,
    More,
}

async fn tell(
    out: &mut Out<'_, impl Sink<Message, Error = Error> + Unpin>,
    table: &JobTable,
    report_told: &mut u64,
    capacity_told: &mut Option<u32>,
) -> Result<Sent, LinkEnd> {
    if let Some((number, report)) = table.report_after(*report_told) {
        *report_told = number;
        out.feed(text(&WorkerMessage::Report { report })?).await?;
    }
    let slots = table.capacity();
    if capacity_told.replace(slots) != Some(slots) {
        out.feed(text(&WorkerMessage::Capacity { slots })?).await?;
    }
    for _ in 0..ROUND {
        let Some(outgoing) = table.next(|_| false) else {
            out.flush().await?;
            return Ok(Sent::All);
        };
        if let Some((number, report)) = table.report_before(*report_told) {
            *report_told = number;
            out.feed(text(&WorkerMessage::Report { report })?).await?;
        }
        match outgoing {
            Outgoing::Lines {
                token,
                first,
                lines,
            } => {
                for (n, line) in (first..).zip(&lines) {
                    for frame in Frame::line(token, n, line) {
                        out.feed(Message::Binary(frame.encode())).await?;
                    }
                }
            }
            Outgoing::End { token, lines, end } => {
                out.feed(text(&WorkerMessage::End { token, lines, end })?)
                    .await?;
            }
            Outgoing::Nack { token, retry, why } => {
                let nack = WorkerMessage::Nack {
                    token,
                    retry,
                    code: why.code,
                    message: why.message,
                    engine_status: why.engine_status,
                };
                out.feed(text(&nack)?).await?;
            }
        }
    }
    Ok(Sent::More)
}

async fn extend(
    out: &mut Out<'_, impl Sink<Message, Error = Error> + Unpin>,
    table: &JobTable,
    heartbeat: Duration,
) -> Result<(), LinkEnd> {
    let tokens = table.take_due(heartbeat);
    if tokens.is_empty() {
        return Ok(());
    }
    out.now(text(&WorkerMessage::Extend { tokens })?).await
}

/// A sink with a timeout on every write.
struct Out<'a, S> {
    sink: &'a mut S,
    stall: Duration,
}

impl<S: Sink<Message, Error = Error> + Unpin> Out<'_, S> {
    async fn feed(&mut self, message: Message) -> Result<(), LinkEnd> {
        let fed = timeout(self.stall, self.sink.feed(message)).await;
        written(fed)
    }

    async fn say(&mut self, message: &WorkerMessage) -> Result<(), LinkEnd> {
        self.now(text(message)?).await
    }

    async fn flush(&mut self) -> Result<(), LinkEnd> {
        let flushed = timeout(self.stall, self.sink.flush()).await;
        written(flushed)
    }

    async fn now(&mut self, message: Message) -> Result<(), LinkEnd> {
        self.feed(message).await?;
        self.flush().await
    }
}

fn written(result: Result<Result<(), Error>, tokio::time::error::Elapsed>) -> Result<(), LinkEnd> {
    match result {
        Ok(written) => written.map_err(|error| lost(cause(&error))),
        Err(_) => Err(lost("the relay stopped reading")),
    }
}

/// Detects that the machine was suspended: timers do not count that time, the wall clock does.
struct SuspendDetector {
    wall: proto::Timestamp,
    spent: Instant,
}

impl SuspendDetector {
    fn new(tuning: &Tuning) -> Self {
        Self {
            wall: tuning.clock.now(),
            spent: Instant::now(),
        }
    }

    fn slept(&mut self, tuning: &Tuning) -> bool {
        let before = std::mem::replace(self, Self::new(tuning));
        let wall = self.wall.since(before.wall);
        wall > self.spent.duration_since(before.spent) + SLEPT
    }
}

pub(super) fn text(message: &WorkerMessage) -> Result<Message, LinkEnd> {
    match serde_json::to_string(message) {
        Ok(text) => Ok(Message::text(text)),
        Err(error) => Err(lost(format!("a message could not be written: {error}"))),
    }
}
