//! A question of a requester who waits: a job for it, and the answer in the words of its dialect.

use axum::response::Response;
use bytes::Bytes;
use dialect::{Answer, Named};
use proto::{Dialect, ErrorCode, ErrorDetail, ModelName, Op, Priority};

use super::written;
use crate::{
    Relay,
    auth::Caller,
    error::ApiError,
    stream::{Voice, name_job, streamed, whole},
    ticket::{Order, Ticket},
};

/// What is asked, apart from the question itself.
pub(super) struct Asked<'a> {
    pub(super) relay: &'a Relay,
    pub(super) caller: &'a Caller,
    pub(super) op: Op,
    pub(super) dialect: Dialect,
    pub(super) model: Option<&'a str>,
}

/// A question that is queued.
pub(super) struct Queued<'a> {
    relay: &'a Relay,
    ticket: Ticket,
    named: Named,
}

impl<'a> Asked<'a> {
    /// Queues the job; `native` writes it for the model that will answer.
    pub(super) async fn queue(
        self,
        native: impl FnOnce(&ModelName) -> Bytes,
    ) -> Result<Queued<'a>, ApiError> {
        let Self { relay, caller, .. } = self;
        let model = relay.choose_model(&caller.account, self.op, self.model, caller.patience())?;
        let name = self.model.unwrap_or(model.as_str()).to_owned();
        let order = Order {
            op: self.op,
            body: native(&model),
            model,
            dialect: self.dialect,
            priority: Priority::default(),
            wanted_for: None,
        };
        let ticket = relay.attend(caller, order).await?;
        let named = Named {
            job: ticket.guard.job,
            model: name,
            created: relay.now(),
        };
        Ok(Queued {
            relay,
            ticket,
            named,
        })
    }
}

impl Queued<'_> {
    /// Waits for the answer, as events while it comes or as one object.
    pub(super) async fn answer<A: Answer>(
        self,
        stream: bool,
        begin: impl FnOnce(Named) -> A,
    ) -> Result<Response, ApiError> {
        if stream {
            let events = Events(begin(self.named));
            return streamed(self.relay, self.ticket, events).await;
        }
        self.whole(|named, lines| begin(named).whole(lines)).await
    }

    /// Waits for the whole answer.
    pub(super) async fn whole(
        self,
        write: impl FnOnce(Named, &[Bytes]) -> Result<Bytes, ErrorDetail>,
    ) -> Result<Response, ApiError> {
        let job = self.ticket.guard.job;
        let lines = whole(self.relay, self.ticket).await?;
        let mut response = written("application/json", write(self.named, &lines)?);
        name_job(&mut response, job);
        Ok(response)
    }
}

/// Server-sent events.
struct Events<A>(A);

impl<A: Answer> Voice for Events<A> {
    const CONTENT_TYPE: &str = "text/event-stream";

    fn line(&mut self, line: Bytes) -> Result<Bytes, ErrorDetail> {
        self.0.events(&line)
    }

    fn heartbeat(&mut self) -> Option<Bytes> {
        Some(self.0.heartbeat())
    }

    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes {
        self.0.failure(code, message)
    }

    fn end(&mut self) -> Result<(), ErrorDetail> {
        if self.0.is_finished() {
            return Ok(());
        }
        Err(ErrorDetail {
            code: ErrorCode::EngineFailed,
            message: "the engine ended without a complete answer; send the request again".into(),
        })
    }
}
