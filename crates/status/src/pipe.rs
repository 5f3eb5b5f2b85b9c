//! A WebSocket of the hub, independent of the protocol on top.

use std::{future::poll_fn, net::Shutdown, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{
    StatusHub,
    bucket::Bucket,
    connection::{Connection, Wire},
    frames::{Frames, View},
};

/// Maximum number of bytes that are read from a closed socket until its peer closes too.
const DISCARDED: usize = 1024 * 1024;

/// A socket whose reader must take each message within `stall`.
pub(crate) struct Pipe {
    stream: WebSocketStream<Wire>,
    pub(crate) connection: Arc<Connection>,
    stall: Duration,
    farewell: Duration,
}

impl Pipe {
    pub(crate) fn new(stream: WebSocketStream<Wire>, stall: Duration, farewell: Duration) -> Self {
        let connection = stream.get_ref().0.clone();
        Self {
            stream,
            connection,
            stall,
            farewell,
        }
    }

    pub(crate) async fn say(&mut self, message: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(message).unwrap_or_default();
        self.send(Message::text(text)).await
    }

    /// Sends a message; fails if the reader takes nothing for too long.
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), Error> {
        match timeout(self.stall, self.stream.send(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(stalled()),
        }
    }

    /// Waits until the reader has taken everything, including the library's automatic answers.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        let (stream, connection) = (&mut self.stream, &self.connection);
        let taking = async {
            match stream.flush().await {
                // The library answered a close frame, which is the last frame.
                Err(Error::ConnectionClosed) => Ok(poll_fn(|cx| connection.poll_drain(cx)).await?),
                flushed => flushed,
            }
        };
        match timeout(self.stall, taking).await {
            Ok(taken) => taken,
            Err(_) => Err(stalled()),
        }
    }

    /// Changes what of the hub's status is shown; `None` for nothing.
    pub(crate) fn follow(&self, view: Option<View>, hub: &StatusHub) {
        self.connection.follow(view);
        self.show(hub);
    }

    /// Writes what is buffered, then the latest status if one was skipped.
    pub(crate) async fn catch_up(&mut self, hub: &StatusHub) -> Result<(), Error> {
        self.flush().await?;
        if self.connection.take_missed() {
            self.show(hub);
        }
        Ok(())
    }

    /// Sends the latest status, then closes the connection.
    pub(crate) async fn leave(&mut self, hub: &StatusHub) -> Result<(), Error> {
        self.flush().await?;
        self.show(hub);
        // An earlier status may still be buffered, so that the latest was skipped.
        self.catch_up(hub).await?;
        self.close(CloseCode::Away, "Hearth is stopping").await
    }

    /// Shows the latest status, unless the reader has it.
    fn show(&self, hub: &StatusHub) {
        self.connection.show(&mut Frames::of(hub.latest()));
    }

    /// The next message, not before `from`: clients that send too fast are read more slowly.
    pub(crate) async fn next(&mut self, from: Instant) -> Option<Result<Message, Error>> {
        if from > Instant::now() {
            sleep_until(from).await;
        }
        self.stream.next().await
    }

    /// Closes the connection with the code of the broken WebSocket rule, if a close frame can be
    /// sent.
    pub(crate) async fn part(&mut self, error: Error) -> Result<(), Error> {
        match broken_rule(&error) {
            Some((code, reason)) => self.close(code, reason).await,
            None => Err(error),
        }
    }

    pub(crate) async fn close(
        &mut self,
        code: CloseCode,
        reason: &'static str,
    ) -> Result<(), Error> {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        match timeout(self.stall, self.stream.close(Some(frame))).await {
            Ok(closed) => closed?,
            Err(_) => return Err(stalled()),
        }
        self.discard().await;
        Ok(())
    }

    /// Sends a close frame and reads until the other side has closed too. Closing a socket with
    /// unread bytes would reset it and discard the close frame.
    async fn discard(&mut self) {
        if let Err(error) = SockRef::from(self.connection.stream()).shutdown(Shutdown::Write) {
            tracing::debug!(%error, "the other side was faster");
        }
        let wire = self.stream.get_mut();
        let taking = async {
            let (mut rest, mut room) = ([0; 1024], DISCARDED);
            while let Ok(count @ 1..) = wire.read(&mut rest).await
                && count <= room
            {
                room -= count;
            }
        };
        // Bounded: the other side may never close.
        let _ = timeout(self.farewell, taking).await;
    }
}

/// How fast a client's messages are read.
pub(crate) struct ReadingPace {
    budget: Bucket,
    from: Instant,
}

impl ReadingPace {
    pub(crate) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            budget: Bucket::new(burst, per_second, now.into_std()),
            from: now,
        }
    }

    /// Time from which the next message may be read.
    pub(crate) const fn from(&self) -> Instant {
        self.from
    }

    /// Counts a message that was read now.
    pub(crate) fn count(&mut self, now: Instant) {
        self.from = now + self.budget.spend(now.into_std());
    }
}

/// The close code and reason for an error, if the other side can still receive it. The same as in
/// `relay::carrier::farewell`: the hub and the relay share no crate with sockets.
pub(crate) fn broken_rule(error: &Error) -> Option<(CloseCode, &'static str)> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are about a connection that is no more"
    )]
    match error {
        Error::Capacity(_) => Some((CloseCode::Size, "the message is too large")),
        Error::Utf8(_) => Some((CloseCode::Invalid, "text must be UTF-8")),
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => None,
        Error::Protocol(_) => Some((CloseCode::Protocol, "not a valid RFC 6455 frame")),
        _ => None,
    }
}

fn stalled() -> Error {
    Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the client does not read",
    ))
}
