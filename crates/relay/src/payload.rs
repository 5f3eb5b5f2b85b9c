//! Request bodies: bounded in size and in time before anything reads them.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use proto::{ErrorCode, limits};
use tokio::time::timeout;

use crate::{Relay, error::ApiError, guard::AtWork};

/// How long a whole body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest gap between two pieces of a body that is refused but still arriving.
const PAUSE: Duration = Duration::from_millis(200);

/// A request body of at most `MAX` bytes.
pub(crate) struct Payload<const MAX: usize>(pub(crate) Bytes);

/// A prompt, an answer, or lines of one.
pub(crate) type Inference = Payload<{ limits::BODY_MAX }>;
/// Anything else.
pub(crate) type Control = Payload<{ limits::CONTROL_BODY_MAX }>;
/// A poll; it may carry the report of an engine with very many models.
pub(crate) type Poll = Payload<{ 16 * limits::CONTROL_BODY_MAX }>;

impl<const MAX: usize> FromRequest<Relay> for Payload<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, relay: &Relay) -> Result<Self, ApiError> {
        if request.headers().contains_key(CONTENT_ENCODING) {
            return Err(ApiError::new(
                ErrorCode::UnsupportedEncoding,
                "compressed requests are not read; send the body as it is",
            ));
        }
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let least = request.body().size_hint().lower();
        if announced.unwrap_or(0).max(least) > MAX as u64 {
            linger(request.into_body(), MAX).await;
            return Err(too_large(MAX));
        }
        let at_work = request.extensions().get::<AtWork>().cloned();
        let body = read(request.into_body(), MAX).await?;
        // While a body arrives there is nothing to do.
        if at_work.is_some_and(|at_work| !at_work.begins()) {
            return Err(relay.busy());
        }
        Ok(Self(body))
    }
}

async fn read(body: Body, max: usize) -> Result<Bytes, ApiError> {
    let whole = timeout(PATIENCE, Limited::new(body, max).collect());
    match whole.await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(bad("the body broke off; send it again")),
        Err(_) => Err(bad(
            "the body took longer than 30 s to arrive; send it faster",
        )),
    }
}

/// Lets a client that is already sending finish, and forgets what it sends: one that writes into
/// a closed connection sees a broken pipe instead of the answer. One that waits is answered at
/// once, and nobody is listened to for more than as much again.
async fn linger(mut body: Body, max: usize) {
    let mut left = 2 * max;
    while let Ok(Some(Ok(frame))) = timeout(PAUSE, body.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(length) else {
            return;
        };
        left = less;
    }
}

fn bad(message: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

fn too_large(max: usize) -> ApiError {
    let message = format!("the body is over {max} bytes, the limit of this route");
    ApiError::new(ErrorCode::TooLarge, message)
}
