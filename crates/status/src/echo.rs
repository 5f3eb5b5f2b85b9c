//! An echo server on the hub's own upgrade and WebSocket code, for the conformance suite of
//! `./x autobahn`.

use std::time::Duration;

use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::tungstenite::{Error, Message, protocol::WebSocketConfig};

use crate::{
    Access, Limits, LocalToken,
    pipe::Pipe,
    socket_slots::SocketSlots,
    token_check::TokenCheck,
    upgrade::{Gate, socket_config, upgrade},
};

/// The suite sends large messages slowly.
const STALL: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(1);

/// The configuration of the hub's clients, with this maximum message size.
#[must_use]
pub fn client_config(message_max: usize) -> WebSocketConfig {
    socket_config(message_max)
}

/// Serves one connection as the hub does, with this maximum message size, until it ends.
///
/// # Errors
/// If it ends without a closing handshake.
pub async fn serve(stream: TcpStream, message_max: usize) -> Result<(), Error> {
    let port = stream.local_addr()?.port();
    let token = LocalToken::new(rand::random());
    let gate = Gate {
        access: Access::new(port, &[]),
        token_check: TokenCheck::new(token, None, Instant::now().into_std()),
        port,
        behind: Limits::default().behind,
        room: SocketSlots::new(1, 0),
        message_max,
    };
    let Some(opened) = upgrade(stream, &gate).await else {
        return Ok(());
    };
    let mut pipe = Pipe::new(opened.stream, STALL, FAREWELL);
    loop {
        match pipe.next(Instant::now()).await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                pipe.send(message).await?;
            }
            Some(Ok(_)) => pipe.flush().await?,
            Some(Err(error)) => return pipe.part(error).await,
            None => return Ok(()),
        }
    }
}
