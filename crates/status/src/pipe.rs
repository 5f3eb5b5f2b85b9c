//! One WebSocket of the hub, whatever is spoken over it.

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
    frames::{Frames, View},
    line::{Line, Wire},
};

/// How long, and for how much, who is closed may still talk.
const FAREWELL: Duration = Duration::from_secs(1);
const DISCARDED: usize = 1024 * 1024;

/// A socket whose reader must take what it is sent within `stall`.
pub(crate) struct Pipe {
    stream: WebSocketStream<Wire>,
    pub(crate) line: Arc<Line>,
    stall: Duration,
}

impl Pipe {
    pub(crate) fn new(stream: WebSocketStream<Wire>, stall: Duration) -> Self {
        let line = stream.get_ref().0.clone();
        Self {
            stream,
            line,
            stall,
        }
    }

    pub(crate) async fn say(&mut self, message: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(message).unwrap_or_default();
        self.send(Message::text(text)).await
    }

    /// Sends, or gives the socket up if its reader takes nothing for too long.
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), Error> {
        match timeout(self.stall, self.stream.send(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(stalled()),
        }
    }

    /// Until the reader took everything, the answers that the library made by itself as well.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        let (stream, line) = (&mut self.stream, &self.line);
        let taking = async {
            match stream.flush().await {
                // It answered a close frame: that is the last to be taken.
                Err(Error::ConnectionClosed) => Ok(poll_fn(|cx| line.poll_drain(cx)).await?),
                flushed => flushed,
            }
        };
        match timeout(self.stall, taking).await {
            Ok(taken) => taken,
            Err(_) => Err(stalled()),
        }
    }

    /// Shows the hub's status from here on in another way, or no more.
    pub(crate) fn follow(&self, view: Option<View>, hub: &StatusHub) {
        self.line.follow(view);
        self.show(hub);
    }

    /// Finishes what could not be written at once, and shows what has passed by meanwhile.
    pub(crate) async fn catch_up(&mut self, hub: &StatusHub) -> Result<(), Error> {
        self.flush().await?;
        if self.line.take_missed() {
            self.show(hub);
        }
        Ok(())
    }

    /// Says goodbye to a reader that has seen the last status.
    pub(crate) async fn leave(&mut self, hub: &StatusHub) -> Result<(), Error> {
        self.flush().await?;
        self.show(hub);
        // Another status may have been on its way, so that this one could not be written.
        self.catch_up(hub).await?;
        self.close(CloseCode::Away, "Hearth is stopping").await
    }

    /// Shows the latest status, if it is news to this reader.
    fn show(&self, hub: &StatusHub) {
        self.line.show(&mut Frames::of(hub.latest()));
    }

    /// The next message, not before `from`: who talks too fast is read more slowly.
    pub(crate) async fn next(&mut self, from: Instant) -> Option<Result<Message, Error>> {
        if from > Instant::now() {
            sleep_until(from).await;
        }
        self.stream.next().await
    }

    /// Says which rule of WebSockets was broken, where that is still possible.
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

    /// Says that nothing follows, and takes what still comes until the other side has closed too: a
    /// socket that is closed with something unread in it takes its last words back.
    async fn discard(&mut self) {
        if let Err(error) = SockRef::from(self.line.stream()).shutdown(Shutdown::Write) {
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
        // Who neither closes nor ends is not waited for.
        let _ = timeout(FAREWELL.min(self.stall), taking).await;
    }
}

/// The close code of an error, and why, if the other side is there to be told.
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
