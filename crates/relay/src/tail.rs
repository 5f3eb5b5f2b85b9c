//! A reader that follows one job's log from any event to its end.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use proto::{End, EventId};
use queue::{JobLog, LogHead, LogPage};
use tokio::sync::watch;

use crate::error::ApiError;

/// Maximum number of bytes read from the log at once.
const PAGE: usize = 256 * 1024;

/// A reader of one log. Dropping a pending `next` loses nothing.
#[derive(Debug)]
pub(crate) struct Tail {
    log: Arc<dyn JobLog>,
    head: watch::Receiver<LogHead>,
    after: EventId,
    ready: VecDeque<Event>,
    /// See [`Tail::eager`].
    is_eager: bool,
    /// Attempt whose loss was already reported.
    told_lost: u32,
}

/// Next event of a log.
#[derive(Debug)]
pub(crate) enum Event {
    Line(EventId, Bytes),
    /// Another attempt began; earlier lines are void.
    Restarted(EventId),
    End(EventId, End),
}

impl Tail {
    pub(crate) fn new(log: Arc<dyn JobLog>, after: EventId) -> Self {
        let head = log.head();
        Self {
            log,
            head,
            after,
            ready: VecDeque::new(),
            is_eager: false,
            told_lost: 0,
        }
    }

    /// Makes the reader report a restart as soon as an attempt is lost, and not only when the next
    /// one begins, which may be never.
    pub(crate) const fn eager(mut self) -> Self {
        self.is_eager = true;
        self
    }

    /// Waits for the next event. Must not be called after the end.
    pub(crate) async fn next(&mut self) -> Result<Event, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            // Marked as seen before reading, so that a change during the read wakes this task
            // again.
            let lost = {
                let head = self.head.borrow_and_update();
                head.released.then_some(head.last.attempt)
            };
            let page = self.log.read(self.after, PAGE).await?;
            self.take(page);
            if self.ready.is_empty() && self.is_lost_now(lost) {
                return Ok(Event::Restarted(self.after));
            }
            if self.ready.is_empty() && self.head.changed().await.is_err() {
                return Err(ApiError::draining());
            }
        }
    }

    /// Whether the current attempt is lost and this was not reported yet.
    fn is_lost_now(&mut self, lost: Option<u32>) -> bool {
        let attempt = self.after.attempt;
        let is_news = self.is_eager && lost == Some(attempt) && self.told_lost != attempt;
        if is_news {
            self.told_lost = attempt;
        }
        is_news
    }

    fn take(&mut self, page: LogPage) {
        if page.restarted || page.attempt != self.after.attempt {
            self.after = EventId {
                attempt: page.attempt,
                n: 0,
            };
        }
        if page.restarted {
            self.ready.push_back(Event::Restarted(self.after));
        }
        for chunk in page.chunks {
            self.after.n = chunk.n;
            self.ready.push_back(Event::Line(self.after, chunk.line.0));
        }
        if let Some(end) = page.end {
            self.ready.push_back(Event::End(self.after, end));
        }
    }
}
