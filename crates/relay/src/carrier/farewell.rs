//! The end of a socket: the broken rule of WebSocket, and the closing handshake, by RFC 6455,
//! sections 7 and 8.1.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// Maximum time for closing a connection.
const GOODBYE: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are read after the close frame.
const DISCARDED: usize = 1024 * 1024;

/// What the other side of a connection is told at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nothing: it is gone.
    None,
    /// The answer to its own close frame.
    Answer,
    /// A close code and its reason.
    Close(u16, &'static str),
}

impl Farewell {
    /// The farewell to a connection from which nothing more can be read.
    pub(super) fn after(last: Option<&Result<Message, Error>>) -> Self {
        match last {
            Some(Ok(_)) => Self::Answer,
            Some(Err(error)) => broken_rule(error),
            None => Self::None,
        }
    }

    /// Performs the closing handshake. Then reads until the other side has closed the connection:
    /// one that is closed with unread bytes is reset, and the close frame lost.
    /// That is read from what is `below` a meter: discarded bytes count for nobody.
    pub(super) async fn say<S, C>(
        self,
        socket: &mut WebSocketStream<S>,
        below: impl FnOnce(&mut S) -> &mut C,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let closing = async {
            let closed = match self {
                Self::None => return,
                // The library has it ready.
                Self::Answer => socket.flush().await,
                Self::Close(code, reason) => {
                    let (code, reason) = (code.into(), reason.into());
                    socket.close(Some(CloseFrame { code, reason })).await
                }
            };
            let connection = below(socket.get_mut());
            if closed.is_err() || connection.shutdown().await.is_err() {
                return;
            }
            let (mut rest, mut room) = ([0; 1024], DISCARDED);
            while let Ok(count @ 1..) = connection.read(&mut rest).await
                && count <= room
            {
                room -= count;
            }
        };
        // The other side may have disconnected, or not read; then the close frame is lost.
        let _ = timeout(GOODBYE, closing).await;
    }
}

/// The close code and reason for an error, if the other side can still receive it. The same as in
/// `status::pipe`: the hub and the relay share no crate with sockets.
fn broken_rule(error: &Error) -> Farewell {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are about a connection that is no more"
    )]
    let (code, reason) = match error {
        Error::Capacity(_) => (CloseCode::Size, "the message is too large"),
        Error::Utf8(_) => (CloseCode::Invalid, "text must be UTF-8"),
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => return Farewell::None,
        Error::Protocol(_) => (CloseCode::Protocol, "not a valid RFC 6455 frame"),
        _ => return Farewell::None,
    };
    Farewell::Close(code.into(), reason)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_never_closes_or_never_stops_sending_is_left() {
        for sends in [false, true] {
            let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
            let mut socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
            let began = Instant::now();
            let told = async {
                let farewell = Farewell::Close(1002, "not a frame");
                farewell.say(&mut socket, |connection| connection).await;
                drop(socket);
            };
            let sending = async {
                let mut sent = 0;
                while sends && theirs.write_all(&[0; 1024]).await.is_ok() {
                    sent += 1024;
                }
                // Open until the relay has left.
                (theirs, sent)
            };
            let ((), (_theirs, sent)) = tokio::join!(told, sending);
            assert!(began.elapsed() <= GOODBYE + Duration::from_millis(10));
            assert!(sent <= DISCARDED + 128 * 1024, "{sent}");
        }
    }
}
