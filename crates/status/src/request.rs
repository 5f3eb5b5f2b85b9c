//! A single request to the hub, for programs that do not follow its status.

use proto::status::CommandArgs;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    AskError, HubAddress, LocalToken,
    dial::{CONNECT, open},
};

/// Sends one request with the local token, and returns its result.
///
/// # Errors
/// [`AskError`]: the hub is not reachable, refused, or did not respond.
pub async fn request(
    hub: &HubAddress,
    request: &str,
    args: CommandArgs,
) -> Result<Value, AskError> {
    let token = LocalToken::read(&hub.token).ok().flatten();
    let token = token.ok_or(AskError::Offline)?;
    let opened = timeout(CONNECT, open(hub.addr, Some(token))).await;
    let Ok(Ok(mut opened)) = opened else {
        return Err(AskError::Offline);
    };
    match timeout(CONNECT, opened.call(request, args)).await {
        Ok(Ok(Ok(given))) => Ok(given),
        Ok(Ok(Err((code, message)))) => Err(AskError::Refused { code, message }),
        Ok(Err(_)) | Err(_) => Err(AskError::Unanswered),
    }
}
