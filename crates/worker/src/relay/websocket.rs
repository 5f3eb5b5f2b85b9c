//! The WebSocket carrier: one connection from handshake to close.

pub(crate) mod arriving;
mod handshake;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use proto::{
    cause,
    status::CarrierKind,
    worker::{
        CLOSE_DRAIN, CLOSE_EXPIRED, CLOSE_PROTOCOL, CLOSE_UNAUTHORIZED, CLOSE_VERSION, Frame,
        RelayMessage, WorkerMessage,
    },
};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use tokio_util::sync::CancellationToken;

use self::{
    arriving::Arriving,
    handshake::connect,
    writer::{text, write},
};
use super::{Relay, http::lost};
use crate::{JobTable, LinkEnd, Tuning};

/// Timeout of sending the close frame.
const FAREWELL: Duration = Duration::from_secs(1);
/// Runs one connection from its handshake to its close.
pub(super) async fn session(
    relay: &Relay,
    table: &Arc<JobTable>,
    stop: &CancellationToken,
) -> LinkEnd {
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
        let greeting = greet(relay, table, &mut sink, &mut stream);
        let greeting = match timeout(tuning.connect, greeting).await {
            Ok(Ok(greeting)) => greeting,
            Ok(Err(end)) => return end,
            Err(_) => return lost("the relay did not send its first message in time"),
        };
        table.link_up(CarrierKind::Websocket);
        tokio::select! {
            end = read(&mut stream, table, &mut arriving, tuning) => end,
            end = write(&mut sink, table, greeting, tuning) => end,
            () = table.woken() => LinkEnd::Woken,
        }
    };
    let end = tokio::select! {
        end = conversation => end,
        () = stop.cancelled() => LinkEnd::Stopped,
    };
    arriving.give_back(table);
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
        | LinkEnd::Restarting { .. }
        | LinkEnd::Unauthorized(_) => return end,
    };
    // The connection may already be gone; the close frame is then not needed.
    drop(timeout(FAREWELL, sink.send(Message::Close(Some(close)))).await);
    end
}

/// The result of the first messages.
struct Greeting {
    /// Number of the report that was sent.
    report_told: u64,
    /// Interval at which the relay expects leases to be renewed.
    heartbeat: Duration,
}

/// Sends `Hello` and waits for the relay's first message.
async fn greet(
    relay: &Relay,
    table: &JobTable,
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
) -> Result<Greeting, LinkEnd> {
    let held = table.open(false);
    let Some((number, report)) = table.report_after(0) else {
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
                    let problem = "its first message was not `Welcome`";
                    return Err(LinkEnd::NotTheRelay(problem.into()));
                }
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                let problem = "it sent binary data before its first message";
                return Err(LinkEnd::NotTheRelay(problem.into()));
            }
            Some(Ok(Message::Close(frame))) => return Err(closed(frame.as_ref())),
            Some(Err(error)) => return Err(lost(cause(&error))),
            None => return Err(lost("the connection was closed")),
        }
    }
}

/// Processes messages of the relay until it is silent for too long.
async fn read(
    stream: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    table: &Arc<JobTable>,
    arriving: &mut Arriving,
    tuning: &Tuning,
) -> LinkEnd {
    loop {
        let Ok(next) = timeout(tuning.dead, stream.next()).await else {
            let silence = tuning.dead.as_secs();
            return lost(format!("no message from the relay for {silence} s"));
        };
        let heard = match next {
            Some(Ok(Message::Text(text))) => hear(text.as_str(), table, arriving),
            Some(Ok(Message::Binary(bytes))) => part(&bytes, table, arriving),
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

fn hear(text: &str, table: &JobTable, arriving: &mut Arriving) -> Result<(), &'static str> {
    let message = serde_json::from_str(text).map_err(|_| "a message could not be read")?;
    match message {
        RelayMessage::Lease(head) => arriving.begin(head)?,
        RelayMessage::Resume { token, stored } => table.resume(token, stored),
        RelayMessage::Stored { token, n } => table.stored(token, n),
        RelayMessage::Cancel { token } => {
            if let Some(head) = arriving.forget(token) {
                table.lease_withdrawn(head);
            }
            table.cancel(token);
        }
        RelayMessage::Closed { token, code } => {
            arriving.forget(token);
            table.closed(token, code);
        }
        RelayMessage::Drain => {
            tracing::info!("the relay is shutting down; running jobs may finish")
        }
        // A second `Welcome` is ignored like a message of a later version.
        RelayMessage::Welcome { .. } | _ => {}
    }
    Ok(())
}

fn part(bytes: &Bytes, table: &Arc<JobTable>, arriving: &mut Arriving) -> Result<(), &'static str> {
    let frame = Frame::decode(bytes).map_err(|_| "a frame could not be read")?;
    if let Some((head, body)) = arriving.add(frame)? {
        table.lease(head, body);
    }
    Ok(())
}

fn closed(frame: Option<&CloseFrame>) -> LinkEnd {
    let Some(frame) = frame else {
        return lost("the relay closed the connection");
    };
    let reason = frame.reason.as_str().to_owned();
    match u16::from(frame.code) {
        CLOSE_UNAUTHORIZED | CLOSE_EXPIRED => LinkEnd::Unauthorized(reason),
        CLOSE_VERSION => LinkEnd::NotTheRelay(format!("it supports another version: {reason}")),
        CLOSE_DRAIN => LinkEnd::Restarting { after: None },
        code => lost(format!("the relay closed the connection ({code} {reason})")),
    }
}
