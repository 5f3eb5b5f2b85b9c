//! An echo server on a tunnel's own upgrade, reading and closing, for the conformance suite of
//! `./x autobahn`.

use std::io;

use axum::{Router, extract::Request, response::Response};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{
    farewell::Farewell,
    meter::{Meter, Metered},
    socket::{accept_key, switching},
    tunnel::{TunnelEnd, config},
};
use crate::{budget::Budget, error::ApiError};

/// Serves connections with this maximum size of a message, until the listener fails.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, message_max: usize) -> io::Result<()> {
    let upgrade = move |request| async move { upgrade(request, message_max) };
    axum::serve(listener, Router::new().fallback(upgrade)).await
}

fn upgrade(mut request: Request, message_max: usize) -> Result<Response, ApiError> {
    let upgraded = hyper::upgrade::on(&mut request);
    let accept = accept_key(request.headers(), None)?;
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else {
            return;
        };
        let share = Budget::new(message_max, "too large an echo").own_share();
        let meter = Meter::new(share);
        let io = Metered {
            io: TokioIo::new(io),
            meter: meter.clone(),
        };
        let config = Some(config(message_max));
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, config).await;
        let end = echo(&mut socket, &meter).await;
        let farewell = end.farewell();
        farewell.say(&mut socket, |metered| &mut metered.io).await;
    });
    Ok(switching(accept))
}

async fn echo(
    socket: &mut WebSocketStream<Metered<TokioIo<Upgraded>>>,
    meter: &Meter,
) -> TunnelEnd {
    let (mut sink, mut source) = socket.split();
    loop {
        let message = match source.next().await {
            Some(Ok(message)) if !message.is_close() => message,
            last => return TunnelEnd::after(last.as_ref()),
        };
        if message.is_text() || message.is_binary() {
            if sink.send(message).await.is_err() {
                return TunnelEnd::Lost(Farewell::None);
            }
            meter.processed();
        }
    }
}
