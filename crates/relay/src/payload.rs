//! Request bodies, read whole under limits of size, time and memory.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt as _;
use proto::{ErrorCode, limits};
use tokio::time::{Instant, timeout_at};

use crate::{
    Relay, budget::BudgetShare, concurrency::WorkPermit, connections::ConnectionHandle,
    error::ApiError,
};

/// Rate in bytes per second below which a body counts as stalled.
pub(crate) const LOWEST_RATE: u32 = 1024;
/// Rate in bytes per second at which a large body may take longer: 32 MiB take at most nine
/// minutes.
pub(crate) const FAIR_RATE: f64 = 64.0 * 1024.0;

/// Longest gap between two chunks of a refused body that is still arriving.
const PAUSE: Duration = Duration::from_millis(200);

/// A request body of at most `MAX` bytes.
pub(crate) struct Payload<const MAX: usize>(pub(crate) Bytes);

/// Body with a prompt, an answer, or lines of one.
pub(crate) type Inference = Payload<{ limits::BODY_MAX }>;
/// Any other body. Routes without a body read it too: some clients send `{}`, and an unread body
/// would end the connection.
pub(crate) type Control = Payload<{ limits::CONTROL_BODY_MAX }>;
/// Body of a poll; it may carry the report of an engine with very many models.
pub(crate) type Poll = Payload<{ 16 * limits::CONTROL_BODY_MAX }>;

impl<const MAX: usize> FromRequest<Relay> for Payload<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, relay: &Relay) -> Result<Self, ApiError> {
        if request.headers().contains_key(CONTENT_ENCODING) {
            return Err(ApiError::new(
                ErrorCode::UnsupportedEncoding,
                "compressed requests are not supported; send the body uncompressed",
            ));
        }
        let connection = request.extensions().get::<ConnectionHandle>().cloned();
        let slot = connection.as_ref().map(ConnectionHandle::count_body);
        let _until_it_has_arrived = slot.transpose()?;
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let least = request.body().size_hint().lower();
        let patience = relay.settings.body_patience;
        if announced.unwrap_or(0).max(least) > MAX as u64 {
            // A client that sent `Expect` has not begun to send the body and is refused at once.
            if !request.headers().contains_key(EXPECT) {
                linger(request.into_body(), MAX, patience).await;
            }
            return Err(too_large(MAX));
        }
        let work_permit = request.extensions().get::<WorkPermit>().cloned();
        let holder = connection
            .as_ref()
            .and_then(ConnectionHandle::holder)
            .unwrap_or_default();
        let share = relay.arriving.share(&holder);
        let body = read(request.into_body(), MAX, patience, share).await?;
        // The wait for the body does not count as work.
        if work_permit.is_some_and(|work_permit| !work_permit.try_start(relay.now())) {
            return Err(relay.busy());
        }
        Ok(Self(body))
    }
}

async fn read(
    mut body: Body,
    max: usize,
    patience: Duration,
    mut share: BudgetShare,
) -> Result<Bytes, ApiError> {
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    let mut line = Line::new(patience, Instant::now());
    loop {
        let frame = timeout_at(line.cut_at(), body.frame());
        let Ok(frame) = frame.await else {
            return Err(too_slow());
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| bad("the request body is incomplete; send it again"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        line.came(data.len(), Instant::now());
        if line.total > max {
            return Err(too_large(max));
        }
        share.grow(data.len())?;
        // A body of a single chunk is not copied.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            before => {
                whole.extend_from_slice(&before.unwrap_or_default());
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(share.held(first.unwrap_or_else(|| whole.freeze())))
}

/// Progress of an arriving body, and whether it is too slow.
struct Line {
    patience: Duration,
    began: Instant,
    total: usize,
    /// Start of the current interval, and the bytes that arrived in it.
    since: Instant,
    recent: usize,
}

impl Line {
    const fn new(patience: Duration, now: Instant) -> Self {
        Self {
            patience,
            began: now,
            total: 0,
            since: now,
            recent: 0,
        }
    }

    fn came(&mut self, bytes: usize, now: Instant) {
        self.total += bytes;
        self.recent += bytes;
        let enough = LOWEST_RATE * u32_of(self.patience.as_millis()) / 1000;
        if u32_of(self.recent as u128) >= enough.max(1) {
            (self.since, self.recent) = (now, 0);
        }
    }

    fn cut_at(&self) -> Instant {
        let whole = self.began + fair_time(self.total, self.patience);
        whole.min(self.since + self.patience)
    }
}

/// Returns how long this many bytes may be on their way.
pub(crate) fn fair_time(bytes: usize, patience: Duration) -> Duration {
    6 * patience + Duration::from_secs_f64(bytes as f64 / FAIR_RATE)
}

fn u32_of(n: u128) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn too_slow() -> ApiError {
    ApiError::new(
        ErrorCode::TooSlow,
        "the request body arrived too slowly; send at least 1 KiB/s, or 64 KiB/s if the body is \
         large",
    )
}

/// Reads and discards a refused body, so that a client that is still sending sees the response and
/// not a broken pipe. Reads at most twice the size limit, and no longer than an accepted body may
/// take.
async fn linger(mut body: Body, max: usize, patience: Duration) {
    let mut line = Line::new(patience, Instant::now());
    while line.total <= 2 * max {
        let until = line.cut_at().min(Instant::now() + PAUSE);
        let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else {
            return;
        };
        line.came(frame.data_ref().map_or(0, Bytes::len), Instant::now());
    }
}

fn bad(message: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

fn too_large(max: usize) -> ApiError {
    let message = format!("the request body exceeds {max} bytes, the limit of this route");
    ApiError::new(ErrorCode::TooLarge, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_body_is_cut_when_it_stands_still_or_takes_too_long_for_what_came() {
        let now = Instant::now();
        let mut line = Line::new(5 * SECOND, now);
        assert_eq!(line.cut_at(), now + 5 * SECOND);
        line.came(5 * 1024 - 1, now + 4 * SECOND);
        assert_eq!(line.cut_at(), now + 5 * SECOND, "not enough to count");
        line.came(1, now + 4 * SECOND);
        assert_eq!(line.cut_at(), now + 9 * SECOND);
        // At the lowest rate it may take half a minute, plus the time for the bytes that have
        // arrived.
        for second in 5..=29 {
            line.came(1024, now + second * SECOND);
        }
        let earned = line.cut_at() - now;
        assert!(earned > 30 * SECOND && earned < 31 * SECOND, "{earned:?}");
        // A large body at the fair rate may take as long as it needs.
        let mut line = Line::new(5 * SECOND, now);
        for second in 1..=500 {
            line.came(64 * 1024, now + second * SECOND);
            assert_eq!(line.cut_at(), now + second * SECOND + 5 * SECOND);
        }
    }
}
