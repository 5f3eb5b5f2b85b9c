//! Hearth's own API: submit a job, look at it, follow its log, withdraw it.
//!
//! `GET /api/jobs/{id}/events` is a server-sent event stream. Each event has the id `attempt-n`;
//! a client that lost the stream sends the last one as `Last-Event-ID`, or as `after=`:
//!
//! ```text
//!                     one native line as data, without a name
//! event: restarted    {"attempt":2}: forget what came before, the answer begins anew
//! event: end          {"state":"completed"}, or failed with its error, or cancelled
//! : ping              every heartbeat of silence
//! ```

use std::time::Duration;

use axum::{Json, body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use proto::{Dialect, ErrorCode, EventId, JobId, JobView, SubmitJob};
use queue::Job;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::{
    Relay,
    auth::{MayEnqueue, MayRead},
    error::ApiError,
    intake::Patience,
    payload::{Inference, Payload},
    stream::{name_job, streaming},
    tail::{Event, Tail},
    target::{InPath, InQuery},
    ticket::Order,
};

/// Most jobs in one list.
const LIST_MAX: usize = 1000;

/// `POST /api/jobs`.
pub(super) async fn submit(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let job: SubmitJob = serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::BadRequest
        } else {
            ErrorCode::MalformedJson
        };
        ApiError::new(code, error.to_string())
    })?;
    let native = Bytes::from(String::from(Box::<str>::from(job.body)));
    let head = dialect::ollama::request_head(&native)?;
    let asked = head.model.as_deref();
    let model = relay.choose_model(&caller.account, job.op, asked, Patience::Kept)?;
    let native = match asked {
        Some(_) => native,
        None => dialect::ollama::with_model(&native, &model)?,
    };
    let order = Order {
        op: job.op,
        model,
        body: native,
        dialect: Dialect::Native,
        priority: job.priority,
        wanted_for: job.deadline_ms.map(Duration::from_millis),
    };
    let id = relay.submit(&caller, order).await?;
    let job = relay.store.get(caller.owner(), id).await?;
    let job = job.ok_or_else(ApiError::unknown_job)?;
    Ok((StatusCode::ACCEPTED, Json(view(job))))
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    #[serde(default = "ListQuery::default_limit")]
    limit: usize,
}

impl ListQuery {
    const fn default_limit() -> usize {
        100
    }
}

/// `GET /api/jobs?limit=`: newest first.
pub(super) async fn list(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Json<Vec<JobView>>, ApiError> {
    let jobs = relay
        .store
        .list(caller.owner(), query.limit.min(LIST_MAX))
        .await?;
    Ok(Json(jobs.into_iter().map(view).collect()))
}

/// `GET /api/jobs/{id}`.
pub(super) async fn get(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InPath(id): InPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    let job = relay.store.get(caller.owner(), id).await?;
    let job = job.ok_or_else(ApiError::unknown_job)?;
    relay.orphans.claim(id);
    Ok(Json(view(job)))
}

/// `DELETE /api/jobs/{id}`: withdraws it.
pub(super) async fn cancel(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    InPath(id): InPath<JobId>,
) -> Result<StatusCode, ApiError> {
    relay.store.cancel(relay.now(), caller.owner(), id).await?;
    tracing::info!(job.id = %id, "cancelled by request");
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    after: Option<EventId>,
}

/// `GET /api/jobs/{id}/events`.
pub(super) async fn events(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InPath(id): InPath<JobId>,
    InQuery(query): InQuery<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = last_event_id(&headers)?.or(query.after).unwrap_or_default();
    let log = relay.store.log(caller.owner(), id).await?;
    let log = log.ok_or_else(ApiError::unknown_job)?;
    relay.orphans.claim(id);

    let reader = Some((relay, Tail::new(log, after)));
    let body = stream::unfold(reader, |reader| async {
        let (relay, mut tail) = reader?;
        let (said, is_over) = next_event(&relay, &mut tail).await?;
        let reader = (!is_over).then_some((relay, tail));
        Some((Ok::<_, std::convert::Infallible>(said), reader))
    });
    let mut response = streaming("text/event-stream", None, Body::from_stream(body));
    name_job(&mut response, id);
    Ok(response)
}

/// The next event and whether it is the last; `None` when the relay stops: the client resumes.
async fn next_event(relay: &Relay, tail: &mut Tail) -> Option<(Bytes, bool)> {
    let heartbeat = Instant::now() + relay.settings.heartbeat;
    let event = tokio::select! {
        biased;
        event = tail.next() => event.ok()?,
        () = relay.stop.cancelled() => return None,
        () = sleep_until(heartbeat) => return Some((Bytes::from_static(b": ping\n"), false)),
    };
    Some(match event {
        Event::Line(id, line) => (sse("", id, &line), false),
        Event::Restarted(id) => {
            let data = format!(r#"{{"attempt":{}}}"#, id.attempt);
            (sse("restarted", id, data.as_bytes()), false)
        }
        Event::End(id, end) => {
            let end = serde_json::to_vec(&end).unwrap_or_default();
            (sse("end", id, &end), true)
        }
    })
}

fn sse(event: &str, id: EventId, data: &[u8]) -> Bytes {
    let name = match event {
        "" => String::new(),
        named => format!("event: {named}\n"),
    };
    let head = format!("{name}id: {id}\ndata: ");
    [head.as_bytes(), data, b"\n\n"].concat().into()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = value.to_str().unwrap_or_default().parse();
    id.map(Some).map_err(|error: &str| bad(error))
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

fn view(job: Job) -> JobView {
    JobView {
        id: job.new.id,
        state: job.state,
        account: job.new.account,
        op: job.new.op,
        model: job.new.model,
        priority: job.new.priority,
        attempt: job.attempt,
        created_at: job.created_at,
        finished_at: job.finished_at,
        deadline: job.new.deadline,
        error: job.error.map(Into::into),
    }
}
