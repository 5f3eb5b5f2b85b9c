//! One WebSocket of the hub, whatever is spoken over it.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// A socket whose reader must take what it is sent within `stall`.
pub(crate) struct Pipe {
    pub(crate) stream: WebSocketStream<TcpStream>,
    pub(crate) stall: Duration,
}

impl Pipe {
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

    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        match timeout(self.stall, self.stream.flush()).await {
            Ok(Err(Error::ConnectionClosed)) => Ok(()),
            Ok(flushed) => flushed,
            Err(_) => Err(stalled()),
        }
    }

    /// The next message, not before `from`: who talks too fast is read more slowly.
    pub(crate) async fn next(&mut self, from: Instant) -> Option<Result<Message, Error>> {
        if from > Instant::now() {
            sleep_until(from).await;
        }
        self.stream.next().await
    }

    /// Says which rule of WebSockets was broken, where that is still possible.
    pub(crate) async fn part(self, error: Error) -> Result<(), Error> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "only these two are worth a word"
        )]
        match &error {
            Error::Capacity(_) => {
                self.close(CloseCode::Size, "the message is too large")
                    .await
            }
            Error::Utf8(_) => self.close(CloseCode::Invalid, "text must be UTF-8").await,
            _ => Err(error),
        }
    }

    pub(crate) async fn close(
        mut self,
        code: CloseCode,
        reason: &'static str,
    ) -> Result<(), Error> {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        match timeout(self.stall, self.stream.close(Some(frame))).await {
            Ok(closed) => closed,
            Err(_) => Err(stalled()),
        }
    }
}

fn stalled() -> Error {
    Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the reader takes nothing",
    ))
}
