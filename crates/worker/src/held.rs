//! A held lease: its job, its unsent lines and its end.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    End, ErrorCode, JobError, LeaseToken, Timestamp,
    status::LiveJob,
    worker::{LeaseHead, Retry},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Totals, outbox::Outbox};

/// Maximum number of bytes in one [`Outgoing::Lines`], unless a single line is longer.
const BATCH_MAX: usize = 64 * 1024;

/// Maximum length of a requester's name in the status, in characters.
const WHO_MAX: usize = 64;

/// The next message that a link must send to the relay.
#[derive(Clone, PartialEq)]
pub enum Outgoing {
    /// New lines of an answer.
    Lines {
        /// The lease.
        token: LeaseToken,
        /// Number of the first line.
        first: u64,
        /// The lines, in order.
        lines: Vec<Bytes>,
    },
    /// The job has ended; all its lines were returned before.
    End {
        /// The lease.
        token: LeaseToken,
        /// Number of its lines.
        lines: u64,
        /// Outcome of the job.
        end: End,
    },
    /// The job is given back.
    Nack {
        /// The lease.
        token: LeaseToken,
        /// Treatment of the job.
        retry: Retry,
        /// Reason.
        why: JobError,
    },
}

impl Outgoing {
    /// The lease that the message is about.
    #[must_use]
    pub const fn token(&self) -> LeaseToken {
        match self {
            Self::Lines { token, .. } | Self::End { token, .. } | Self::Nack { token, .. } => {
                *token
            }
        }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lines { first, lines, .. } => {
                write!(f, "Lines({} from {first})", lines.len())
            }
            Self::End { lines, end, .. } => write!(f, "End({lines} lines, {end:?})"),
            Self::Nack { retry, why, .. } => write!(f, "Nack({retry:?}, {})", why.code),
        }
    }
}

/// End of a job at this worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// With an answer, or refused by the engine.
    End(End),
    /// Given back.
    Nack(Retry, JobError),
}

impl Ending {
    pub(crate) fn nack(retry: Retry, code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Nack(retry, JobError::new(code, message))
    }
}

#[derive(Debug)]
enum Phase {
    Running,
    Ended { ending: Ending, sent: bool },
}

/// A held lease.
#[derive(Debug)]
pub(crate) struct Held {
    head: LeaseHead,
    pub(crate) outbox: Outbox,
    /// Whether it is urgent and takes no slot, up to the limit of such jobs.
    pub(crate) is_urgent: bool,
    phase: Phase,
    /// Whether the relay has confirmed the lease on this link.
    pub(crate) confirmed: bool,
    /// Time of the last message to the relay about it.
    pub(crate) renewed: Instant,
    /// Cancelled to stop the job, which drops the engine's answer.
    pub(crate) stop: CancellationToken,
    /// Notified when there is room for more lines.
    pub(crate) room: Arc<Notify>,
    started_at: Timestamp,
    first_line: Option<Instant>,
}

impl Held {
    pub(crate) fn new(head: LeaseHead, started_at: Timestamp, stop: CancellationToken) -> Self {
        Self {
            head,
            outbox: Outbox::default(),
            is_urgent: false,
            phase: Phase::Running,
            confirmed: true,
            renewed: Instant::now(),
            stop,
            room: Arc::default(),
            started_at,
            first_line: None,
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(crate) fn push(&mut self, line: Bytes) {
        self.first_line.get_or_insert_with(Instant::now);
        self.outbox.push(line);
    }

    /// Ends the job unless it has ended, and stops it if it still runs.
    pub(crate) fn end(&mut self, ending: Ending) -> bool {
        if !self.is_running() {
            return false;
        }
        self.give_up(ending);
        true
    }

    /// Ends the job in this way even if it has already ended, and stops it if it still runs.
    pub(crate) fn give_up(&mut self, ending: Ending) {
        self.phase = Phase::Ended {
            ending,
            sent: false,
        };
        self.stop.cancel();
        self.room.notify_one();
    }

    /// Marks everything unacknowledged as unsent, for a new link.
    pub(crate) const fn rewind(&mut self) {
        self.outbox.rewind();
        if let Phase::Ended { sent, .. } = &mut self.phase {
            *sent = false;
        }
    }

    /// Returns what to send next, if anything; it counts as sent from now on.
    pub(crate) fn next(&mut self) -> Option<Outgoing> {
        if !self.confirmed {
            return None;
        }
        let token = self.head.token;
        if let Phase::Ended {
            ending: Ending::Nack(retry, why),
            sent,
        } = &mut self.phase
        {
            return (!std::mem::replace(sent, true)).then(|| Outgoing::Nack {
                token,
                retry: *retry,
                why: why.clone(),
            });
        }
        if let Some((first, lines)) = self.outbox.take(BATCH_MAX) {
            self.renewed = Instant::now();
            return Some(Outgoing::Lines {
                token,
                first,
                lines,
            });
        }
        match &mut self.phase {
            Phase::Ended {
                ending: Ending::End(end),
                sent,
            } => (!std::mem::replace(sent, true)).then(|| Outgoing::End {
                token,
                lines: self.outbox.last(),
                end: end.clone(),
            }),
            Phase::Ended { .. } | Phase::Running => None,
        }
    }

    /// Counts the job among the ended ones; `lost` is the error if its lease was lost.
    pub(crate) fn count(&self, lost: Option<ErrorCode>, totals: &mut Totals) {
        let total = match &self.phase {
            Phase::Ended { ending, .. } if lost.is_none() => match ending {
                Ending::End(End::Completed) => &mut totals.completed,
                Ending::End(End::Failed { .. }) => &mut totals.failed,
                Ending::End(End::Cancelled) => &mut totals.cancelled,
                Ending::Nack(Retry::Never, why) if why.code == ErrorCode::Cancelled => {
                    &mut totals.cancelled
                }
                Ending::Nack(Retry::Never, _) => &mut totals.failed,
                Ending::Nack(Retry::Now | Retry::AfterMs(_), _) => &mut totals.given_back,
            },
            _ if lost == Some(ErrorCode::Cancelled) => &mut totals.cancelled,
            Phase::Ended { .. } | Phase::Running => &mut totals.given_back,
        };
        *total += 1;
        totals.tokens += self.outbox.last();
    }

    /// The running job, for display.
    pub(crate) fn live(&self) -> LiveJob {
        let tokens = self.outbox.last();
        let seconds = self
            .first_line
            .map_or(0.0, |first| first.elapsed().as_secs_f32());
        let after_first = u16::try_from(tokens.saturating_sub(1)).unwrap_or(u16::MAX);
        LiveJob {
            id: self.head.token.job,
            who: shown(&self.head.who),
            model: self.head.model.clone(),
            op: self.head.op,
            started_at: self.started_at,
            tokens,
            tokens_per_second: if seconds > 0.0 {
                f32::from(after_first) / seconds
            } else {
                0.0
            },
        }
    }
}

/// Shortens a name for display, so that a relay cannot fill the status with a long one.
fn shown(who: &str) -> String {
    who.chars()
        .filter(|char| !char.is_control())
        .take(WHO_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_and_what_steers_a_terminal_taken_out() {
        assert_eq!(shown("laptop"), "laptop");
        assert_eq!(shown(&"ż".repeat(500)), "ż".repeat(WHO_MAX));
        assert_eq!(shown("a\u{1b}[31m\r\n\u{85}b"), "a[31mb");
        let hidden = format!("{}{}", "\n".repeat(100), "x".repeat(100));
        assert_eq!(shown(&hidden), "x".repeat(WHO_MAX));
    }
}
