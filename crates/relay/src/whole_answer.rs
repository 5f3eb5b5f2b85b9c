//! A job's log as one JSON object. If it takes long, whitespace is sent first, which every JSON
//! parser skips, so that proxies keep the connection.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use proto::{End, ErrorCode, ErrorDetail, EventId, JobId};
use queue::JobLog;
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    Relay,
    api::written,
    auth::Caller,
    budget::BudgetShare,
    error::ApiError,
    error_format::ErrorFormat,
    stream::{cancelled, name_job, streaming, unfinished},
    submission::{AttendedJob, CancelOnDrop},
    tail::{Event, Tail},
};

/// Maximum size of an answer that is buffered for one object, in bytes.
const WHOLE_MAX: usize = 64 * 1024 * 1024;

/// Answers with what `write` makes of all lines once the job has completed. After `pad_after` the
/// status 200 and whitespace are sent before the outcome is known; a later failure is then only
/// visible in the body.
pub(crate) async fn whole<F>(
    relay: &Relay,
    attended: AttendedJob,
    shape: ErrorFormat,
    write: F,
) -> Result<Response, ApiError>
where
    F: FnOnce(&[Bytes]) -> Result<Bytes, ErrorDetail> + Send + 'static,
{
    let job = attended.guard.job;
    let AttendedJob { log, guard, .. } = attended;
    let mut buffer = AnswerBuffer::new(relay, log, &guard.caller);
    let patience = relay.settings.pad_after;
    let in_time = if patience.is_zero() {
        Ok(buffer.complete().await)
    } else {
        timeout(patience, buffer.complete()).await
    };
    if let Ok(completed) = in_time {
        buffer.release(guard);
        completed?;
        let answer = write(&buffer.lines)?;
        let mut response = written(shape.content_type(), buffer.held(answer));
        name_job(&mut response, job);
        return Ok(response);
    }
    let padded = Padded {
        every: relay.settings.heartbeat,
        buffer,
        guard,
        job,
        shape,
        write,
        has_begun: false,
    };
    let body = stream::unfold(Some(padded), |padded| async {
        let (said, padded) = padded?.next_chunk().await;
        Some((Ok::<_, Infallible>(said), padded))
    });
    let body = Body::from_stream(body);
    Ok(streaming(shape.content_type(), Some(job), body))
}

/// Waits until a job has completed whose answer is not needed.
pub(crate) async fn finished(relay: &Relay, attended: AttendedJob) -> Result<(), ApiError> {
    let mut buffer = AnswerBuffer::unmetered(relay, attended.log);
    let completed = buffer.complete().await;
    buffer.release(attended.guard);
    completed
}

/// A response whose status was sent before the outcome was known.
struct Padded<F> {
    buffer: AnswerBuffer,
    guard: CancelOnDrop,
    job: JobId,
    shape: ErrorFormat,
    write: F,
    every: Duration,
    has_begun: bool,
}

impl<F: FnOnce(&[Bytes]) -> Result<Bytes, ErrorDetail>> Padded<F> {
    /// Returns whitespace and the rest of the response; or the object, and `None`.
    async fn next_chunk(mut self) -> (Bytes, Option<Self>) {
        let completed = if self.has_begun {
            timeout(self.every, self.buffer.complete()).await.ok()
        } else {
            self.has_begun = true;
            None
        };
        let Some(completed) = completed else {
            return (Bytes::from_static(b"\n"), Some(self));
        };
        self.buffer.release(self.guard);
        let (write, buffer) = (self.write, self.buffer);
        let object = completed.and_then(|()| {
            let answer = write(&buffer.lines)?;
            Ok(buffer.held(answer))
        });
        let failed = |error| {
            let id = dialect::anthropic::request_id(self.job);
            self.shape.body(&error, Some(&id))
        };
        (object.unwrap_or_else(failed), None)
    }
}

/// Lines of a job so far. Dropping a pending `complete` loses nothing.
pub(crate) struct AnswerBuffer {
    relay: Relay,
    log: Arc<dyn JobLog>,
    tail: Tail,
    pub(crate) lines: Vec<Bytes>,
    share: BudgetShare,
    has_ended: bool,
    is_cut_off: bool,
}

impl AnswerBuffer {
    pub(crate) fn new(relay: &Relay, log: Arc<dyn JobLog>, reader: &Caller) -> Self {
        Self::within(relay, log, relay.gathered.share(&reader.claimant()))
    }

    /// Creates an empty buffer for the relay's own use, which is never refused memory.
    pub(crate) fn unmetered(relay: &Relay, log: Arc<dyn JobLog>) -> Self {
        Self::within(relay, log, relay.gathered.own_share())
    }

    fn within(relay: &Relay, log: Arc<dyn JobLog>, share: BudgetShare) -> Self {
        Self {
            relay: relay.clone(),
            tail: Tail::new(log.clone(), EventId::default()),
            log,
            lines: Vec::new(),
            share,
            has_ended: false,
            is_cut_off: false,
        }
    }

    /// Ties the memory share to the finished answer, and drops the lines.
    pub(crate) fn held(self, answer: Bytes) -> Bytes {
        self.share.held(answer)
    }

    /// Disarms the cancellation if the job has ended or the relay shuts down; neither must cancel
    /// the job.
    fn release(&self, mut guard: CancelOnDrop) {
        if self.has_ended {
            guard.disarm();
            self.relay.fetched(guard.job);
        } else if self.is_cut_off {
            guard.disarm();
        }
    }

    /// Waits until all lines of a completed job have arrived.
    pub(crate) async fn complete(&mut self) -> Result<(), ApiError> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.tail.next() => event?,
                () = self.relay.cuts_off(&*self.log) => {
                    self.is_cut_off = true;
                    return Err(ApiError::draining());
                }
            };
            match event {
                Event::Restarted(_) => {
                    self.lines.clear();
                    self.share.clear();
                }
                Event::Line(_, line) => {
                    self.share.grow(line.len())?;
                    if self.share.bytes() > WHOLE_MAX {
                        return Err(ApiError::new(
                            ErrorCode::TooLarge,
                            "the answer is too large for one object; request a stream",
                        ));
                    }
                    self.lines.push(line);
                }
                Event::End(_, end) => {
                    self.has_ended = true;
                    return match end {
                        End::Completed if self.is_whole() => Ok(()),
                        End::Completed => Err(unfinished().into()),
                        End::Failed { error } => Err(error.into()),
                        End::Cancelled => Err(cancelled()),
                    };
                }
            }
        }
    }

    /// Whether the engine wrote its last line. Embeddings have a single line without the field.
    fn is_whole(&self) -> bool {
        #[derive(Deserialize)]
        struct Line {
            done: Option<bool>,
        }
        let last = self.lines.last().map(|line| serde_json::from_slice(line));
        last.is_some_and(|last| last.is_ok_and(|line: Line| line.done != Some(false)))
    }
}
