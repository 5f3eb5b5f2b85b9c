//! Synchronous requests: a job is queued, and the answer is returned in the dialect of the request.

use axum::{extract::FromRequestParts, response::Response};
use bytes::Bytes;
use dialect::{Answer, Named};
use http::request::Parts;
use proto::{Dialect, ErrorCode, ErrorDetail, ModelName, Op, Priority};

use crate::{
    Relay,
    auth::{Caller, MayEnqueue},
    error::ApiError,
    error_format::ErrorFormat,
    hint::WaitsFor,
    stream::{StreamFormat, streamed, unfinished},
    submission::{AttendedJob, Submission},
    whole_answer::whole,
};

/// Caller of a synchronous request, and its client's timeout for a non-streaming answer.
pub(super) struct Asker {
    relay: Relay,
    caller: Caller,
    waits: WaitsFor,
}

impl FromRequestParts<Relay> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, relay: &Relay) -> Result<Self, ApiError> {
        let MayEnqueue(caller) = MayEnqueue::from_request_parts(parts, relay).await?;
        Ok(Self {
            relay: relay.clone(),
            caller,
            waits: WaitsFor::in_headers(&parts.headers),
        })
    }
}

/// Properties of a request, without its content.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) op: Op,
    pub(super) dialect: Dialect,
    pub(super) model: Option<&'a str>,
    pub(super) stream: bool,
}

/// A request whose job is queued.
pub(super) struct Queued {
    relay: Relay,
    shape: ErrorFormat,
    attended: AttendedJob,
    named: Named,
    stream: bool,
}

impl Asker {
    /// Queues the job; `native` converts the request for the model that was chosen.
    pub(super) async fn queue(
        &self,
        asked: Asked<'_>,
        native: impl FnOnce(&ModelName) -> Bytes,
    ) -> Result<Queued, ApiError> {
        let Self { relay, caller, .. } = self;
        let patience = caller.attendance();
        let model = relay.choose_model(caller, asked.op, asked.model, patience)?;
        let name = asked.model.unwrap_or(model.as_str()).to_owned();
        // A stream is kept alive past its client's timeout, and the caller's own deadline takes
        // precedence.
        let hint = self.waits.0.filter(|_| !asked.stream);
        let submission = Submission {
            op: asked.op,
            body: native(&model),
            model,
            dialect: asked.dialect,
            priority: caller.priority(None, Priority::DEFAULT)?,
            wanted_for: hint.filter(|_| caller.wanted_for.is_none()),
        };
        let attended = relay.submit_attended(caller, submission).await?;
        let named = Named {
            job: attended.guard.job,
            model: name,
            created: relay.now(),
        };
        Ok(Queued {
            relay: relay.clone(),
            shape: ErrorFormat::of_dialect(asked.dialect),
            attended,
            named,
            stream: asked.stream,
        })
    }
}

impl Queued {
    /// Waits for the answer: a stream of events, or one object.
    pub(super) async fn answer<A: Answer>(
        self,
        begin: impl FnOnce(Named) -> A + Send + 'static,
    ) -> Result<Response, ApiError> {
        if self.stream {
            let events = Events(begin(self.named));
            return streamed(&self.relay, self.attended, events).await;
        }
        self.whole(|named, lines| begin(named).whole(lines)).await
    }

    /// Waits for the whole answer.
    pub(super) async fn whole(
        self,
        write: impl FnOnce(Named, &[Bytes]) -> Result<Bytes, ErrorDetail> + Send + 'static,
    ) -> Result<Response, ApiError> {
        let named = self.named;
        let write = move |lines: &[Bytes]| write(named, lines);
        whole(&self.relay, self.attended, self.shape, write).await
    }
}

/// Server-sent events.
struct Events<A>(A);

impl<A: Answer> StreamFormat for Events<A> {
    const CONTENT_TYPE: &str = "text/event-stream";

    fn line(&mut self, line: Bytes) -> Result<Bytes, ErrorDetail> {
        self.0.events(&line)
    }

    fn was_last(&self, _: &[u8]) -> bool {
        self.0.is_finished()
    }

    fn heartbeat(&mut self) -> Option<Bytes> {
        Some(self.0.heartbeat())
    }

    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes {
        self.0.failure(code, &dialect::ollama::sentence(message))
    }

    fn end(&mut self) -> Result<(), ErrorDetail> {
        if self.0.is_finished() {
            Ok(())
        } else {
            Err(unfinished())
        }
    }
}

#[cfg(test)]
mod tests {
    use dialect::{anthropic, openai};
    use proto::{JobId, Timestamp};

    use super::*;

    #[test]
    fn a_failure_within_a_stream_is_told_in_the_words_of_one_before_it() {
        let wrapped = r#"{"error":{"code":400,"message":"it is too long"}}"#;
        let named = || Named {
            job: JobId([7; 16]),
            model: "m".into(),
            created: Timestamp(0),
        };
        let code = ErrorCode::EngineRefused;
        let mut openai = Events(openai::Completion::new(named(), false));
        let mut anthropic = Events(anthropic::Message::new(named()));
        for failure in [
            openai.failure(code, wrapped),
            anthropic.failure(code, wrapped),
        ] {
            let failure = String::from_utf8_lossy(&failure);
            assert!(
                failure.contains(r#""message":"it is too long""#),
                "{failure}"
            );
        }
    }
}
