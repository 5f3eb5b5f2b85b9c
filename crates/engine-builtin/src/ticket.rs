//! Requests on their way to the thread that owns the model, and their answers on the way back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Instant,
};

use bytes::Bytes;
use engine::{EngineError, Lines};
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};

use crate::request::Request;

/// A request for the thread.
pub(crate) struct Ticket {
    pub(crate) request: Request,
    pub(crate) asked: Instant,
    pub(crate) answer: Answer,
}

/// The thread's side of a request: sends the answer.
pub(crate) struct Answer {
    accepted: Option<oneshot::Sender<Result<(), EngineError>>>,
    lines: mpsc::Sender<Item>,
    stop: Arc<AtomicBool>,
}

/// A line, and whether it is the last one.
struct Item {
    line: Result<Bytes, EngineError>,
    is_last: bool,
}

/// The requester's side of a request.
pub(crate) struct Receipt {
    accepted: oneshot::Receiver<Result<(), EngineError>>,
    lines: mpsc::Receiver<Item>,
}

/// Creates both sides. An answer has at most `most` lines, so that sending one never waits for the
/// reader, and a slow reader never delays the next request.
pub(crate) fn pair(most: usize, stop: Arc<AtomicBool>) -> (Answer, Receipt) {
    let (accept, accepted) = oneshot::channel();
    let (send, lines) = mpsc::channel(most);
    let answer = Answer {
        accepted: Some(accept),
        lines: send,
        stop,
    };
    (answer, Receipt { accepted, lines })
}

impl Answer {
    /// Whether to continue: `false` once the reader is gone or the engine is being closed.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.lines.is_closed() && !self.stop.load(Ordering::Relaxed)
    }

    /// Tells the requester that lines will follow.
    pub(crate) fn accept(&mut self) {
        if let Some(accepted) = self.accepted.take() {
            // The reader is gone; the next call of `is_wanted` returns `false`.
            let _gone = accepted.send(Ok(()));
        }
    }

    pub(crate) fn line(&self, line: Bytes) {
        self.send(Ok(line), false);
    }

    pub(crate) fn last(mut self, line: Bytes) {
        self.accept();
        self.send(Ok(line), true);
    }

    /// Refuses the request before the first line, or aborts the answer after it.
    pub(crate) fn fail(mut self, error: EngineError) {
        match self.accepted.take() {
            Some(accepted) => {
                let _gone = accepted.send(Err(error));
            }
            None => self.send(Err(error), true),
        }
    }

    fn send(&self, line: Result<Bytes, EngineError>, is_last: bool) {
        // The channel cannot be full, see `pair`; if it is closed, nobody wants the line.
        let _gone = self.lines.try_send(Item { line, is_last });
    }
}

impl Receipt {
    /// Waits until the request is accepted or refused.
    pub(crate) async fn lines(self) -> Result<Lines, EngineError> {
        match self.accepted.await {
            Ok(Ok(())) => Ok(follow(self.lines)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(EngineError::Unavailable(
                "the built-in engine was closed before it started the request".to_owned(),
            )),
        }
    }
}

/// Returns the lines, with an error if they end before the last one.
fn follow(mut lines: mpsc::Receiver<Item>) -> Lines {
    let mut ended = false;
    Box::pin(stream::poll_fn(move |cx| {
        if ended {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(lines.poll_recv(cx));
        let item = item.unwrap_or_else(|| Item {
            line: Err(EngineError::Broken(
                "the built-in engine ended before the answer did".to_owned(),
            )),
            is_last: true,
        });
        ended = item.is_last;
        Poll::Ready(Some(item.line))
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn new_pair() -> (Answer, Receipt) {
        pair(8, Arc::default())
    }

    #[tokio::test]
    async fn lines_end_after_the_last_one() {
        let (mut answer, receipt) = new_pair();
        answer.accept();
        answer.line(Bytes::from("a"));
        answer.last(Bytes::from("b"));
        let lines: Vec<_> = receipt.lines().await.unwrap().collect().await;
        assert_eq!(lines, [Ok(Bytes::from("a")), Ok(Bytes::from("b"))]);
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_half_way_is_an_error_not_an_end() {
        let (mut answer, receipt) = new_pair();
        answer.accept();
        answer.line(Bytes::from("a"));
        drop(answer);
        let lines: Vec<_> = receipt.lines().await.unwrap().collect().await;
        assert!(matches!(&lines[..], [Ok(_), Err(EngineError::Broken(_))]));
    }

    #[tokio::test]
    async fn a_failure_before_the_first_line_is_a_refusal() {
        let (answer, receipt) = new_pair();
        answer.fail(EngineError::Busy("x".to_owned()));
        assert!(matches!(receipt.lines().await, Err(EngineError::Busy(_))));
        let (answer, receipt) = new_pair();
        drop(answer);
        assert!(matches!(
            receipt.lines().await,
            Err(EngineError::Unavailable(_))
        ));
    }

    #[tokio::test]
    async fn an_answer_is_wanted_until_its_reader_goes_or_the_engine_stops() {
        let (answer, receipt) = new_pair();
        assert!(answer.is_wanted());
        drop(receipt);
        assert!(!answer.is_wanted());
        let stop = Arc::new(AtomicBool::new(false));
        let (answer, _receipt) = pair(8, Arc::clone(&stop));
        stop.store(true, Ordering::Relaxed);
        assert!(!answer.is_wanted());
    }
}
