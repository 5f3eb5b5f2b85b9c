//! How the subscriber reaches a hub, and the bytes of a command.

use std::{path::Path, time::Duration};

use http::{HeaderValue, header};
use proto::status::{ClientMessage, Command, CommandArgs};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::{LocalToken, Places, upgrade::socket_config};

/// To be connected and upgraded within this, and to get a command written.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// A socket to the first hub that opens one.
pub(crate) async fn connect(places: &Places) -> Result<WebSocketStream<TcpStream>, Error> {
    let mut failed = Error::ConnectionClosed;
    for (addr, token) in places.candidates() {
        let mut request = format!("ws://{addr}/").into_client_request()?;
        if let Some(value) = token.and_then(|path| bearer(&path)) {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let opening = async {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            client_async_with_config(request, stream, Some(socket_config())).await
        };
        match timeout(CONNECT, opening).await {
            Ok(Ok((socket, _))) => return Ok(socket),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = Error::Io(std::io::ErrorKind::TimedOut.into()),
        }
    }
    Err(failed)
}

/// The header that shows the token, if this user can read it.
fn bearer(path: &Path) -> Option<HeaderValue> {
    let token = LocalToken::read(path).ok().flatten()?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A command as a message, with the id that its answer will carry.
pub(crate) fn wire(command: Command, id: u64) -> Message {
    let args = match command {
        Command::SetMonitoring(on) => CommandArgs {
            on: Some(on),
            job: None,
        },
        Command::CancelJob(job) => CommandArgs {
            on: None,
            job: Some(job),
        },
        Command::ToggleMonitoring
        | Command::StopTts
        | Command::ShowOverlay
        | Command::HideOverlay
        | Command::ToggleOverlay
        | Command::OpenSettings
        | Command::Quit => CommandArgs::default(),
    };
    let message = ClientMessage::Command {
        command: command.as_str().to_owned(),
        id: Some(id.to_string()),
        args,
    };
    Message::text(serde_json::to_string(&message).unwrap_or_default())
}
