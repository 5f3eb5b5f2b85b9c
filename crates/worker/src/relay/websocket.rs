mod arriving;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use proto::{
    limits,
    status::CarrierKind,
    worker::{
        CLOSE_DRAIN, CLOSE_PROTOCOL, CLOSE_UNAUTHORIZED, CLOSE_VERSION, Frame, RelayMessage,
        SUBPROTOCOL, WorkerMessage,
    },
};
use reqwest::{Method, StatusCode, Upgraded, header};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use self::arriving::Arriving;
use super::{
    Relay,
    http::{Refusal, cause, lost, unanswered},
};
use crate::{Desk, LinkEnd, Outgoing, Tuning};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// A wall clock that ran this much further than the time spent means that the machine slept.
const SLEPT: Duration = Duration::from_secs(10);

/// One connection, from its first byte to its last.
pub(super) async fn session(relay: &Relay, desk: &Arc<Desk>, stop: &CancellationToken) -> LinkEnd {
    let tuning = &relay.tuning;
    let connected = tokio::select! {
        connected = timeout(tuning.connect, connect(relay)) => connected,
        () = stop.cancelled() => return LinkEnd::Stopped,
    };
    let socket = match connected {
        Ok(Ok(socket)) => socket,
        Ok(Err(end)) => return end,
        Err(_) => return lost("the relay did not answer the upgrade in time"),
    };
    let (mut sink, mut stream) = socket.split();
    let mut arriving = Arriving::default();
    let conversation = async {
        let greeting = greet(relay, desk, &mut sink, &mut stream);
        let greeting = match timeout(tuning.connect, greeting).await {
            Ok(Ok(greeting)) => greeting,
            Ok(Err(end)) => return end,
            Err(_) => return lost("the relay did not say its first word in time"),
        };
        desk.link_up(CarrierKind::Websocket);
        tokio::select! {
            end = read(&mut stream, desk, &mut arriving, tuning) => end,
            end = write(&mut sink, desk, greeting, tuning) => end,
            () = desk.woken() => LinkEnd::Woken,
        }
    };
    let end = tokio::select! {
        end = conversation => end,
        () = stop.cancelled() => LinkEnd::Stopped,
    };
    arriving.give_back(desk);
    let close = match &end {
        LinkEnd::Stopped => CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        },
        LinkEnd::NotTheRelay(violation) => CloseFrame {
            code: CloseCode::from(CLOSE_PROTOCOL),
            reason: violation.chars().take(100).collect::<String>().into(),
        },
        LinkEnd::Lost { .. }
        | LinkEnd::Woken
        | LinkEnd::Blocked(_)
        | LinkEnd::Upgrade
        | LinkEnd::Later { .. }
        | LinkEnd::Unauthorized(_) => return end,
    };
    // It may be gone already; then nobody needs a farewell.
    drop(timeout(FAREWELL, sink.send(Message::Close(Some(close)))).await);
    end
}

async fn connect(relay: &Relay) -> Result<WebSocketStream<Upgraded>, LinkEnd> {
    let key = generate_key();
    let request = relay
        .endpoint
        .request(Method::GET, "")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    let response = request.send().await.map_err(|e| unanswered(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::read(response).await.into_link_end());
    }
    let has = |name, value: &str| {
        let header = response.headers().get(name);
        header.is_some_and(|header| header.as_bytes() == value.as_bytes())
    };
    if !has(
        header::SEC_WEBSOCKET_ACCEPT,
        &derive_accept_key(key.as_bytes()),
    ) {
        return Err(LinkEnd::Blocked("the upgrade was answered wrongly".into()));
    }
    if !has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let problem = format!("it does not speak {SUBPROTOCOL}");
        return Err(LinkEnd::NotTheRelay(problem));
    }
    let upgraded = response.upgrade().await.map_err(|e| lost(cause(&e)))?;
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = limits::WS_READ_BUFFER;
    config.write_buffer_size = 16 * 1024;
    config.max_write_buffer_size = 1024 * 1024;
    config.max_message_size = Some(limits::FRAME_MAX);
    config.max_frame_size = Some(limits::FRAME_MAX);
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}

/// What was agreed on at the beginning.
struct Greeting {
    /// The number of the report that was told.
    report_told: u64,
    /// How often the relay wants to hear of a lease, at the least.
    heartbeat: Duration,
}

/// Says hello and waits for the relay's first word.
async fn greet(
    relay: &Relay,
    desk: &Desk,
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
) -> Result<Greeting, LinkEnd> {
    let held = desk.open(false);
    let Some((number, report)) = desk.report_after(0) else {
        return Err(lost("there is nothing to report"));
    };
    let hello = WorkerMessage::Hello {
        worker: relay.worker.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        report,
        held,
    };
    let sent = sink.send(text(&hello)?).await;
    sent.map_err(|e| lost(cause(&e)))?;
    loop {
        match stream.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(text.as_str()) {
                Ok(RelayMessage::Welcome { heartbeat_ms, .. }) => {
                    let wanted = Duration::from_millis(heartbeat_ms.max(100));
                    return Ok(Greeting {
                        report_told: number,
                        heartbeat: relay.tuning.heartbeat.min(wanted),
                    });
                }
                Ok(RelayMessage::Unknown) => {}
                Ok(_) | Err(_) => {
                    let problem = "its first word was not a welcome";
                    return Err(LinkEnd::NotTheRelay(problem.into()));
                }
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                let problem = "it sent bytes before its first word";
                return Err(LinkEnd::NotTheRelay(problem.into()));
            }
            Some(Ok(Message::Close(frame))) => return Err(closed(frame.as_ref())),
            Some(Err(error)) => return Err(lost(cause(&error))),
            None => return Err(lost("the connection was closed")),
        }
    }
}

/// Hears the relay until it falls silent.
async fn read(
    stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    desk: &Arc<Desk>,
    arriving: &mut Arriving,
    tuning: &Tuning,
) -> LinkEnd {
    loop {
        let Ok(next) = timeout(tuning.dead, stream.next()).await else {
            let silence = tuning.dead.as_secs();
            return lost(format!("nothing was heard from the relay for {silence} s"));
        };
        let heard = match next {
            Some(Ok(Message::Text(text))) => hear(text.as_str(), desk, arriving),
            Some(Ok(Message::Binary(bytes))) => part(&bytes, desk, arriving),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(frame))) => return closed(frame.as_ref()),
            Some(Err(error)) => return lost(cause(&error)),
            None => return lost("the connection was closed"),
        };
        if let Err(violation) = heard {
            return LinkEnd::NotTheRelay(violation.into());
        }
    }
}

fn hear(text: &str, desk: &Desk, arriving: &mut Arriving) -> Result<(), &'static str> {
    let message = serde_json::from_str(text).map_err(|_| "a message could not be read")?;
    match message {
        RelayMessage::Lease(head) => arriving.begin(head)?,
        RelayMessage::Resume { token, stored } => desk.resume(token, stored),
        RelayMessage::Stored { token, n } => desk.stored(token, n),
        RelayMessage::Cancel { token } => {
            arriving.forget(token);
            desk.cancel(token);
        }
        RelayMessage::Closed { token, code } => {
            arriving.forget(token);
            desk.closed(token, code);
        }
        RelayMessage::Drain => tracing::info!("the relay is going down"),
        // A second welcome is as harmless as a message of a later version.
        RelayMessage::Welcome { .. } | _ => {}
    }
    Ok(())
}

fn part(bytes: &Bytes, desk: &Arc<Desk>, arriving: &mut Arriving) -> Result<(), &'static str> {
    let frame = Frame::decode(bytes).map_err(|_| "a frame could not be read")?;
    if let Some((head, body)) = arriving.add(frame)? {
        desk.lease(head, body);
    }
    Ok(())
}

/// Tells the relay what the desk has for it. Bursts share a write; nothing is ever held back.
async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    desk: &Desk,
    greeting: Greeting,
    tuning: &Tuning,
) -> LinkEnd {
    let Greeting {
        mut report_told,
        heartbeat,
    } = greeting;
    let mut capacity_told = None;
    let mut out = Out {
        sink,
        stall: tuning.write_stall,
    };
    let mut ping = interval_at(Instant::now() + tuning.ping, tuning.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let confirm_by = Instant::now() + tuning.connect;
    let mut awake = Awake::new(tuning);
    loop {
        let told = tell(&mut out, desk, &mut report_told, &mut capacity_told).await;
        match told {
            Ok(Told::All) => {}
            Ok(Told::More) => continue,
            Err(end) => return end,
        }
        let due = desk.next_due(heartbeat);
        let unconfirmed = desk.is_unconfirmed();
        let done = tokio::select! {
            () = desk.changed() => Ok(()),
            _ = ping.tick() => {
                if awake.slept(tuning) {
                    return LinkEnd::Woken;
                }
                out.now(Message::Ping(Bytes::new())).await
            }
            () = sleep_until(due.unwrap_or(confirm_by)), if due.is_some() => {
                extend(&mut out, desk, heartbeat).await
            }
            () = sleep_until(confirm_by), if unconfirmed => {
                Err(lost("the relay did not say what became of the leases"))
            }
        };
        if let Err(end) = done {
            return end;
        }
    }
}

/// Most batches told before the capacity is looked at again: a pause is told at once, however
/// fast an engine writes.
const ROUND: usize = 16;

enum Told {
    All,
    More,
}

async fn tell(
    out: &mut Out<'_, impl Sink<Message, Error = Error> + Unpin>,
    desk: &Desk,
    report_told: &mut u64,
    capacity_told: &mut Option<u32>,
) -> Result<Told, LinkEnd> {
    if let Some((number, report)) = desk.report_after(*report_told) {
        *report_told = number;
        out.feed(text(&WorkerMessage::Report { report })?).await?;
    }
    let slots = desk.capacity();
    if capacity_told.replace(slots) != Some(slots) {
        out.feed(text(&WorkerMessage::Capacity { slots })?).await?;
    }
    for _ in 0..ROUND {
        let Some(outgoing) = desk.next(|_| false) else {
            out.flush().await?;
            return Ok(Told::All);
        };
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
                };
                out.feed(text(&nack)?).await?;
            }
        }
    }
    Ok(Told::More)
}

async fn extend(
    out: &mut Out<'_, impl Sink<Message, Error = Error> + Unpin>,
    desk: &Desk,
    heartbeat: Duration,
) -> Result<(), LinkEnd> {
    let tokens = desk.take_due(heartbeat);
    if tokens.is_empty() {
        return Ok(());
    }
    out.now(text(&WorkerMessage::Extend { tokens })?).await
}

/// A sink that is never waited for without end.
struct Out<'a, S> {
    sink: &'a mut S,
    stall: Duration,
}

impl<S: Sink<Message, Error = Error> + Unpin> Out<'_, S> {
    async fn feed(&mut self, message: Message) -> Result<(), LinkEnd> {
        let fed = timeout(self.stall, self.sink.feed(message)).await;
        written(fed)
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
        Err(_) => Err(lost("the relay takes nothing more")),
    }
}

/// Notices that the machine slept: timers do not count that time, the wall clock does.
struct Awake {
    wall: proto::Timestamp,
    spent: Instant,
}

impl Awake {
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

fn text(message: &WorkerMessage) -> Result<Message, LinkEnd> {
    match serde_json::to_string(message) {
        Ok(text) => Ok(Message::text(text)),
        Err(error) => Err(lost(format!("a message could not be written: {error}"))),
    }
}

fn closed(frame: Option<&CloseFrame>) -> LinkEnd {
    let Some(frame) = frame else {
        return lost("the relay closed the connection");
    };
    let reason = frame.reason.as_str().to_owned();
    match u16::from(frame.code) {
        CLOSE_UNAUTHORIZED => LinkEnd::Unauthorized(reason),
        CLOSE_VERSION => LinkEnd::NotTheRelay(format!("it speaks another version: {reason}")),
        CLOSE_DRAIN => LinkEnd::Later {
            after: None,
            problem: "it is restarting".into(),
        },
        code => lost(format!("the relay closed the connection ({code} {reason})")),
    }
}
