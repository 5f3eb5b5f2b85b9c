//! `GET /api/jobs/{id}/answer`: the whole answer as one object, in the engine's format.

use std::time::Duration;

use axum::{extract::State, response::Response};
use http::Method;
use proto::{ErrorCode, JobId};
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    Relay,
    api::written,
    auth::MayRead,
    error::ApiError,
    stream::name_job,
    target::{InPath, InQuery},
    whole_answer::AnswerBuffer,
};

/// Maximum wait, in seconds; many proxies cut longer requests.
const WAIT_MAX: u64 = 60;

#[derive(Deserialize)]
pub(in crate::api) struct AnswerQuery {
    #[serde(default)]
    wait: u64,
}

/// `GET /api/jobs/{id}/answer?wait=`. Fails with `job_unfinished` if the job has not ended within
/// `wait` seconds, and with the job's error if it ended without an answer.
pub(in crate::api) async fn answer(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    method: Method,
    InPath(id): InPath<JobId>,
    InQuery(query): InQuery<AnswerQuery>,
) -> Result<Response, ApiError> {
    if query.wait > WAIT_MAX {
        let message =
            format!("wait must be at most {WAIT_MAX} seconds; repeat the request to wait longer");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let log = relay.store.log(caller.owner(), id).await?;
    let log = log.ok_or_else(ApiError::unknown_job)?;
    relay.orphans.claim(id);
    let mut head = log.head();
    caller.pause_work();
    let patience = Duration::from_secs(query.wait);
    tokio::select! {
        ended = timeout(patience, head.wait_for(|head| head.end.is_some())) => match ended {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(ApiError::draining()),
            Err(_) => return Err(unfinished()),
        },
        () = relay.cuts_off(&*log) => return Err(ApiError::draining()),
    }
    let mut buffer = AnswerBuffer::new(&relay, log, &caller);
    buffer.complete().await?;
    let answer = dialect::ollama::joined(&buffer.lines)?;
    relay.fetched_by(&method, id);
    let mut response = written("application/json", buffer.held(answer));
    name_job(&mut response, id);
    Ok(response)
}

fn unfinished() -> ApiError {
    ApiError::new(
        ErrorCode::JobUnfinished,
        "the job has no answer yet; repeat the request with ?wait=60, or follow its events",
    )
}
