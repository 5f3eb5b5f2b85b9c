//! One request to the hub, for programs that do not follow it.

use proto::status::CommandArgs;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    AskError, HubAddress, LocalToken,
    dial::{CONNECT, open},
};

/// Makes one request with the local token; what it gave.
///
/// # Errors
/// [`AskError`]: nobody is there, it was refused, or there was no answer.
pub async fn call(hub: &HubAddress, request: &str, args: CommandArgs) -> Result<Value, AskError> {
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
