//! `GET /api/jobs/{id}/events`: a job's log as server-sent events. Each event has the id
//! `attempt-n`; a client that lost the stream sends the last id as `Last-Event-ID`, or as `after=`:
//!
//! ```text
//!                     one native line as data, without a name
//! event: queued       {"position":3,"expected_wait_ms":20000}: number of jobs before it and the
//!                     estimated wait; sent on changes, at most once a second, without an id
//! event: restarted    {"attempt":2}: discard earlier lines, the answer starts over
//! event: end          {"state":"completed"}, or failed with its error, or cancelled
//! : ping              after each heartbeat interval without an event
//! ```

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use proto::{ErrorCode, EventId, JobId};
use queue::JobLog;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::{
    Relay,
    auth::MayRead,
    error::ApiError,
    headers::LAST_EVENT,
    position::{PositionWatch, as_json},
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

    let job = relay.store.get(caller.owner(), id).await?;
    let job = job.ok_or_else(ApiError::unknown_job)?;
    let places = (!job.state.is_final())
        .then(|| PositionWatch::new(&relay, job.new.account, job.new.model, id));
    let watcher = Watcher {
        job: id,
        relay,
        tail: Tail::new(log.clone(), after),
        log,
        places,
    };
    let body = stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let (said, is_over) = watcher.next().await?;
        Some((
            Ok::<_, std::convert::Infallible>(said),
            (!is_over).then_some(watcher),
        ))
    });
    let mut response = streaming("text/event-stream", None, Body::from_stream(body));
    name_job(&mut response, id);
    Ok(response)
}

struct Watcher {
    job: JobId,
    relay: Relay,
    log: Arc<dyn JobLog>,
    tail: Tail,
    /// `None` for a job that had already ended.
    places: Option<PositionWatch>,
}

impl Watcher {
    /// Returns the next event and whether it is the last; `None` when the relay shuts down, so that
    /// the client resumes later.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        let beat_at = Instant::now() + self.relay.settings.heartbeat;
        let place = async {
            match &mut self.places {
                Some(places) => places.changed().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            event = self.tail.next() => event.ok()?,
            () = self.relay.cuts_off(&*self.log) => return None,
            place = place => {
                let data = as_json(place);
                let queued = [b"event: queued\ndata: ", data.as_slice(), b"\n\n"].concat();
                return Some((queued.into(), false));
            }
            () = sleep_until(beat_at) => {
                return Some((Bytes::from_static(b": ping\n"), false));
            }
        };
        Some(match event {
            Event::Line(id, line) => (sse("", id, &line), false),
            Event::Restarted(id) => {
                let data = format!(r#"{{"attempt":{}}}"#, id.attempt);
                (sse("restarted", id, data.as_bytes()), false)
            }
            Event::End(id, end) => {
                self.relay.fetched(self.job);
                let end = serde_json::to_vec(&end).unwrap_or_default();
                (sse("end", id, &end), true)
            }
        })
    }
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
    let Some(value) = headers.get(LAST_EVENT) else {
        return Ok(None);
    };
    let id = value.to_str().unwrap_or_default().parse();
    id.map(Some).map_err(|error: &str| bad(error))
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}
