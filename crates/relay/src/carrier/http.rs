//! Plain HTTP requests of the polling carrier: lines, lease extension, end and nack.

use axum::{Json, extract::State};
use bytes::Bytes;
use proto::{
    End, ErrorCode, JobError, JobId, LeaseToken, limits,
    worker::{EndRequest, LeaseAnswer, NackRequest, Retry},
};
use queue::{Extended, QueueError};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Relay,
    auth::{Caller, MayWork},
    error::ApiError,
    payload::{Control, Inference, Payload},
    target::{InPath, InQuery},
};

#[derive(Deserialize)]
pub(crate) struct First {
    first: u64,
}

/// `POST …/lines?first=N`: NDJSON lines, the first of which has the number `N`.
pub(crate) async fn lines(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(token): InPath<(JobId, u32)>,
    InQuery(First { first }): InQuery<First>,
    Payload(body): Inference,
) -> Result<Json<LeaseAnswer>, ApiError> {
    let stored = async {
        let token = held(&relay, &caller, token).await?;
        let lines = split(&body)?;
        let stored = relay.store.append(relay.now(), token, first, lines).await?;
        answer(&relay, token, stored).await
    };
    relay.paced(&caller, stored).await
}

/// `POST …/extend`: renews the lease without new lines.
pub(crate) async fn extend(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(token): InPath<(JobId, u32)>,
) -> Result<Json<LeaseAnswer>, ApiError> {
    relay.pace(&caller).await;
    let token = held(&relay, &caller, token).await?;
    let stored = relay.store.stored(token).await?;
    answer(&relay, token, stored).await
}

async fn answer(
    relay: &Relay,
    token: LeaseToken,
    stored: u64,
) -> Result<Json<LeaseAnswer>, ApiError> {
    let leased = relay
        .store
        .extend(relay.now(), token, relay.settings.lease)
        .await?;
    let cancelled = leased == Extended::Cancelled;
    Ok(Json(LeaseAnswer { stored, cancelled }))
}

/// `POST …/end`.
pub(crate) async fn end(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(token): InPath<(JobId, u32)>,
    Payload(body): Control,
) -> Result<Json<LeaseAnswer>, ApiError> {
    let ended = async {
        let token = held(&relay, &caller, token).await?;
        let EndRequest { lines, end } = parse(&body)?;
        relay.end(token, lines, end).await?;
        Ok(Json(LeaseAnswer {
            stored: lines,
            cancelled: false,
        }))
    };
    relay.paced(&caller, ended).await
}

/// `POST …/nack`.
pub(crate) async fn nack(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(token): InPath<(JobId, u32)>,
    Payload(body): Control,
) -> Result<Json<LeaseAnswer>, ApiError> {
    let given_back = async {
        let token = held(&relay, &caller, token).await?;
        let NackRequest {
            retry,
            code,
            message,
            engine_status,
        } = parse(&body)?;
        let why = JobError {
            engine_status,
            ..JobError::new(code, message)
        };
        relay.nack(token, retry, why).await?;
        Ok(Json(LeaseAnswer {
            stored: 0,
            cancelled: false,
        }))
    };
    relay.paced(&caller, given_back).await
}

impl Relay {
    /// Ends a job with the result that its worker reports. Only requesters can cancel a job: a
    /// worker that reports "cancelled" gives it back.
    pub(super) async fn end(
        &self,
        token: LeaseToken,
        lines: u64,
        end: End,
    ) -> Result<(), QueueError> {
        if end == End::Cancelled {
            let why = JobError::new(ErrorCode::Cancelled, "the worker stopped");
            return self.store.nack(self.now(), token, Retry::Never, why).await;
        }
        let end = match end {
            End::Failed { error } => End::Failed {
                error: error.bounded(),
            },
            End::Completed | End::Cancelled => end,
        };
        self.store.complete(self.now(), token, lines, end).await
    }

    /// Returns a job to the queue for the reason that its worker reports.
    pub(super) async fn nack(
        &self,
        token: LeaseToken,
        retry: Retry,
        why: JobError,
    ) -> Result<(), QueueError> {
        let now = self.now();
        self.store.nack(now, token, retry, why.bounded()).await
    }
}

async fn held(
    relay: &Relay,
    caller: &Caller,
    (job, attempt): (JobId, u32),
) -> Result<LeaseToken, ApiError> {
    let token = LeaseToken { job, attempt };
    relay.check_serves(caller, token).await?;
    Ok(token)
}

/// Splits a body into lines and copies each, because a line is kept for long and must not keep the
/// whole body in memory.
fn split(body: &[u8]) -> Result<Vec<Bytes>, ApiError> {
    let lines = || {
        body.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
    };
    let too_large = |message: String| Err(ApiError::new(ErrorCode::TooLarge, message));
    if lines().any(|line| line.len() > limits::LINE_MAX) {
        return too_large(format!("a line is longer than {} bytes", limits::LINE_MAX));
    }
    if lines()
        .map(|line| line.len() + limits::LINE_COST)
        .sum::<usize>()
        > limits::LOG_MAX
    {
        return too_large("the lines exceed the maximum size of an answer".into());
    }
    Ok(lines().map(Bytes::copy_from_slice).collect())
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::BadRequest
        } else {
            ErrorCode::MalformedJson
        };
        ApiError::new(code, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_nothing_alive_of_the_post_it_came_in() {
        let mut post = vec![b'\n'; 1024 * 1024];
        post.extend_from_slice(b"{}");
        let post = Bytes::from(post);
        let lines = split(&post).unwrap();
        assert_eq!(lines, ["{}"]);
        assert!(post.is_unique(), "as long as the line is kept");
    }

    #[test]
    fn a_post_of_more_lines_than_an_answer_may_have_is_refused() {
        let most = limits::LOG_MAX / (limits::LINE_COST + 1);
        let lines = |count: usize| split(&Bytes::from(b"1\n".repeat(count)));
        assert_eq!(lines(most).unwrap().len(), most);
        assert_eq!(lines(most + 1).unwrap_err().code, ErrorCode::TooLarge);
    }
}
