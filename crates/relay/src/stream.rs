//! Streams a job's log to its requester in a dialect, with heartbeats, restarts and failures.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use bytes::Bytes;
pub(crate) use dialect::broken_off as unfinished;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use proto::{End, ErrorCode, ErrorDetail, EventId, ModelName, Op};
use queue::{JobLog, QueuePosition};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    Relay,
    error::ApiError,
    headers,
    position::{PositionWatch, in_words, set_position_header},
    submission::{AttendedJob, CancelOnDrop},
    tail::{Event, Tail},
};

/// Stream format of one dialect.
pub(crate) trait StreamFormat: Send + 'static {
    /// Media type of the stream.
    const CONTENT_TYPE: &str;

    /// Converts one native line.
    fn line(&mut self, line: Bytes) -> Result<Bytes, ErrorDetail>;

    /// Whether this line, just converted, is the engine's last. A format that parses its lines
    /// knows without parsing again.
    fn was_last(&self, line: &[u8]) -> bool {
        is_last(line)
    }

    /// Returns a heartbeat that clients of the dialect tolerate.
    fn heartbeat(&mut self) -> Option<Bytes>;

    /// Returns the dialect's error in the middle of a stream.
    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes;

    /// Checks that the lines of a completed job made a whole answer.
    ///
    /// # Errors
    /// What is missing.
    fn end(&mut self) -> Result<(), ErrorDetail> {
        Ok(())
    }
}

/// Answers with a stream. A failure before the first line, and within the first heartbeat interval,
/// is still an HTTP status.
pub(crate) async fn streamed<V: StreamFormat>(
    relay: &Relay,
    attended: AttendedJob,
    format: V,
) -> Result<Response, ApiError> {
    let job = attended.guard.job;
    let account = attended.guard.caller.account.clone();
    let mut stream = AnswerStream {
        op: attended.op,
        model: attended.model.clone(),
        places: PositionWatch::new(relay, account, attended.model, job),
        place: None,
        relay: relay.clone(),
        tail: Tail::new(attended.log.clone(), EventId::default()).eager(),
        log: attended.log,
        guard: attended.guard,
        format,
        next: None,
        heartbeat_at: Instant::now() + relay.settings.heartbeat,
        has_sent: false,
        has_last: false,
        is_over: false,
    };
    stream.next = stream.first().await?;
    let place = if stream.next.is_none() {
        stream.places.now()
    } else {
        None
    };
    let body = stream::unfold(stream, |mut stream| async {
        let said = stream.next_bytes().await?;
        Some((Ok::<_, std::convert::Infallible>(said), stream))
    });
    let body = Body::from_stream(body);
    let mut response = streaming(V::CONTENT_TYPE, Some(job), body);
    set_position_header(&mut response, place);
    Ok(response)
}

/// Returns the head of a streamed response, which proxies must neither buffer nor cache.
pub(crate) fn streaming(
    content_type: &'static str,
    job: Option<proto::JobId>,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Some(job) = job {
        name_job(&mut response, job);
    }
    response
}

/// Sets the header with the job's id, so that the requester can fetch the answer later.
pub(crate) fn name_job(response: &mut Response, job: proto::JobId) {
    if let Ok(job) = HeaderValue::from_str(&job.to_string()) {
        response.headers_mut().insert(headers::JOB, job);
    }
}

struct AnswerStream<V> {
    op: Op,
    model: ModelName,
    places: PositionWatch,
    /// Position to send, for a requester who wants it.
    place: Option<QueuePosition>,
    relay: Relay,
    log: Arc<dyn JobLog>,
    tail: Tail,
    guard: CancelOnDrop,
    format: V,
    next: Option<Event>,
    /// Time by which the requester must be sent something: one heartbeat interval after it was last
    /// sent anything.
    heartbeat_at: Instant,
    has_sent: bool,
    has_last: bool,
    is_over: bool,
}

impl<V: StreamFormat> AnswerStream<V> {
    /// Returns the first line or the end; `None` if neither comes within a heartbeat interval, or a
    /// queue position to send comes first.
    async fn first(&mut self) -> Result<Option<Event>, ApiError> {
        let wants_position = self.guard.caller.wants_position;
        let first = async {
            loop {
                match self.tail.next().await? {
                    Event::Restarted(_) => {}
                    event @ Event::Line(..) => return Ok(event),
                    Event::End(at, end) => {
                        self.guard.disarm();
                        match end {
                            End::Completed => return Ok(Event::End(at, end)),
                            End::Failed { error } => return Err(error.into()),
                            End::Cancelled => return Err(cancelled()),
                        }
                    }
                }
            }
        };
        tokio::select! {
            biased;
            first = timeout_at(self.heartbeat_at, first) => first.ok().transpose(),
            place = self.places.changed(), if wants_position => {
                self.place = Some(place);
                Ok(None)
            }
            () = self.relay.cuts_off(&*self.log) => {
                self.guard.disarm();
                Err(ApiError::draining())
            }
        }
    }

    /// Returns the next bytes for the requester; `None` when the stream is over.
    async fn next_bytes(&mut self) -> Option<Bytes> {
        while !self.is_over {
            let event = match self.next.take() {
                Some(event) => Ok(event),
                None => match self.wait().await {
                    Some(event) => event,
                    None if self.place.is_some() => {
                        if let Some(thought) = self.position_thought() {
                            return Some(self.sent(thought));
                        }
                        continue;
                    }
                    None => match self.format.heartbeat() {
                        Some(beat) => return Some(self.sent(beat)),
                        None => {
                            self.heartbeat_at = Instant::now() + self.relay.settings.heartbeat;
                            continue;
                        }
                    },
                },
            };
            let said = match event {
                Ok(Event::Line(_, line)) if !self.has_last => self.translate(&line),
                Ok(Event::End(_, End::Completed)) => self.finish(End::Completed),
                // The answer has been sent in full. What becomes of the job afterwards, such as
                // losing its worker before the end is on disk, does not concern the requester.
                event if self.has_last => {
                    if matches!(event, Ok(Event::Restarted(_))) {
                        self.guard.rearm();
                    }
                    self.is_over = true;
                    None
                }
                Ok(Event::Line(_, line)) => self.translate(&line),
                Ok(Event::Restarted(_)) if self.has_sent => Some(self.fail(
                    ErrorCode::WorkerLost,
                    "the worker was lost in the middle of the answer; send the request again",
                )),
                Ok(Event::Restarted(_)) => None,
                Ok(Event::End(_, end)) => self.finish(end),
                Err(error) => Some(self.fail(error.code, &error.message)),
            };
            if let Some(said) = said {
                return Some(self.sent(said));
            }
        }
        None
    }

    /// Returns the next event; `None` when a position or a heartbeat is to be sent.
    async fn wait(&mut self) -> Option<Result<Event, ApiError>> {
        if self.place.is_some() {
            return None;
        }
        let wants_position = self.guard.caller.wants_position && !self.has_sent;
        tokio::select! {
            biased;
            event = self.tail.next() => Some(event),
            () = self.relay.cuts_off(&*self.log) => {
                // The relay ends the stream, not the requester.
                self.guard.disarm();
                Some(Err(ApiError::draining()))
            }
            place = self.places.changed(), if wants_position => {
                self.place = Some(place);
                None
            }
            () = sleep_until(self.heartbeat_at) => None,
        }
    }

    /// Returns the queue position as a thought of the model.
    fn position_thought(&mut self) -> Option<Bytes> {
        let words = in_words(self.place.take()?);
        let now = self.relay.now();
        let line = dialect::ollama::thought(self.op, &self.model, now, &words)?;
        self.format.line(line).ok().filter(|said| !said.is_empty())
    }

    fn sent(&mut self, bytes: Bytes) -> Bytes {
        self.heartbeat_at = Instant::now() + self.relay.settings.heartbeat;
        bytes
    }

    fn translate(&mut self, line: &Bytes) -> Option<Bytes> {
        let told = self.format.line(line.clone());
        if self.format.was_last(line) {
            self.has_last = true;
            // The requester has the whole answer; leaving now cancels nothing.
            self.guard.disarm();
        }
        match told {
            Ok(said) if said.is_empty() => None,
            Ok(said) => {
                self.has_sent = true;
                Some(said)
            }
            Err(detail) => Some(self.fail(detail.code, &detail.message)),
        }
    }

    fn finish(&mut self, end: End) -> Option<Bytes> {
        self.guard.disarm();
        self.is_over = true;
        match end {
            End::Completed => {
                self.relay.fetched(self.guard.job);
                let whole = if self.has_last {
                    Ok(())
                } else {
                    Err(unfinished())
                };
                let missing = whole.and_then(|()| self.format.end()).err()?;
                Some(self.fail(missing.code, &missing.message))
            }
            End::Failed { error } => Some(self.fail(error.code, &error.message)),
            End::Cancelled => Some(self.fail(ErrorCode::Cancelled, &cancelled().message)),
        }
    }

    fn fail(&mut self, code: ErrorCode, message: &str) -> Bytes {
        self.is_over = true;
        self.format.failure(code, message)
    }
}

/// Whether a line is the engine's last. Only the line's own `done` field counts, not one of a
/// nested object such as the arguments of a tool call.
fn is_last(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Line {
        done: bool,
    }
    serde_json::from_slice(line).is_ok_and(|line: Line| line.done)
}

pub(crate) fn cancelled() -> ApiError {
    ApiError::new(ErrorCode::Cancelled, "the job was cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_known_and_its_words_in_an_answer_are_not_taken_for_it() {
        assert!(is_last(
            br#"{"message":{"content":""},"done":true,"done_reason":"stop"}"#
        ));
        assert!(is_last(br#"{ "done" : true }"#));
        for going_on in [
            r#"{"message":{"content":"\"done\":true"},"done":false}"#,
            r#"{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"done":true}}}]},"done":false}"#,
            r#"{"message":{"tool_calls":[{"function":{"arguments":{"done":true}}}]}}"#,
            r#"{"embeddings":[[1.0]]}"#,
            r#""done":true"#,
        ] {
            assert!(!is_last(going_on.as_bytes()), "{going_on}");
        }
    }
}
