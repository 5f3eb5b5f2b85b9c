//! Answers one line of a batch: an OpenAI request in, its response out.

use std::{panic::AssertUnwindSafe, time::Duration};

use bytes::Bytes;
use dialect::{
    Answer as _, Named,
    openai::{ChatRequest, Completion, EmbeddingRequest, TextCompletion, TextRequest},
};
use futures_util::FutureExt as _;
use proto::{Dialect, End, ErrorCode, ErrorDetail, JobId, JobState, ModelName, Op, Priority};
use queue::{BatchRecord, Extras, IdempotencyKey, JobLog, Owner, QueueError, ResultFile};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{sync::SemaphorePermit, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Relay,
    auth::Caller,
    error::ApiError,
    intake::Attendance,
    submission::{Submission, fingerprint},
    whole_answer::AnswerBuffer,
};

/// Endpoints that a line may call.
pub(crate) const ENDPOINTS: [&str; 3] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// Maximum length of a `custom_id`, in bytes.
const NAME_MAX: usize = 512;
/// Pause before a line is submitted again after the queue was full.
const NO_ROOM: Duration = Duration::from_secs(1);
/// Priority of a batch's jobs, below the default of 5.
const URGENCY: u8 = 8;

/// A line in OpenAI's format.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub(super) custom_id: String,
    method: String,
    url: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl<'a> Line<'a> {
    /// Parses a line and checks that it is a request to `endpoint`.
    pub(super) fn read(line: &'a [u8], endpoint: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if !(1..=NAME_MAX).contains(&read.custom_id.len()) {
            return Err(format!("custom_id must have 1 to {NAME_MAX} bytes"));
        }
        if read.method != "POST" {
            return Err("method must be POST".into());
        }
        if read.url != endpoint {
            return Err(format!("url must be {endpoint}, the endpoint of the batch"));
        }
        let request = Request::parse(endpoint, read.body).map_err(|detail| detail.message)?;
        match request.model() {
            Some(_) => Ok(read),
            None => Err("body.model is missing".into()),
        }
    }
}

enum Request {
    Chat(ChatRequest),
    Text(TextRequest),
    Embedding(EmbeddingRequest),
}

impl Request {
    fn parse(endpoint: &str, body: &RawValue) -> Result<Self, ErrorDetail> {
        let body = body.get().as_bytes();
        match endpoint {
            "/v1/completions" => TextRequest::parse(body).map(Self::Text),
            "/v1/embeddings" => EmbeddingRequest::parse(body).map(Self::Embedding),
            _ => ChatRequest::parse(body).map(Self::Chat),
        }
    }

    fn model(&self) -> Option<&str> {
        match self {
            Self::Chat(request) => request.model.as_deref(),
            Self::Text(request) => request.model.as_deref(),
            Self::Embedding(request) => request.model.as_deref(),
        }
    }

    const fn op(&self) -> Op {
        match self {
            Self::Chat(_) => Op::Chat,
            Self::Text(_) => Op::Generate,
            Self::Embedding(_) => Op::Embed,
        }
    }

    fn native(&self, model: &ModelName) -> Bytes {
        match self {
            Self::Chat(request) => request.native(model),
            Self::Text(request) => request.native(model),
            Self::Embedding(request) => request.native(model),
        }
    }

    fn answer(&self, named: Named, lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
        match self {
            Self::Chat(_) => Completion::new(named, false).whole(lines),
            Self::Text(_) => TextCompletion::new(named, false).whole(lines),
            Self::Embedding(request) => request.answer(&named.model, lines),
        }
    }
}

/// Result of a line.
pub(super) struct Answered<'a> {
    /// The file it goes to.
    pub(super) file: ResultFile,
    /// The line to write.
    pub(super) line: Bytes,
    /// Held until the line is stored.
    _place: Option<SemaphorePermit<'a>>,
}

/// Why a line has no answer.
enum NoAnswer {
    /// The line has failed.
    Failed(ApiError),
    /// The store does not answer; the line is tried again.
    Unstored(ApiError),
}

impl<E: Into<ApiError>> From<E> for NoAnswer {
    fn from(error: E) -> Self {
        let error = error.into();
        let is_stores = matches!(
            error.code,
            ErrorCode::StoreUnavailable | ErrorCode::OutcomeUnknown
        );
        if is_stores {
            Self::Unstored(error)
        } else {
            Self::Failed(error)
        }
    }
}

/// Returns the result of a line. Fails only if the line must be tried again later.
pub(super) async fn answer<'a>(
    relay: &'a Relay,
    batch: &BatchRecord,
    wish: &CancellationToken,
    n: u32,
    line: &[u8],
) -> Result<Answered<'a>, ApiError> {
    let read = match Line::read(line, &batch.endpoint) {
        Ok(read) => read,
        // The line was validated before; only a damaged store leads here.
        Err(wrong) => {
            let error = ApiError::new(ErrorCode::BadRequest, wrong);
            return Ok(failed(&batch.id, &n.to_string(), n, &error));
        }
    };
    // A panic fails this line and no other one.
    let answered = AssertUnwindSafe(answered(relay, batch, wish, n, &read)).catch_unwind();
    let panicked = || Err(ApiError::internal().into());
    match answered.await.unwrap_or_else(|_| panicked()) {
        Ok((line, place)) => Ok(Answered {
            file: ResultFile::Output,
            line,
            _place: Some(place),
        }),
        Err(_) if relay.drain.is_cancelled() => Err(ApiError::draining()),
        Err(NoAnswer::Unstored(error)) => Err(error),
        Err(NoAnswer::Failed(error)) => {
            withdraw(relay, batch, n).await?;
            Ok(failed(&batch.id, &read.custom_id, n, &error))
        }
    }
}

/// Returns the answer to a line as it is written to the output file.
async fn answered<'a>(
    relay: &'a Relay,
    batch: &BatchRecord,
    wish: &CancellationToken,
    n: u32,
    line: &Line<'_>,
) -> Result<(Bytes, SemaphorePermit<'a>), NoAnswer> {
    let request = Request::parse(&batch.endpoint, line.body)?;
    let job = queued(relay, batch, wish, n, &request).await?;
    let log = relay.store.log(Owner::Account(&batch.account), job).await?;
    let log = log.ok_or_else(ApiError::unknown_job)?;
    let end = tokio::select! {
        end = end(relay, &*log) => end?,
        () = wish.cancelled() => {
            // If the job ended before the cancellation, its answer counts.
            drop(relay.store.cancel(relay.now(), Owner::Anyone, job).await);
            end(relay, &*log).await?
        }
    };
    if let End::Failed { error } = end {
        // A worker chose the code, so it says nothing about the relay's store.
        return Err(NoAnswer::Failed(error.into()));
    }
    let place = relay.batches.collecting.acquire().await;
    let place = place.map_err(|_| ApiError::draining())?;
    let mut buffer = AnswerBuffer::unmetered(relay, log);
    buffer.complete().await?;
    let named = Named {
        job,
        model: request.model().unwrap_or_default().to_owned(),
        created: relay.now(),
    };
    let body = request.answer(named, &buffer.lines)?;
    Ok((output_line(&line.custom_id, job, &body)?, place))
}

/// Waits for the end of a job. Its answer is read after that, so that a batch holds no memory while
/// its lines wait and run.
async fn end(relay: &Relay, log: &dyn JobLog) -> Result<End, ApiError> {
    let mut head = log.head();
    let end = tokio::select! {
        biased;
        head = head.wait_for(|head| head.end.is_some()) => head.ok().and_then(|head| head.end.clone()),
        () = relay.cuts_off(log) => None,
    };
    end.ok_or_else(ApiError::draining)
}

/// Cancels the job of a line, if there is one that has not ended: its answer is not needed.
pub(super) async fn withdraw(relay: &Relay, batch: &BatchRecord, n: u32) -> Result<(), ApiError> {
    let key = key(batch, n);
    let known = relay.store.submitted(&batch.account, &key).await?;
    let Some((job, _)) = known else { return Ok(()) };
    match relay.store.cancel(relay.now(), Owner::Anyone, job).await {
        Err(error) if error.is_of_store() || matches!(error, QueueError::DiskFull) => {
            Err(error.into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the job of a line has ended by itself, so that there is an answer or a reason why not.
pub(super) async fn has_ended(
    relay: &Relay,
    batch: &BatchRecord,
    n: u32,
) -> Result<bool, ApiError> {
    let key = key(batch, n);
    let known = relay.store.submitted(&batch.account, &key).await?;
    let Some((job, _)) = known else {
        return Ok(false);
    };
    let job = relay.store.get(Owner::Anyone, job).await?;
    Ok(job.is_some_and(|job| matches!(job.state, JobState::Completed | JobState::Failed)))
}

/// The `custom_id` of a line, if it can be read.
pub(super) fn custom_id(line: &[u8]) -> Option<String> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    Some(line.custom_id)
}

/// Returns the idempotency key of a line's job. Requesters' own keys cannot contain a line feed.
pub(super) fn key(batch: &BatchRecord, n: u32) -> String {
    format!("batch\n{}\n{n}", batch.id)
}

/// Submits the job of a line, or returns the one that was submitted before.
async fn queued(
    relay: &Relay,
    batch: &BatchRecord,
    wish: &CancellationToken,
    n: u32,
    request: &Request,
) -> Result<JobId, ApiError> {
    let key = key(batch, n);
    let known = relay.store.submitted(&batch.account, &key).await?;
    if let Some((job, _)) = known {
        return Ok(job);
    }
    let who = (batch.account.clone(), batch.who.clone());
    let caller = Caller::on_behalf(who.0, who.1, batch.ceiling.clone());
    loop {
        let now = relay.now();
        if wish.is_cancelled() {
            return Err(ApiError::new(
                ErrorCode::Cancelled,
                "the batch was cancelled",
            ));
        }
        if now >= batch.expires_at {
            let message = "the batch expired before this request was started";
            return Err(ApiError::new(ErrorCode::DeadlineExceeded, message));
        }
        let op = request.op();
        let model = relay.choose_model(&caller, op, request.model(), Attendance::Kept)?;
        let submission = Submission {
            op,
            body: request.native(&model),
            model,
            dialect: Dialect::OpenAi,
            priority: caller.priority(None, Priority::new(URGENCY).unwrap_or_default())?,
            wanted_for: Some(batch.expires_at.since(now)),
        };
        let idempotency_key = Some(IdempotencyKey {
            key: key.clone(),
            fingerprint: fingerprint(op, "", key.as_bytes()),
        });
        let extras = Extras {
            idempotency_key,
            ..Extras::default()
        };
        match relay.submit_with(&caller, submission, extras).await {
            Ok(submitted) => return Ok(submitted.id()),
            Err(full) if is_full(full.code) => {
                tokio::select! {
                    () = sleep(NO_ROOM) => {}
                    () = wish.cancelled() => {}
                    () = relay.drain.cancelled() => return Err(ApiError::draining()),
                }
            }
            Err(refused) => return Err(refused),
        }
    }
}

/// Whether the error means that the queue is full for now.
const fn is_full(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::QueueFull | ErrorCode::AccountFull | ErrorCode::DiskFull
    )
}

fn output_line(custom_id: &str, job: JobId, body: &[u8]) -> Result<Bytes, ApiError> {
    let body: Box<RawValue> = serde_json::from_slice(body).map_err(|_| ApiError::internal())?;
    let (custom_id, body) = (json!(custom_id), body.get());
    let line = format!(
        r#"{{"id":"batch_req_{job}","custom_id":{custom_id},"response":{{"status_code":200,"request_id":"req_{job}","body":{body}}},"error":null}}"#
    );
    Ok(line.into())
}

pub(super) fn failed(batch: &str, custom_id: &str, n: u32, error: &ApiError) -> Answered<'static> {
    let ours = |code: &str| json!({"code": code, "message": error.message});
    let (response, error) = if error.code == ErrorCode::DeadlineExceeded {
        (Value::Null, ours("batch_expired"))
    } else if error.code == ErrorCode::Cancelled {
        (Value::Null, ours("batch_cancelled"))
    } else {
        let status = error.status().as_u16();
        let body =
            dialect::openai::error(status, error.code, &error.message, error.param.as_deref());
        let response = json!({
            "status_code": status,
            "request_id": format!("req_{batch}_{n}"),
            "body": serde_json::from_slice::<Value>(&body).unwrap_or_default(),
        });
        (response, Value::Null)
    };
    let line = json!({
        "id": format!("batch_req_{batch}_{n}"),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    });
    Answered {
        file: ResultFile::Errors,
        line: line.to_string().into(),
        _place: None,
    }
}
