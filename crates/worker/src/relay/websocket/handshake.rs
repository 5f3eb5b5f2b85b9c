//! The handshake of the WebSocket.

use proto::{cause, limits, worker::SUBPROTOCOL};
use reqwest::{Method, StatusCode, Upgraded, header};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    LinkEnd,
    relay::{
        Relay,
        http::{Refusal, lost, unanswered},
    },
};

/// Requests the upgrade, through the system's proxy if there is one, and checks the response.
pub(super) async fn connect(relay: &Relay) -> Result<WebSocketStream<Upgraded>, LinkEnd> {
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
        return Err(LinkEnd::Blocked(
            "the response to the upgrade is invalid".into(),
        ));
    }
    if !has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let problem = format!("it does not support {SUBPROTOCOL}");
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
