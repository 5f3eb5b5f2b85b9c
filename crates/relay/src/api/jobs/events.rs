//! `GET /api/jobs/{id}/events` is a server-sent event stream. Each event has the id `attempt-n`;
//! a client that lost the stream sends the last one as `Last-Event-ID`, or as `after=`:
//!
//! ```text
//!                     one native line as data, without a name
//! event: restarted    {"attempt":2}: forget what came before, the answer begins anew
//! event: end          {"state":"completed"}, or failed with its error, or cancelled
//! : ping              every heartbeat of silence
//! ```

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use proto::{ErrorCode, EventId, JobId};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::{
    Relay,
    auth::MayRead,
    error::ApiError,
    stream::{name_job, streaming},
    tail::{Event, Tail},
    target::{InPath, InQuery},
};

#[derive(Deserialize)]
pub(in crate::api) struct EventsQuery {
    after: Option<EventId>,
}

/// `GET /api/jobs/{id}/events`.
pub(in crate::api) async fn events(
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
